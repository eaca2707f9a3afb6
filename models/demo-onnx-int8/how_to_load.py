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
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnxruntime
from tokenizers import Tokenizer


class Model:
    """A text classifier: text in, label out. Normalising and cutting happen inside the tokenizer."""

    def __init__(self, folder: Path, threads: int | None = None) -> None:
        config = json.loads((folder / "config.json").read_text("utf-8"))
        names = sorted(config["id2label"].items(), key=lambda item: int(item[0]))
        self.labels: tuple[str, ...] = tuple(name for _, name in names)
        self.threshold: float | None = config["threshold"]
        self.tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self.pad_id: int = self.tokenizer.padding["pad_id"]
        self.tokenizer.no_padding()
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        if threads:
            options.intra_op_num_threads = threads
            options.inter_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(
            str(folder / "model.onnx"), options, providers=["CPUExecutionProvider"]
        )

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

        Each text is scored alone unless a batch size is given: an int8 model scales its activations by the whole
        batch, so a text that shares one gets slightly other scores, and on few cores padding costs more than
        batches save.
        """
        logits = self.predict_logits(texts, batch_size).astype(np.float64)
        shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
        return (shifted / shifted.sum(axis=1, keepdims=True)).astype(np.float32)

    def predict_logits(self, texts: Sequence[str], batch_size: int = 1) -> np.ndarray:
        """float32 (texts, labels); texts of like length share a batch, if it is more than one."""
        encoded = [encoding.ids for encoding in self.tokenizer.encode_batch(list(texts))]
        order = sorted(range(len(encoded)), key=lambda i: len(encoded[i]))
        logits = np.empty((len(encoded), len(self.labels)), dtype=np.float32)
        for start in range(0, len(order), batch_size):
            chosen = order[start : start + batch_size]
            longest = len(encoded[chosen[-1]])
            ids = np.full((len(chosen), longest), self.pad_id, dtype=np.int64)
            mask = np.zeros((len(chosen), longest), dtype=np.int64)
            for row, i in enumerate(chosen):
                ids[row, : len(encoded[i])] = encoded[i]
                mask[row, : len(encoded[i])] = 1
            logits[chosen] = self.session.run(["logits"], {"input_ids": ids, "attention_mask": mask})[0]
        return logits


def load(folder: str | os.PathLike[str] | None = None, threads: int | None = None) -> Model:
    """The model in `folder`, by default the folder of this file. threads: at most this many; None leaves it to ONNX
    Runtime."""
    return Model(Path(folder) if folder is not None else Path(__file__).parent, threads)


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit('usage: python how_to_load.py "text" ["another text" …]')
    for text, (label, score) in zip(sys.argv[1:], load().predict(sys.argv[1:]), strict=True):
        print(f"{label}\t{score:.4f}\t{text}")
