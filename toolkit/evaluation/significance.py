"""Is B worse than A? Answers from the labels that both gave the same rows."""

from dataclasses import asdict, dataclass
from math import ceil
from typing import Any

import numpy as np

MARGIN = 0.01
"""A difference of macro-F1 smaller than this does not matter; stated wherever a verdict is."""
RESAMPLES = 2_000
INCONCLUSIVE = "inconclusive"
_SEED = 0
_ONE_SIDED, _TWO_SIDED = 1.6449, 1.9600
"""Quantiles of the normal distribution at 95 and 97.5 %."""


@dataclass(frozen=True)
class Comparison:
    """B against A on the same rows; differences are B minus A."""

    rows: int
    macro_f1_difference: float
    interval: tuple[float, float]
    """95 % of the bootstrap differences of macro-F1 lie in here."""
    accuracy_difference: float
    accuracy_interval: tuple[float, float]
    """The same of accuracy."""
    mcnemar_p: float
    only_a_right: int
    only_b_right: int
    agreement: float
    margin: float
    verdict: str
    """equivalent, worse, better, or inconclusive."""
    rows_to_decide: int | None
    """About how many rows like these would decide, if the difference stayed what it is; None if it is decided."""

    def as_dict(self) -> dict[str, Any]:
        return asdict(self) | {"interval": list(self.interval), "accuracy_interval": list(self.accuracy_interval)}

    @property
    def verdict_in_words(self) -> str:
        """The verdict, and where there is none, what it would take."""
        return self.verdict if self.rows_to_decide is None else f"{self.verdict} (~{self.rows_to_decide:,} rows decide)"


def compare(y_true: np.ndarray, a: np.ndarray, b: np.ndarray, labels: int, margin: float = MARGIN) -> Comparison:
    """Compare two classifiers by their labels, all int (rows,), on the same rows.

    The intervals are a paired bootstrap over rows (Efron 1979). The p-value is McNemar's exact test of the
    rows on which one alone is right (McNemar 1947). The verdict: equivalent if 90 % of the bootstrap
    differences of macro-F1 lie within the margin (two one-sided tests at 5 %, Schuirmann 1987), worse or better if
    95 % lie on one side of zero, else inconclusive.
    """
    from scipy.stats import binomtest

    differences, accuracies = _bootstrap(y_true, a, b, labels)
    low, high = np.quantile(differences, [0.025, 0.975])
    inner_low, inner_high = np.quantile(differences, [0.05, 0.95])
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
    everything = np.ones((1, len(y_true)), dtype=np.int64)
    difference = float(_difference(everything, y_true, a, b, labels)[0])
    accuracy_low, accuracy_high = np.quantile(accuracies, [0.025, 0.975])
    undecided = verdict == INCONCLUSIVE
    return Comparison(
        rows=len(y_true),
        macro_f1_difference=difference,
        interval=(float(low), float(high)),
        accuracy_difference=(only_b - only_a) / len(y_true),
        accuracy_interval=(float(accuracy_low), float(accuracy_high)),
        mcnemar_p=float(binomtest(only_a, only_a + only_b).pvalue) if only_a + only_b else 1.0,
        only_a_right=only_a,
        only_b_right=only_b,
        agreement=float((a == b).mean()),
        margin=margin,
        verdict=verdict,
        rows_to_decide=rows_to_decide(difference, float(differences.std()), len(y_true), margin) if undecided else None,
    )


def rows_to_decide(difference: float, error: float, rows: int, margin: float) -> int:
    """Rows from which on a verdict would come, if `difference` stayed and its standard error fell as 1/√rows.

    error: the standard error on `rows` rows. Worse or better once the difference is 1.96 errors from zero;
    equivalent once it is 1.645 errors inside the margin; whichever comes first.
    """
    inside = margin - abs(difference)
    needed = [error * _ONE_SIDED / inside] if inside > 0 else []
    needed += [error * _TWO_SIDED / abs(difference)] if difference else []
    return ceil(rows * max(1.0, min(needed) ** 2)) if needed else rows


def _bootstrap(y_true: np.ndarray, a: np.ndarray, b: np.ndarray, labels: int) -> tuple[np.ndarray, np.ndarray]:
    """Differences of macro-F1 and of accuracy, both (RESAMPLES,); rows are drawn with replacement, for both alike."""
    random = np.random.default_rng(_SEED)
    rows = len(y_true)
    won = (b == y_true).astype(np.float64) - (a == y_true)
    differences, accuracies = [], []
    for start in range(0, RESAMPLES, 200):
        counts = random.multinomial(rows, np.full(rows, 1 / rows), size=min(200, RESAMPLES - start))
        differences.append(_difference(counts, y_true, a, b, labels))
        accuracies.append(counts @ won / rows)
    return np.concatenate(differences), np.concatenate(accuracies)


def _difference(counts: np.ndarray, y_true: np.ndarray, a: np.ndarray, b: np.ndarray, labels: int) -> np.ndarray:
    """Macro-F1 of B minus A for each weighting of the rows; counts (resamples, rows) -> (resamples,)."""
    return _weighted_macro_f1(counts, y_true, b, labels) - _weighted_macro_f1(counts, y_true, a, labels)


def _weighted_macro_f1(counts: np.ndarray, y_true: np.ndarray, predicted: np.ndarray, labels: int) -> np.ndarray:
    counts = counts.astype(np.float64)  # still whole numbers, but numpy multiplies them many times faster
    total = np.zeros(len(counts))
    for label in range(labels):
        true, said = (y_true == label).astype(np.float64), (predicted == label).astype(np.float64)
        both = counts @ (true * said)
        either = counts @ true + counts @ said
        total += np.divide(2 * both, either, out=np.zeros(len(counts)), where=either > 0)
    return total / labels
