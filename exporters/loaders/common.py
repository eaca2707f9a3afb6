"""Classify texts with the model in this folder, on any CPU.

    python how_to_load.py "text" ["another text" …]

or, from Python:

    from how_to_load import load
    model = load()
    model.predict(["text"])           # [("label", probability of that label)]
    model.predict_proba(["text"])     # float32 (texts, labels)

Requires only the packages in requirements.txt.
"""

import json
import math
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer

Encode = Callable[[Sequence[str]], list[np.ndarray]]
"""Texts -> the token ids of each, int64 (tokens,)."""
Network = Callable[[np.ndarray, np.ndarray | None], np.ndarray]
"""Token ids (batch, tokens) and their mask (0 for padding; None without padding) -> logits float32 (batch, labels)."""


class Model:
    """A text classifier. The tokenizer normalizes the texts and truncates them."""

    def __init__(self, folder: Path, encoder: Callable[[Tokenizer], Encode], network: Network) -> None:
        config = json.loads((folder / "config.json").read_text("utf-8"))
        names = sorted(config["id2label"].items(), key=lambda item: int(item[0]))
        self.labels: tuple[str, ...] = tuple(name for _, name in names)
        self.threshold: float | None = config["threshold"]
        self.tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self.pad_id: int = self.tokenizer.padding["pad_id"]
        self.tokenizer.no_padding()
        self.encode = encoder(self.tokenizer)
        self.network = network

    def predict(self, texts: Sequence[str]) -> list[tuple[str, float]]:
        """Return the label of each text and its probability.

        With two labels, the second one is predicted if its probability is at least the threshold.
        """
        probabilities = self.predict_proba(texts)
        if len(self.labels) == 2 and self.threshold is not None:
            chosen = (probabilities[:, 1] >= self.threshold).astype(int)
        else:
            chosen = probabilities.argmax(axis=1)
        return [(self.labels[i], float(row[i])) for i, row in zip(chosen, probabilities, strict=True)]

    def predict_proba(self, texts: Sequence[str], batch_size: int = 1) -> np.ndarray:
        """Return float32 (texts, labels): rows sum to 1, in the order of `texts`, columns in the order of `labels`.

        By default, each text is scored by itself: on few cores, padding costs more time than batching saves. The model
        card reports whether batches change the scores.
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
        """Return logits, float32 (texts, labels); texts are batched by length."""
        encoded = self.encode(texts)
        if len(encoded) == 1:
            return self.network(encoded[0][None], None)
        logits = np.empty((len(encoded), len(self.labels)), dtype=np.float32)
        if batch_size == 1:
            for i, ids in enumerate(encoded):
                logits[i] = self.network(ids[None], None)[0]
            return logits
        lengths = np.array([len(ids) for ids in encoded])
        order = lengths.argsort(kind="stable")
        for start in range(0, len(order), batch_size):
            chosen = order[start : start + batch_size]
            batch = np.full((len(chosen), lengths[chosen[-1]]), self.pad_id, dtype=np.int64)
            for row, i in zip(batch, chosen, strict=True):
                row[: lengths[i]] = encoded[i]
            mask = (np.arange(batch.shape[1]) < lengths[chosen, None]).astype(np.int64)
            logits[chosen] = self.network(batch, mask)
        return logits


def main(load: Callable[[], Model]) -> None:
    """Print label, probability and text for each command-line argument."""
    texts = sys.argv[1:]
    if not texts:
        sys.exit('usage: python how_to_load.py "text" ["another text" …]')
    for text, (label, score) in zip(texts, load().predict(texts), strict=True):
        print(f"{label}\t{score:.4f}\t{text}")
