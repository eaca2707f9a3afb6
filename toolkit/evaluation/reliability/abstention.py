"""From which probability on a classifier may answer, so that few of its answers are wrong.

The selective risk is the share of wrong answers among the rows that are answered. A threshold is accepted by an exact
binomial test of "the risk is above the wanted one" on labeled rows: Learn-then-Test (Angelopoulos et al. 2021) on
thresholds at order statistics (Geifman and El-Yaniv 2017). At a fixed number of answered rows, their errors are
binomial, so the test is exact. From each of STARTS, testing goes down to lower thresholds as long as they are accepted
(fixed-sequence testing), which needs no correction if the risk falls as the threshold rises; the allowed probability
is divided among the starts (Bonferroni). A few sure rows cannot show much, and of a corpus with wrong labels the surest
answers are hardly better than all: so one start is the answer to every row.
"""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

STARTS = (0.25, 0.5, 1.0)
"""Shares of the rows at which testing starts; they are fixed before any label is seen."""
CURVE_POINTS = 40
"""Of a curve in the manifest."""


@dataclass(frozen=True)
class Abstention:
    """A threshold, and the evidence for it."""

    threshold: float
    """An answer is given if the probability of the predicted label is at least this."""
    risk: float
    """The wanted selective risk: at most this share of the answers is wrong."""
    confidence: float
    """Probability with which the threshold keeps the wanted risk."""
    rows: int
    """Number of labeled rows it was chosen on."""
    answered: int
    errors: int
    """Of these rows, those that are answered and those that are answered wrongly."""
    bound: float
    """Upper confidence bound of the selective risk (Clopper and Pearson 1934)."""

    def as_dict(self) -> dict[str, Any]:
        """Return the values for a JSON file."""
        return asdict(self)


def choose_threshold(scores: np.ndarray, right: np.ndarray, risk: float, confidence: float) -> Abstention | None:
    """Return the lowest threshold that keeps a risk; None if these rows cannot show that any does.

    scores: float (rows,), the probability of each predicted label. right: bool (rows,), whether it is the true label.
    """
    from scipy.stats import beta, binom

    rows = len(scores)
    order = np.argsort(-scores, kind="stable")
    scores, errors = scores[order].astype(np.float64), np.cumsum(~right[order])
    least = fewest_rows(risk, confidence)
    counts = np.arange(1, rows + 1)
    between = np.append(scores[:-1] > scores[1:], True)  # no threshold lies between equal scores
    accepted = binom.cdf(errors, counts, risk) <= level(confidence)
    last = None
    for start in STARTS:
        first = max(least, int(np.ceil(start * rows)))
        tested = counts[(counts >= first) & between]
        kept = accepted[tested - 1]
        passed = len(kept) if kept.all() else int(kept.argmin())
        if passed:
            last = max(last or 0, int(tested[passed - 1]))
    if last is None:
        return None
    wrong = int(errors[last - 1])
    return Abstention(
        threshold=0.0 if last == rows else float((scores[last - 1] + scores[last]) / 2),
        risk=risk,
        confidence=confidence,
        rows=rows,
        answered=last,
        errors=wrong,
        bound=float(beta.ppf(1 - level(confidence), wrong + 1, last - wrong)),
    )


def fewest_rows(risk: float, confidence: float) -> int:
    """Return the number of rows that must be answered, all rightly, to show that the risk is kept."""
    return int(np.ceil(np.log(level(confidence)) / np.log(1 - risk)))


def level(confidence: float) -> float:
    """Return the probability with which the test of one threshold may be wrong."""
    return (1 - confidence) / len(STARTS)


def risk_curve(scores: np.ndarray, right: np.ndarray) -> list[tuple[float, float]]:
    """Return coverage and selective risk at up to CURVE_POINTS coverages, from few answers to all."""
    order = np.argsort(-scores, kind="stable")
    risks = np.cumsum(~right[order]) / np.arange(1, len(scores) + 1)
    places = np.unique(np.linspace(1, len(scores), min(CURVE_POINTS, len(scores))).round().astype(int))
    return [(float(place / len(scores)), float(risks[place - 1])) for place in places]
