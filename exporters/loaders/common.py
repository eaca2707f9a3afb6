"""A text classifier with a tokenizer and a network."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer

from exporters.loaders.base.texts import checked_texts

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
