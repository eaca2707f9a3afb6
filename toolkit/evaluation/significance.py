"""Is B worse than A? Paired tests on the predicted labels of the same rows."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from math import ceil
from typing import Any

import numpy as np

MARGIN = 0.01
"""Default margin: a smaller difference of macro-F1 does not matter. Reported with every verdict."""
RESAMPLES = 2_000
INCONCLUSIVE = "inconclusive"
_SEED = 0
_ONE_SIDED, _TWO_SIDED = 1.6449, 1.9600
"""Quantiles of the normal distribution at 95 and 97.5 %."""


@dataclass(frozen=True)
class Comparison:
    """Comparison of B with A on the same rows; differences are B minus A."""

    rows: int
    macro_f1_difference: float
    interval: tuple[float, float]
    """95 % bootstrap interval of the difference of macro-F1."""
    accuracy_difference: float
    accuracy_interval: tuple[float, float]
    """95 % bootstrap interval of the difference of accuracy."""
    mcnemar_p: float
    only_a_right: int
    only_b_right: int
    agreement: float
    margin: float
    verdict: str
    """equivalent, worse, better, or inconclusive."""
    rows_to_decide: int | None
    """Estimated number of rows for a conclusive verdict, if the difference stays the same; None if conclusive."""

    def as_dict(self) -> dict[str, Any]:
        """Return the fields as values that JSON can hold."""
        return asdict(self) | {"interval": list(self.interval), "accuracy_interval": list(self.accuracy_interval)}

    @property
    def verdict_text(self) -> str:
        """The verdict and, if it is inconclusive, the number of rows needed."""
        return self.verdict if self.rows_to_decide is None else f"{self.verdict} (needs ~{self.rows_to_decide:,} rows)"


def compare(y_true: np.ndarray, a: np.ndarray, b: np.ndarray, labels: int, margin: float = MARGIN) -> Comparison:
    """Compare two classifiers by their predicted labels `a` and `b` on the same rows, all int (rows,).

    The intervals come from a paired bootstrap over rows (Efron 1979). The p-value is McNemar's exact test on the
    rows where exactly one classifier is right (McNemar 1947). The verdict is equivalent if the 90 % bootstrap
    interval of the macro-F1 difference lies within the margin (two one-sided tests at 5 %, Schuirmann 1987), worse or
    better if the 95 % interval lies on one side of zero, else inconclusive.
    """
    codes, counts = np.unique((y_true * labels + a) * labels + b, return_counts=True)  # both (cells,)
    cells = np.stack([codes // labels**2, codes // labels % labels, codes % labels])  # (3, cells)
    difference = float(_difference(counts[None], cells, labels)[0])
    differences, accuracies = _bootstrap(cells, counts, labels)
    low, high = _interval(differences, 0.95, difference)
    inner_low, inner_high = _interval(differences, 0.9, difference)
    only_a = int(((a == y_true) & (b != y_true)).sum())
    only_b = int(((b == y_true) & (a != y_true)).sum())
    if inner_low > -margin and inner_high < margin:
        verdict = "equivalent"
    elif high < 0:
        verdict = "worse"
    elif low > 0:
        verdict = "better"
    else:
        verdict = INCONCLUSIVE
    accuracy_low, accuracy_high = np.quantile(accuracies, [0.025, 0.975])
    undecided = verdict == INCONCLUSIVE
    return Comparison(
        rows=len(y_true),
        macro_f1_difference=difference,
        interval=(low, high),
        accuracy_difference=(only_b - only_a) / len(y_true),
        accuracy_interval=(float(accuracy_low), float(accuracy_high)),
        mcnemar_p=mcnemar_p(only_a, only_b),
        only_a_right=only_a,
        only_b_right=only_b,
        agreement=float((a == b).mean()),
        margin=margin,
        verdict=verdict,
        rows_to_decide=rows_to_decide(difference, float(differences.std()), len(y_true), margin) if undecided else None,
    )


def mcnemar_p(only_a: int, only_b: int) -> float:
    """Return the two-sided p-value of McNemar's exact test, from the rows where only A and where only B is right."""
    from scipy.stats import binomtest

    return float(binomtest(only_a, only_a + only_b).pvalue) if only_a + only_b else 1.0


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p-values corrected for their number (Holm 1979): one below 0.05 is below it whatever else was tested.

    The smallest is multiplied by their number n, the next by n - 1 and so on; none becomes smaller than one before it.
    """
    order = np.argsort(p_values, kind="stable")
    factors = np.arange(len(order), 0, -1)
    corrected = np.empty(len(order))
    corrected[order] = np.minimum(1.0, np.maximum.accumulate(factors * np.asarray(p_values, dtype=np.float64)[order]))
    return [float(value) for value in corrected]


def macro_f1_interval(y_true: np.ndarray, predicted: np.ndarray, labels: int) -> tuple[float, float]:
    """Return the 95 % bootstrap interval of macro-F1; y_true, predicted: int (rows,)."""
    codes, counts = np.unique(y_true * labels + predicted, return_counts=True)  # both (cells,)
    drawn = np.random.default_rng(_SEED).multinomial(len(y_true), counts / len(y_true), size=RESAMPLES)
    truth, chosen = codes // labels, codes % labels
    estimate = float(weighted_macro_f1(counts[None], truth, chosen, labels)[0])
    return _interval(weighted_macro_f1(drawn, truth, chosen, labels), 0.95, estimate)


def rows_to_decide(difference: float, error: float, rows: int, margin: float) -> int:
    """Estimate the number of rows for a conclusive verdict.

    Assumes that `difference` stays the same and its standard error falls as 1/√rows. The verdict is conclusive when
    the difference is 1.96 errors from zero (worse, better) or 1.645 errors inside the margin (equivalent).

    error: standard error of `difference` on `rows` rows.
    """
    inside = margin - abs(difference)
    needed = [error * _ONE_SIDED / inside] if inside > 0 else []
    needed += [error * _TWO_SIDED / abs(difference)] if difference else []
    return ceil(rows * max(1.0, min(needed) ** 2)) if needed else rows


def _bootstrap(cells: np.ndarray, counts: np.ndarray, labels: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the differences of macro-F1 and of accuracy on resampled rows, both (RESAMPLES,).

    Rows with the same label, A and B are interchangeable, so the counts of these cells are resampled: the same
    distribution as resampling rows, and its cost does not grow with their number.

    cells: int (3, cells), label, A and B of each; counts: int (cells,), the number of rows.
    """
    rows = counts.sum()
    drawn = np.random.default_rng(_SEED).multinomial(rows, counts / rows, size=RESAMPLES)  # (resamples, cells)
    truth, a, b = cells
    won = (b == truth).astype(np.float64) - (a == truth)
    return _difference(drawn, cells, labels), drawn @ won / rows


def _interval(differences: np.ndarray, confidence: float, estimate: float) -> tuple[float, float]:
    """Return the percentile interval, widened to hold the estimate.

    A resample that misses a rare label is biased, so with many rare labels the percentiles may lie on one side of it.
    """
    low, high = np.quantile(differences, [(1 - confidence) / 2, (1 + confidence) / 2])
    return min(float(low), estimate), max(float(high), estimate)


def _difference(counts: np.ndarray, cells: np.ndarray, labels: int) -> np.ndarray:
    """Return macro-F1 of B minus A for each resample; counts (resamples, cells) -> (resamples,)."""
    truth, a, b = cells
    return weighted_macro_f1(counts, truth, b, labels) - weighted_macro_f1(counts, truth, a, labels)


def weighted_macro_f1(counts: np.ndarray, truth: np.ndarray, predicted: np.ndarray, labels: int) -> np.ndarray:
    counts = counts.astype(np.float64)  # numpy multiplies floats many times faster than integers
    total = np.zeros(len(counts))
    for label in range(labels):
        true, positive = (truth == label).astype(np.float64), (predicted == label).astype(np.float64)
        both = counts @ (true * positive)
        either = counts @ true + counts @ positive
        total += np.divide(2 * both, either, out=np.zeros(len(counts)), where=either > 0)
    return total / labels
