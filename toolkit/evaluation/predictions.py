"""Stored logits of a model on rows of the corpus, and the metrics computed from them."""

import csv
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from toolkit.data.corpus import Corpus
from toolkit.evaluation.decision_rule import DecisionRule
from toolkit.evaluation.label_keys import label_keys
from toolkit.evaluation.metrics import metrics_with_rule, softmax
from toolkit.evaluation.rule_choice import Choice, choose_rule
from toolkit.utils.files import whole_file

PREDICTIONS_FILE = "predictions.csv"


@dataclass(frozen=True)
class Predictions:
    """Logits of one model on rows of the corpus."""

    rows: np.ndarray
    """int (n,): row numbers of the corpus."""
    logits: np.ndarray
    """float32 (n, labels)."""

    def of(self, rows: np.ndarray) -> np.ndarray:
        """Return the logits (rows, labels) of the given rows, in their order."""
        position = np.full(max(self.rows.max(), rows.max()) + 1, -1)
        position[self.rows] = np.arange(len(self.rows))
        if (position[rows] < 0).any():
            raise KeyError("a row without a prediction")
        return self.logits[position[rows]]

    def joined(self, other: "Predictions | None") -> "Predictions":
        """Return the predictions of both, or these if there are no others; no row may be in both."""
        if other is None:
            return self
        return Predictions(np.concatenate([self.rows, other.rows]), np.concatenate([self.logits, other.logits]))

    def save(self, file: Path, corpus: Corpus) -> None:
        """Write row, split and one logit per label; nine digits restore float32 exactly."""
        with whole_file(file) as partial, partial.open("w", newline="", encoding="utf-8") as out:
            writer = csv.writer(out, lineterminator="\n")
            writer.writerow(["row", "split", *(f"logit_{key}" for key in label_keys(corpus.label_names))])
            for row, split, logits in zip(self.rows, corpus.split_of(self.rows), self.logits, strict=True):
                writer.writerow([row, split, *(f"{value:.9g}" for value in logits)])

    @staticmethod
    def load(file: Path) -> "Predictions":
        """Return the predictions in a file that `save` wrote."""
        with file.open(newline="", encoding="utf-8") as lines:
            table = list(csv.reader(lines))[1:]
        rows = np.array([int(line[0]) for line in table])
        return Predictions(rows, np.array([line[2:] for line in table], dtype=np.float32))


def evaluate(
    corpus: Corpus, predictions: Predictions, rule: DecisionRule
) -> tuple[dict[str, float], dict[str, float], dict[str, dict[str, float]]]:
    """Return validation metrics, test metrics and the test metrics of each slice, at a decision rule."""

    def measure(rows: np.ndarray) -> dict[str, float]:
        probabilities = softmax(predictions.of(rows).astype(np.float64))
        return metrics_with_rule(corpus.labels[rows], probabilities, rule, corpus.label_names)

    test = corpus.rows("test")
    slices = {name: measure(test[mask[test]]) for name, mask in corpus.slices.items() if mask[test].any()}
    return measure(corpus.rows("validation")), measure(test), slices


def rule_on(
    corpus: Corpus, predictions: Predictions, rows: np.ndarray | None = None, inherited: DecisionRule | None = None
) -> Choice:
    """Choose a decision rule on `rows`, on which the classifier must not have been trained.

    rows: None uses the validation rows. inherited: see `choose_rule`.
    """
    rows = corpus.rows("validation") if rows is None else rows
    return choose_rule(corpus.labels[rows], softmax(predictions.of(rows).astype(np.float64)), inherited)
