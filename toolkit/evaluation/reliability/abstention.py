"""From which probability on a classifier may answer, so that few of its answers are wrong.

The selective risk is the share of wrong answers among the rows that are answered. A threshold is accepted by an exact
binomial test of "the risk is above the wanted one" on labeled rows, going from the surest quarter of the rows down as
long as the test rejects it: Learn-then-Test with fixed-sequence testing (Angelopoulos et al. 2021), on thresholds at
order statistics (Geifman and El-Yaniv 2017). At a fixed number of answered rows, their errors are binomial, so the test
is exact. Since testing stops at the first threshold that is not accepted, no correction is needed if the risk falls as
the threshold rises.

That holds for the risk over all texts of the kind. On a file of a few hundred answers, chance alone can lift the share
of errors above it; so half of the allowed probability is spent on the test, and half is left for the file.
"""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

START = 0.25
"""Share of the rows at which testing starts; it is fixed before any label is seen."""
FOR_THE_TEST = 0.5
"""Part of the probability 1 - confidence that the test may be wrong with."""
UNSURE = "unsure"
"""The answer below the threshold."""


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
    first = max(fewest_rows(risk, confidence), int(np.ceil(START * rows)))
    counts = np.arange(first, rows + 1)
    accepted = binom.cdf(errors[first - 1 :], counts, risk) <= FOR_THE_TEST * (1 - confidence)
    between = np.append(scores[first - 1 : -1] > scores[first:], True)  # no threshold lies between equal scores
    refused = np.flatnonzero(between & ~accepted)
    counts = counts[: refused[0] if len(refused) else len(counts)]
    counts = counts[between[: len(counts)]]
    last = int(counts[-1]) if len(counts) else None
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
        bound=float(beta.ppf(1 - FOR_THE_TEST * (1 - confidence), wrong + 1, last - wrong)),
    )


def fewest_rows(risk: float, confidence: float) -> int:
    """Return the number of rows that must be answered, all rightly, to show that the risk is kept."""
    return int(np.ceil(np.log(FOR_THE_TEST * (1 - confidence)) / np.log(1 - risk)))


def risk_curve(scores: np.ndarray, right: np.ndarray) -> list[tuple[float, float]]:
    """Return coverage and selective risk of each threshold, at up to 100 coverages, from few answers to all."""
    order = np.argsort(-scores, kind="stable")
    risks = np.cumsum(~right[order]) / np.arange(1, len(scores) + 1)
    places = np.unique(np.linspace(1, len(scores), min(100, len(scores))).round().astype(int))
    return [(float(place / len(scores)), float(risks[place - 1])) for place in places]
