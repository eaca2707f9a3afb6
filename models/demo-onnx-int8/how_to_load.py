"""Classify texts with the model in this folder, on any CPU.

    python how_to_load.py "text" ["another text" …]
    python how_to_load.py --help      # standard input, CSV files, self-test, benchmark

or, from Python:

    from how_to_load import load
    model = load()
    model.predict(["text"])           # [("label", probability of that label)]
    model.predict_proba(["text"])     # for each text, the probability of each label in model.labels

Requires only the packages in requirements.txt. Checks every file against manifest.json before it loads the model.

The model is a transformer, run by ONNX Runtime.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

# From 1.29 on, onnxruntime would write a device id and send usage data to Microsoft.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

try:
    import numpy as np
    import onnxruntime
    from tokenizers import Tokenizer
except ImportError as error:
    if __name__ != "__main__":
        raise
    print(f"{error}; pip install -r {Path(__file__).with_name('requirements.txt')}", file=sys.stderr)
    sys.exit(2)


def open_package(
    folder: str | os.PathLike[str], parts: Sequence[str], verify: bool, build: Callable[[Path], Any]
) -> Any:
    """Return the model that `build` makes of a folder; first check the files, among them `parts`, if `verify`.

    Raises: ValueError, in one line, if a file is not as shipped or the model does not load.
    """
    root = Path(folder).resolve()
    try:
        if verify:
            check_files(root, ("config.json", "tokenizer.json", *parts))
        return build(root)
    except ImportError:  # the runtime is not installed
        raise
    except Exception as error:  # the runtimes raise their own types for a broken file
        raise ValueError(f"{folder}: does not load: {' '.join(str(error).split()) or type(error).__name__}") from error


def check_files(root: Path, needed: Sequence[str]) -> None:
    """Check that every file in manifest.json, `needed` among them, has the size and SHA-256 that it states.

    Raises: ValueError for the first file that is missing, changed, outside the folder, a link or not a regular file.
    """
    manifest = root / "manifest.json"
    if not manifest.is_file() or manifest.stat().st_size > 2**24:
        raise ValueError("manifest.json is missing or too large; verify=False loads without it")
    try:
        files = json.loads(manifest.read_text("utf-8"))["files"]
        stated = {name: (entry["size_bytes"], entry["sha256"]) for name, entry in files.items()}
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        raise ValueError("manifest.json is malformed") from None
    for name in {**dict.fromkeys(needed), **stated}:
        file = root / name
        if name not in stated:
            raise ValueError(f"{name} is not in manifest.json")
        if file.resolve() != file or not file.is_relative_to(root) or not file.is_file():
            raise ValueError(f"{name} is missing, or is not a regular file inside the folder")
        if file.stat().st_size == stated[name][0] and sha256_of(file) == stated[name][1]:
            continue
        raise ValueError(f"{name} has changed")


def sha256_of(file: Path) -> str:
    """Return the SHA-256 of a file, read in parts."""
    digest = hashlib.sha256()
    with file.open("rb") as stream:
        for part in iter(lambda: stream.read(2**20), b""):
            digest.update(part)
    return digest.hexdigest()


def main(load: Callable[..., Any]) -> None:
    """Run the command line, which is in command_line.py beside this file."""
    sys.dont_write_bytecode = True  # the folder stays as manifest.json states it
    sys.path.insert(0, str(Path(__file__).resolve().parent))
    try:
        from command_line import run  # type: ignore[import-not-found]
    except ImportError as error:
        print(f"{error}: copy command_line.py beside how_to_load.py", file=sys.stderr)
        sys.exit(2)
    run(load, Path(__file__).resolve().parent)


def checked_texts(texts: Sequence[str]) -> list[str]:
    """Return a list of the texts, each surrogate without its other half replaced by U+FFFD.

    Raises: ValueError if `texts` is one text, or one of them is not a str.
    """
    if isinstance(texts, (str, bytes)):
        raise ValueError("expected a list of texts, not one text: write predict([text])")
    found = list(texts)
    for i, text in enumerate(found):
        if not isinstance(text, str):
            raise ValueError(f"texts[{i}] is not a str but {type(text).__name__}")
        try:
            text.encode()
        except UnicodeEncodeError:
            found[i] = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return found


Encode = Callable[[Sequence[str]], list[np.ndarray]]
"""Texts -> the token ids of each, int64 (tokens,)."""
Network = Callable[[np.ndarray, "np.ndarray | None"], np.ndarray]
"""Token ids (batch, tokens) and their mask (0 for padding; None without padding) -> logits float32 (batch, labels)."""


class Model:
    """A text classifier. The tokenizer normalizes the texts and truncates them."""

    def __init__(self, folder: Path, encoder: Callable[[Tokenizer], Encode], network: Network) -> None:
        config = json.loads((folder / "config.json").read_text("utf-8"))
        names = {int(i): name for i, name in config["id2label"].items()}
        self.labels: tuple[str, ...] = tuple(names[i] for i in range(len(names)))
        self.threshold: float | None = config["threshold"]
        offsets = config.get("offsets")  # of more than two labels
        self.offsets: tuple[float, ...] | None = None if offsets is None else tuple(offsets)
        if not all(isinstance(name, str) for name in self.labels) or len(self.labels) < 2:
            raise ValueError("config.json: id2label must name two labels or more")
        if self.threshold is not None and not is_finite(self.threshold):
            raise ValueError("config.json: threshold must be a finite number or null")
        if offsets is not None and not (len(offsets) == len(self.labels) and all(map(is_finite, offsets))):
            raise ValueError("config.json: offsets must be null or one finite number per label")
        self.tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self.pad_id: int = self.tokenizer.padding["pad_id"]
        self.tokenizer.no_padding()
        self.encode = encoder(self.tokenizer)
        self.network = network

    def predict(self, texts: Sequence[str], batch_size: int = 1) -> list[tuple[str, float]]:
        """Return the label of each text and its probability.

        With two labels, the second one is predicted if its probability is at least the threshold. With more, the label
        with the highest sum of log-probability and offset is predicted.
        """
        probabilities = self.predict_proba(texts, batch_size)
        if len(self.labels) == 2 and self.threshold is not None:
            chosen = (probabilities[:, 1] >= self.threshold).astype(int)
        elif self.offsets is not None:
            scores = np.log(np.maximum(probabilities.astype(np.float64), 1e-12))
            chosen = (scores + np.array(self.offsets)).argmax(axis=1)
        else:
            chosen = probabilities.argmax(axis=1)
        return [(self.labels[i], float(row[i])) for i, row in zip(chosen, probabilities)]

    def predict_proba(self, texts: Sequence[str], batch_size: int = 1) -> np.ndarray:
        """Return float32 (texts, labels): rows sum to 1, in the order of `texts`, columns in the order of `labels`.

        By default, each text is scored by itself: on few cores, padding costs more time than batching saves. The model
        card reports whether batches change the scores.
        Raises: ValueError for one text instead of a list, a batch size below 1, or scores that are not finite.
        """
        logits = self.predict_logits(texts, batch_size)
        if len(logits) == 1:  # for one row, plain Python is faster than numpy
            row = logits[0].tolist()
            largest = max(row)
            exponentials = [math.exp(logit - largest) for logit in row]
            total = sum(exponentials)
            return np.array([[value / total for value in exponentials]], dtype=np.float32)
        shifted = logits.astype(np.float64)
        shifted = np.exp(shifted - shifted.max(axis=1, keepdims=True))
        return (shifted / shifted.sum(axis=1, keepdims=True)).astype(np.float32)

    def predict_logits(self, texts: Sequence[str], batch_size: int = 1) -> np.ndarray:
        """Return logits, float32 (texts, labels); texts are batched by length. See `predict_proba` for errors."""
        if batch_size < 1:
            raise ValueError(f"batch_size must be 1 or more, not {batch_size}")
        encoded = self.encode(checked_texts(texts))
        if len(encoded) == 1:
            return self.checked_logits(encoded[0][None], None)
        logits = np.empty((len(encoded), len(self.labels)), dtype=np.float32)
        if batch_size == 1:
            for i, ids in enumerate(encoded):
                logits[i] = self.checked_logits(ids[None], None)[0]
            return logits
        lengths = np.array([len(ids) for ids in encoded])
        order = lengths.argsort(kind="stable")
        for start in range(0, len(order), batch_size):
            chosen = order[start : start + batch_size]
            batch = np.full((len(chosen), lengths[chosen[-1]]), self.pad_id, dtype=np.int64)
            for row, i in zip(batch, chosen):
                row[: lengths[i]] = encoded[i]
            mask = (np.arange(batch.shape[1]) < lengths[chosen, None]).astype(np.int64)
            logits[chosen] = self.checked_logits(batch, mask)
        return logits

    def checked_logits(self, ids: np.ndarray, mask: np.ndarray | None) -> np.ndarray:
        """Return the logits of one batch, float32 (batch, labels).

        Raises: ValueError if they are not finite or not one per text and label.
        """
        logits = self.network(ids, mask)
        if logits.shape != (len(ids), len(self.labels)):
            raise ValueError(f"the network returned scores of shape {logits.shape} for {len(self.labels)} labels")
        if not np.isfinite(logits).all():
            raise ValueError("the network returned scores that are not finite: the model is damaged")
        return logits


def is_finite(value: object) -> bool:
    """Return whether `value` is a finite number, and not a bool."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def subwords(tokenizer: Tokenizer) -> Encode:
    """Return a function that encodes texts as subword ids."""

    def encode(texts: Sequence[str]) -> list[np.ndarray]:
        # encode_batch uses threads, which is slower for a single text.
        found = [tokenizer.encode(texts[0])] if len(texts) == 1 else tokenizer.encode_batch(list(texts))
        return [np.array(each.ids, dtype=np.int64) for each in found]

    return encode


GRAPH_FILE = "onnx/model.onnx"
"""Where the libraries of Hugging Face, in Python and in JavaScript, look for it."""


def graph_file(folder: Path) -> str:
    """Return the path of the graph in a package; in packages before 0.2, it is at the top."""
    before = "model.onnx"
    return before if (folder / before).exists() and not (folder / GRAPH_FILE).exists() else GRAPH_FILE


def open_session(file: Path, threads: int | None) -> onnxruntime.InferenceSession:
    """Return an inference session for the graph in `file` on the CPU."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    if threads:
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
    # The fallback would print a broken file's error on stdout.
    return onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"], enable_fallback=0)


def transformer_network(file: Path, threads: int | None) -> Network:
    """Return the network in `file`."""
    session = open_session(file, threads)
    masked = "attention_mask" in {entry.name for entry in session.get_inputs()}

    def run(ids: np.ndarray, mask: np.ndarray | None) -> np.ndarray:
        feed = {"input_ids": ids}
        if masked:
            feed["attention_mask"] = np.ones_like(ids) if mask is None else mask
        return session.run(["logits"], feed)[0]

    return run


def load(folder: str | os.PathLike[str] | None = None, threads: int | None = None, verify: bool = True) -> Model:
    """Return the model in `folder`, by default the folder of this file.

    threads: maximum number of threads; None uses the default of the runtime.
    verify: check all files against manifest.json first. This took 1.3 ms for 0.6 MB and 0.7 s for 200 MB.
    Raises: ValueError if a file is not as shipped or the model does not load.
    """
    folder = Path(__file__).parent if folder is None else folder

    def build(root: Path) -> Model:
        return Model(root, subwords, transformer_network(root / graph_file(root), threads))

    return open_package(folder, (graph_file(Path(folder)),), verify, build)


if __name__ == "__main__":
    main(load)
