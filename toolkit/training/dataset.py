"""Training data of a classifier (texts, labels and logits of a teacher) and its batches."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from toolkit.modeling.classifier import Classifier, pad
from toolkit.modeling.tokenizer import encode


@dataclass(frozen=True)
class Examples:
    """Texts for training or validation."""

    texts: Sequence[str]
    labels: np.ndarray
    """int (texts,); may contain UNLABELED only if there are teacher logits."""
    teacher_logits: np.ndarray | None = None
    """float (texts, labels); None without a teacher."""

    def take(self, chosen: np.ndarray) -> "Examples":
        """Return the examples with the indices `chosen`, in that order."""
        logits = None if self.teacher_logits is None else self.teacher_logits[chosen]
        return Examples([self.texts[i] for i in chosen.tolist()], self.labels[chosen], logits)


def encoded(classifier: Classifier, examples: Examples) -> list[dict[str, Any]]:
    """Return a row per text with its ids, its label and, if present, the logits of the teacher."""
    token_ids = encode(classifier.tokenizer, examples.texts)
    rows: list[dict[str, Any]] = [
        {"input_ids": ids, "labels": int(label)} for ids, label in zip(token_ids, examples.labels, strict=True)
    ]
    if examples.teacher_logits is not None:
        for row, logits in zip(rows, examples.teacher_logits, strict=True):
            row["teacher_logits"] = logits
    return rows


@dataclass(frozen=True)
class Collate:
    """Collates rows of `encoded` into a batch."""

    pad_id: int
    pad_to: int
    """Minimum length in tokens to which texts are padded."""

    def __call__(self, rows: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        ids, mask = pad([row["input_ids"] for row in rows], self.pad_id, self.pad_to)
        batch = {"input_ids": ids, "attention_mask": mask, "labels": torch.tensor([row["labels"] for row in rows])}
        if "teacher_logits" in rows[0]:
            batch["teacher_logits"] = torch.tensor(np.stack([row["teacher_logits"] for row in rows]))
        return batch
