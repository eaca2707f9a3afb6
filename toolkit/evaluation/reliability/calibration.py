"""The calibration error: how far the probabilities of the answers are from the share of them that is right."""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from toolkit.data.corpus import Corpus
from toolkit.evaluation.comparison import Contender
from toolkit.evaluation.metrics import softmax

MOST_BINS, ROWS_PER_BIN = 15, 20
RESAMPLES = 1_000
_SEED = 0


@dataclass(frozen=True)
class CalibrationError:
    """Expected calibration error (ECE) in bins of equal numbers of rows (Nixon et al. 2019).

    The probability is that of the predicted label, as `predict` returns it.
    """

    rows: int
    ece: float
    interval: tuple[float, float]
    """95 %; it starts at 0 if a perfectly calibrated model would reach this error by chance."""
    by_chance: float
    """Mean error of a perfectly calibrated model with the same probabilities on as many rows."""
    bins: tuple[tuple[float, float, int], ...]
    """Of each bin the mean probability, the share of right answers and the number of rows."""

    def as_dict(self) -> dict[str, Any]:
        """Return the values for a JSON file."""
        return asdict(self)


def calibration_of(corpus: Corpus, model: Contender) -> CalibrationError:
    """Return the calibration error of a model on the test rows, at its decision rule."""
    test = corpus.rows("test")
    confidence, predicted = answers(model, test)
    return calibration_error(confidence, predicted == corpus.labels[test])


def answers(model: Contender, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the probability of the predicted label, float64 (rows,), and the predicted label, int (rows,)."""
    probabilities = softmax(model.predictions.of(rows).astype(np.float64))
    predicted = model.rule.predict(probabilities)
    return probabilities[np.arange(len(rows)), predicted], predicted


def calibration_error(confidence: np.ndarray, right: np.ndarray) -> CalibrationError:
    """Return the calibration error of answers with these probabilities, float (rows,); right: bool (rows,).

    The error of few rows is too high on average, and that of their bootstrap resamples is higher still. So the interval
    is the reflected bootstrap interval: as far below the error as the resamples lie above it.
    """
    rows = len(confidence)
    order = confidence.argsort(kind="stable")
    confidence, right = confidence[order].astype(np.float64), right[order].astype(np.float64)
    parts = np.array_split(np.arange(rows), max(1, min(MOST_BINS, rows // ROWS_PER_BIN)))
    starts = np.array([part[0] for part in parts])

    def error(confidences: np.ndarray, hits: np.ndarray) -> np.ndarray:
        """Return the error of each sample, both (samples, rows), sorted by confidence."""
        return np.abs(np.add.reduceat(confidences - hits, starts, axis=1)).sum(axis=1) / rows

    random = np.random.default_rng(_SEED)
    estimate = float(error(confidence[None], right[None])[0])
    resampled, perfect = np.empty(RESAMPLES), np.empty(RESAMPLES)
    for i in range(RESAMPLES):
        drawn = np.sort(random.integers(0, rows, rows))  # rows are sorted, so the resample is, too
        resampled[i] = error(confidence[drawn][None], right[drawn][None])[0]
        perfect[i] = error(confidence[None], (random.random(rows) < confidence)[None].astype(np.float64))[0]
    low, high = np.quantile(resampled, [0.025, 0.975])
    by_chance = estimate <= np.quantile(perfect, 0.95)
    interval = 0.0 if by_chance else max(0.0, 2 * estimate - float(high)), max(estimate, 2 * estimate - float(low))
    return CalibrationError(
        rows=rows,
        ece=estimate,
        interval=(min(interval[0], estimate), interval[1]),
        by_chance=float(perfect.mean()),
        bins=tuple((float(confidence[part].mean()), float(right[part].mean()), len(part)) for part in parts),
    )
