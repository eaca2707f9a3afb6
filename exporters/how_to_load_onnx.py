"""Classify texts with the model in this folder, on any CPU.

    python how_to_load.py "text" ["another text" …]

or, from Python:

    from how_to_load import load
    model = load()
    model.predict(["text"])           # [("label", probability of that label)]
    model.predict_proba(["text"])     # float32 (texts, labels)

Needs numpy, tokenizers and onnxruntime (see requirements.txt), nothing else.
"""

import json
import math
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import onnxruntime
from tokenizers import Tokenizer


class Model:
    """A text classifier: text in, label out. Normalising and cutting are those of the tokenizer."""

    def __init__(self, folder: Path, threads: int | None = None) -> None:
        config = json.loads((folder / "config.json").read_text("utf-8"))
        names = sorted(config["id2label"].items(), key=lambda item: int(item[0]))
        self.labels: tuple[str, ...] = tuple(name for _, name in names)
        self.threshold: float | None = config["threshold"]
        self.tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self.pad_id: int = self.tokenizer.padding["pad_id"]
        self.tokenizer.no_padding()
        by_character = config.get("model_type") == "ngram"
        self.characters = _characters(self.tokenizer) if by_character else None
        """Token ids of a text without the detours of a general tokenizer."""
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        if threads:
            options.intra_op_num_threads = threads
            options.inter_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(
            str(folder / "model.onnx"), options, providers=["CPUExecutionProvider"]
        )
        self.masked = "attention_mask" in {entry.name for entry in self.session.get_inputs()}

    def predict(self, texts: Sequence[str]) -> list[tuple[str, float]]:
        """The label of each text and its probability; of two labels the second wins from the threshold on."""
        probabilities = self.predict_proba(texts)
        if len(self.labels) == 2 and self.threshold is not None:
            chosen = (probabilities[:, 1] >= self.threshold).astype(int)
        else:
            chosen = probabilities.argmax(axis=1)
        return [(self.labels[i], float(row[i])) for i, row in zip(chosen, probabilities, strict=True)]

    def predict_proba(self, texts: Sequence[str], batch_size: int = 1) -> np.ndarray:
        """float32 (texts, labels): rows sum to 1, in the order of `texts`, columns in the order of `labels`.

        Each text is scored alone unless a batch size is given: an int8 transformer scales its activations by the
        whole batch, so a text that shares one gets slightly other scores, and on few cores padding costs more than
        batches save.
        """
        logits = self.predict_logits(texts, batch_size)
        if len(logits) == 1:  # numpy takes longer to start than to compute
            row = logits[0].tolist()
            largest = max(row)
            exponentials = [math.exp(logit - largest) for logit in row]
            total = sum(exponentials)
            return np.array([[value / total for value in exponentials]], dtype=np.float32)
        shifted = logits.astype(np.float64)
        shifted = np.exp(shifted - shifted.max(axis=1, keepdims=True))
        return (shifted / shifted.sum(axis=1, keepdims=True)).astype(np.float32)

    def predict_logits(self, texts: Sequence[str], batch_size: int = 1) -> np.ndarray:
        """float32 (texts, labels); texts of like length share a batch, if it is more than one."""
        if len(texts) == 1:
            return self._run(self._token_ids(texts[0])[None])
        if self.characters is not None:
            encoded = [self.characters(text) for text in texts]
        else:
            encoded = [np.array(found.ids, dtype=np.int64) for found in self.tokenizer.encode_batch(list(texts))]
        logits = np.empty((len(encoded), len(self.labels)), dtype=np.float32)
        if batch_size == 1:
            for i, ids in enumerate(encoded):
                logits[i] = self._run(ids[None])[0]
            return logits
        lengths = np.array([len(ids) for ids in encoded])
        order = lengths.argsort(kind="stable")
        for start in range(0, len(order), batch_size):
            chosen = order[start : start + batch_size]
            batch = np.full((len(chosen), lengths[chosen[-1]]), self.pad_id, dtype=np.int64)
            for row, i in zip(batch, chosen, strict=True):
                row[: lengths[i]] = encoded[i]
            mask = (np.arange(batch.shape[1]) < lengths[chosen, None]).astype(np.int64)
            logits[chosen] = self._run(batch, mask)
        return logits

    def _token_ids(self, text: str) -> np.ndarray:
        """int64 (tokens,)."""
        if self.characters is not None:
            return self.characters(text)
        return np.array(self.tokenizer.encode(text).ids, dtype=np.int64)

    def _run(self, ids: np.ndarray, mask: np.ndarray | None = None) -> np.ndarray:
        """Logits float32 (batch, labels) of ids (batch, tokens). mask: 0 at padding; None if there is none."""
        feed = {"input_ids": ids}
        if self.masked:
            feed["attention_mask"] = np.ones_like(ids) if mask is None else mask
        return self.session.run(["logits"], feed)[0]


def _characters(tokenizer: Tokenizer) -> Callable[[str], np.ndarray]:
    """The same ids as those of `tokenizer`, whose tokens are characters, several times as fast: int64 (tokens,)."""
    normalise = tokenizer.normalizer.normalize_str
    edge = tokenizer.encode("").tokens[0]  # what stands for a space, and at both ends of a text
    content = tokenizer.truncation["max_length"] - 2
    ids = {ord(token): i for token, i in tokenizer.get_vocab().items() if len(token) == 1}
    id_of = np.full(max(ids) + 2, tokenizer.token_to_id("[UNK]"), dtype=np.int64)  # code point -> id
    id_of[list(ids)] = list(ids.values())

    def encode(text: str) -> np.ndarray:
        codes = np.frombuffer(f"{edge}{normalise(text)[:content]}{edge}".encode("utf-32-le"), dtype="<u4")
        return id_of.take(codes, mode="clip")  # a code point beyond the last known one is cut to an unknown one

    return encode


def load(folder: str | os.PathLike[str] | None = None, threads: int | None = None) -> Model:
    """The model in `folder`, by default the folder of this file. threads: at most this many; None leaves it to ONNX
    Runtime."""
    return Model(Path(folder) if folder is not None else Path(__file__).parent, threads)


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit('usage: python how_to_load.py "text" ["another text" …]')
    for text, (label, score) in zip(sys.argv[1:], load().predict(sys.argv[1:]), strict=True):
        print(f"{label}\t{score:.4f}\t{text}")
