"""Stored logits of a model on rows of the corpus, and the metrics computed from them."""

import csv
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from toolkit.data.corpus import Corpus
from toolkit.evaluation.metrics import calculate_metrics_with_threshold_exploration, softmax
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

    def save(self, file: Path, corpus: Corpus) -> None:
        """Write row, split and one logit per label; nine digits restore float32 exactly."""
        with whole_file(file) as partial, partial.open("w", newline="", encoding="utf-8") as out:
            writer = csv.writer(out, lineterminator="\n")
            writer.writerow(["row", "split", *(f"logit_{name}" for name in corpus.label_names)])
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
    corpus: Corpus, predictions: Predictions, threshold: float | None = None
) -> tuple[dict[str, float], dict[str, float], dict[str, dict[str, float]]]:
    """Return validation metrics, test metrics and the test metrics of each slice.

    threshold: None selects the best threshold on the validation rows. It is never selected on test rows.
    """

    def measure(rows: np.ndarray, threshold: float | None) -> dict[str, float]:
        return calculate_metrics_with_threshold_exploration(
            corpus.labels[rows], softmax(predictions.of(rows)), threshold, corpus.label_names
        )

    test = corpus.rows("test")
    validation = measure(corpus.rows("validation"), threshold)
    selected = validation.get("best_threshold")
    slices = {name: measure(test[mask[test]], selected) for name, mask in corpus.slices.items() if mask[test].any()}
    return validation, measure(test, selected), slices


def best_threshold(corpus: Corpus, predictions: Predictions, rows: np.ndarray) -> float | None:
    """Return the threshold with the best macro-F1 on `rows`, on which the classifier must not have been trained."""
    probabilities = softmax(predictions.of(rows))
    return calculate_metrics_with_threshold_exploration(corpus.labels[rows], probabilities).get("best_threshold")
