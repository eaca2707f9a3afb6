"""What a classifier learns from: texts, labels and what a teacher says, and how they become batches."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from toolkit.modeling.classifier import Classifier, pad
from toolkit.modeling.tokenizer import encode


@dataclass(frozen=True)
class Examples:
    """Texts to learn from or to validate on."""

    texts: Sequence[str]
    labels: np.ndarray
    """int (texts,); UNLABELED only where there are teacher logits."""
    teacher_logits: np.ndarray | None = None
    """float (texts, labels): what a student imitates."""

    def take(self, chosen: np.ndarray) -> "Examples":
        """Some of them, by number, in that order."""
        logits = None if self.teacher_logits is None else self.teacher_logits[chosen]
        return Examples([self.texts[i] for i in chosen.tolist()], self.labels[chosen], logits)


def encoded(classifier: Classifier, examples: Examples) -> list[dict[str, Any]]:
    """One entry a text: its ids, its label and, where there are such, the teacher's logits."""
    pieces = encode(classifier.tokenizer, examples.texts)
    rows: list[dict[str, Any]] = [
        {"input_ids": ids, "labels": int(label)} for ids, label in zip(pieces, examples.labels, strict=True)
    ]
    if examples.teacher_logits is not None:
        for row, logits in zip(rows, examples.teacher_logits, strict=True):
            row["teacher_logits"] = logits
    return rows


@dataclass(frozen=True)
class Collate:
    """Makes a batch of entries of `encoded`."""

    pad_id: int
    pad_to: int

    def __call__(self, rows: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        ids, mask = pad([row["input_ids"] for row in rows], self.pad_id, self.pad_to)
        batch = {"input_ids": ids, "attention_mask": mask, "labels": torch.tensor([row["labels"] for row in rows])}
        if "teacher_logits" in rows[0]:
            batch["teacher_logits"] = torch.tensor(np.stack([row["teacher_logits"] for row in rows]))
        return batch
