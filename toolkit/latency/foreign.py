"""Models that hbt did not make, to be measured beside its packages: `onnx:FOLDER` and `python:MODULE.FUNCTION`.

`python:` runs code of the user, who names it on the command line.
"""

import importlib
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from toolkit.utils.errors import InputError

ONNX: Final = "onnx"
PYTHON: Final = "python"
GRAPHS = ("model.onnx", "onnx/model.onnx", "model_quantized.onnx", "onnx/model_quantized.onnx")


@dataclass(frozen=True)
class Function:
    """A predictor around a function from texts to labels."""

    labels: tuple[str, ...]
    label: Callable[[Sequence[str]], Sequence[str]]
    threshold: float | None = None
    offsets: tuple[float, ...] | None = None

    def predict(self, texts: Sequence[str]) -> Sequence[str]:
        """Return the label of each text."""
        return self.label(texts)

    def predict_proba(self, texts: Sequence[str]) -> np.ndarray:
        """Return float32 (texts, labels): 1 for the label of each text. Raises: InputError for another label."""
        found = list(map(str, self.label(list(texts))))
        unknown = {*found} - {*self.labels}
        if unknown or len(found) != len(texts):
            wrong = f"label {min(unknown)!r}" if unknown else f"{len(found)} labels for {len(texts)} texts"
            raise InputError(f"the function returned {wrong}; it must return one of {', '.join(self.labels)} per text")
        return np.eye(len(self.labels), dtype=np.float32)[[self.labels.index(name) for name in found]]


@dataclass(frozen=True)
class OnnxFolder:
    """A predictor around an ONNX classifier in the form of Hugging Face; the label with the highest logit wins."""

    labels: tuple[str, ...]
    tokenizer: Any
    session: Any
    threshold: float | None = None
    offsets: tuple[float, ...] | None = None

    def predict(self, texts: Sequence[str]) -> list[str]:
        """Return the label of each text, scored one by one."""
        return [self.labels[int(self.logits(text).argmax())] for text in texts]

    def predict_proba(self, texts: Sequence[str]) -> np.ndarray:
        """Return float32 (texts, labels)."""
        logits = np.array([self.logits(text) for text in texts]).reshape(len(texts), len(self.labels))
        found = np.exp(logits - logits.max(axis=1, keepdims=True))
        return (found / found.sum(axis=1, keepdims=True)).astype(np.float32)

    def logits(self, text: str) -> np.ndarray:
        """Return the logits of a text, (labels,)."""
        encoded = self.tokenizer.encode(text)
        rows = {
            "input_ids": encoded.ids, "attention_mask": encoded.attention_mask, "token_type_ids": encoded.type_ids
        }  # fmt: skip
        wanted = [entry.name for entry in self.session.get_inputs()]
        return self.session.run(None, {name: np.array([rows[name]], dtype=np.int64) for name in wanted})[0][0]


def is_foreign(given: str) -> bool:
    """Return whether `given` names a model that hbt did not make."""
    return given.startswith((f"{ONNX}:", f"{PYTHON}:"))


def load_foreign(kind: str, path: Path, threads: int, labels: Sequence[str]) -> Function | OnnxFolder:
    """Return the predictor of a model that hbt did not make.

    kind: ONNX or PYTHON. path: what stands after the colon. labels: what a function may return.
    Raises: InputError if it is not there or cannot be loaded.
    """
    return _function(path.as_posix(), labels) if kind == PYTHON else _onnx_folder(path, threads)


def _function(place: str, labels: Sequence[str]) -> Function:
    module, _, name = place.rpartition(".")
    if not module or not name:
        raise InputError(f"python:{place}: give a function as python:MODULE.FUNCTION")
    sys.path.insert(0, str(Path.cwd()))
    try:
        found = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise InputError(f"python:{place}: {error}; give a function in a file of the current folder") from None
    finally:
        sys.path.pop(0)
    return Function(tuple(labels), found)


def _onnx_folder(folder: Path, threads: int) -> OnnxFolder:
    import onnxruntime
    from tokenizers import Tokenizer

    graph = next((folder / name for name in GRAPHS if (folder / name).is_file()), None)
    missing = [name for name in ("config.json", "tokenizer.json") if not (folder / name).is_file()]
    if missing or graph is None:
        what = ", ".join(missing) or " or ".join(GRAPHS[:2])
        raise InputError(f"onnx:{folder}: has no {what}; give a folder with an ONNX classifier, as optimum writes it")
    try:
        names = json.loads((folder / "config.json").read_text("utf-8"))["id2label"]
        labels = tuple(names[str(i)] for i in range(len(names)))
    except (ValueError, LookupError, TypeError):
        raise InputError(
            f"onnx:{folder}: config.json has no id2label from 0 on; save the labels with the model"
        ) from None
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_padding()
    return OnnxFolder(labels, tokenizer, onnxruntime.InferenceSession(str(graph), options))
