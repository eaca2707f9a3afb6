"""What a stage leaves behind: a folder that appears whole or not at all, a result and its predictions."""

import csv
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from toolkit.corpus import Corpus
from toolkit.metrics import calculate_metrics_with_threshold_exploration, softmax

RESULT_FILE, PREDICTIONS_FILE = "result.json", "predictions.csv"


@dataclass(frozen=True)
class StageResult:
    """What a stage made and what it measured; goes to JSON and back."""

    stage: str
    checkpoint: str
    """Folder of the checkpoint, or file of the artefact, relative to the stage's folder."""
    metrics: dict[str, float]
    """On the test rows, at `threshold`."""
    validation_metrics: dict[str, float]
    """On the validation rows, from which `threshold` was chosen."""
    threshold: float | None
    """None for more than two labels."""
    parameters: int
    size_bytes: int
    seconds: float
    predictions: str = PREDICTIONS_FILE
    """File of the predictions, relative to the stage's folder."""
    slices: dict[str, dict[str, float]] = field(default_factory=dict)
    """Metrics of parts of the test rows."""
    details: dict[str, Any] = field(default_factory=dict)
    """What only this kind of stage has to say."""

    def save(self, folder: Path) -> None:
        text = json.dumps(without_nan(asdict(self)), indent=2, ensure_ascii=False, allow_nan=False)
        (folder / RESULT_FILE).write_text(text + "\n", "utf-8")

    @staticmethod
    def load(folder: Path) -> "StageResult":
        return StageResult(**json.loads((folder / RESULT_FILE).read_text("utf-8")))


@dataclass(frozen=True)
class Predictions:
    """Logits of one model on rows of the corpus."""

    rows: np.ndarray
    """int (n,): row numbers of the corpus."""
    logits: np.ndarray
    """float32 (n, labels)."""

    def of(self, rows: np.ndarray) -> np.ndarray:
        """Logits (rows, labels) of the given rows, in their order."""
        position = np.full(max(self.rows.max(), rows.max()) + 1, -1)
        position[self.rows] = np.arange(len(self.rows))
        if (position[rows] < 0).any():
            raise KeyError("a row that was not predicted")
        return self.logits[position[rows]]

    def save(self, file: Path, corpus: Corpus) -> None:
        """Write row, split and one logit a label; nine digits bring float32 back exactly."""
        with file.open("w", newline="", encoding="utf-8") as out:
            writer = csv.writer(out, lineterminator="\n")
            writer.writerow(["row", "split", *(f"logit_{name}" for name in corpus.label_names)])
            for row, split, logits in zip(self.rows, corpus.split_of(self.rows), self.logits, strict=True):
                writer.writerow([row, split, *(f"{value:.9g}" for value in logits)])

    @staticmethod
    def load(file: Path) -> "Predictions":
        with file.open(newline="", encoding="utf-8") as lines:
            table = list(csv.reader(lines))[1:]
        rows = np.array([int(line[0]) for line in table])
        return Predictions(rows, np.array([line[2:] for line in table], dtype=np.float32))


def evaluate(
    corpus: Corpus, predictions: Predictions, threshold: float | None = None
) -> tuple[dict[str, float], dict[str, float], dict[str, dict[str, float]]]:
    """Validation metrics, test metrics and test metrics of each slice.

    The threshold is the given one, or the best on the validation rows; the test rows never choose.
    """

    def measure(rows: np.ndarray, threshold: float | None) -> dict[str, float]:
        return calculate_metrics_with_threshold_exploration(
            corpus.labels[rows], softmax(predictions.of(rows)), threshold, corpus.label_names
        )

    test = corpus.rows("test")
    validation = measure(corpus.rows("validation"), threshold)
    chosen = validation.get("best_threshold")
    slices = {name: measure(test[mask[test]], chosen) for name, mask in corpus.slices.items() if mask[test].any()}
    return validation, measure(test, chosen), slices


def best_threshold(corpus: Corpus, predictions: Predictions, rows: np.ndarray) -> float | None:
    """The threshold with the best macro-F1 on `rows`, which the classifier must not have learned from."""
    probabilities = softmax(predictions.of(rows))
    return calculate_metrics_with_threshold_exploration(corpus.labels[rows], probabilities).get("best_threshold")


@contextmanager
def whole_folder(folder: Path) -> Iterator[Path]:
    """A sibling to work in, which becomes `folder` when the block ends well and stays for a resume otherwise."""
    partial = folder.with_name(folder.name + ".partial")
    partial.mkdir(parents=True, exist_ok=True)
    yield partial
    if folder.exists():
        replaced = folder.with_name(folder.name + ".replaced")
        shutil.rmtree(replaced, ignore_errors=True)
        folder.rename(replaced)
        partial.rename(folder)
        shutil.rmtree(replaced)
    else:
        partial.rename(folder)


def without_nan(value: Any) -> Any:
    """`value` with None for every figure that is not a number, which JSON does not know."""
    if isinstance(value, dict):
        return {key: without_nan(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [without_nan(item) for item in value]
    return None if isinstance(value, float) and not np.isfinite(value) else value


def folder_size(folder: Path) -> int:
    """Bytes of all files below `folder`."""
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
