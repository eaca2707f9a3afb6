"""What all peers share: the rows, the choice of a setting on validation rows, and the labels of a function.

Imports nothing heavy: the process of a peer that is measured imports this module.
"""

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from toolkit.evaluation.metrics import macro_f1

if TYPE_CHECKING:
    from toolkit.data.corpus import Corpus

Label = Callable[[Sequence[str]], Sequence[str]]
"""Texts -> the label of each."""
Model = TypeVar("Model")


@dataclass(frozen=True)
class Rows:
    """Training and validation rows of a corpus. Test rows are not here: no peer sees them before it is measured."""

    texts: list[str]
    labels: list[str]
    validation_texts: list[str]
    validation_labels: np.ndarray
    """Indices in `names`."""
    names: tuple[str, ...]

    def save(self, file: Path) -> None:
        """Write the rows as JSON, for the process that trains a peer."""
        entries = asdict(self) | {"validation_labels": self.validation_labels.tolist()}
        file.write_text(json.dumps(entries, ensure_ascii=False), "utf-8")

    @staticmethod
    def load(file: Path) -> "Rows":
        """Return the rows that `save` wrote."""
        entries = json.loads(file.read_text("utf-8"))
        labels = np.array(entries["validation_labels"], dtype=np.int64)
        return Rows(**entries | {"validation_labels": labels, "names": tuple(entries["names"])})


@dataclass(frozen=True)
class Given:
    """What a peer may start from; each is None if it was not given."""

    encoder: Path | None = None
    """Folder of a pretrained encoder in the form of Hugging Face."""
    teacher: Path | None = None
    """Folder that `compressed.teacher.write_parts` wrote."""
    student: Path | None = None
    """Run with a student of fewer layers than the teacher."""


class Missing(Exception):
    """A peer cannot be trained with what was given; the message says what is missing."""


def rows_of(corpus: "Corpus") -> Rows:
    """Return the training and validation rows of a corpus, with labels by name."""
    train, validation = corpus.rows("train"), corpus.rows("validation")
    labels = [corpus.label_names[i] for i in corpus.labels[train]]
    return Rows(
        corpus.take(train), labels, corpus.take(validation), corpus.labels[validation], tuple(corpus.label_names)
    )


def best_of(
    rows: Rows,
    settings: Iterable[dict[str, Any]],
    fit: Callable[[dict[str, Any]], Model],
    label: Callable[[Model], Label],
) -> tuple[Model, dict[str, Any], float]:
    """Return the model with the best macro-F1 on validation rows, its settings and that score.

    fit: settings -> model. label: model -> its function from texts to labels.
    """
    found: list[tuple[float, Model, dict[str, Any]]] = []
    for each in settings:
        model = fit(each)
        found.append((score(rows, label(model)), model, each))
    best = max(found, key=lambda trial: trial[0])
    return best[1], best[2], best[0]


def score(rows: Rows, label: Label) -> float:
    """Return macro-F1 on the validation rows."""
    predicted = np.array([rows.names.index(name) for name in label(rows.validation_texts)])
    return macro_f1(rows.validation_labels, predicted, len(rows.names))
