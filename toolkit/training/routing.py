"""Routing of a cascade: which texts go on from the n-gram student to the transformer, and how their logits are added.

A text goes on if the two best labels of the n-gram student are close, as in the cascades of Wang et al. 2022 ("Wisdom
of Committees") and Varshney and Baral 2022 ("Model Cascading"). There, the larger model answers alone; here, the logits
of both are added (stacking, Wolpert 1992), since the two err on different texts. All is chosen on validation rows.
"""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from toolkit.evaluation.decision_rule import DecisionRule
from toolkit.evaluation.metrics import macro_f1, softmax
from toolkit.evaluation.rule_choice import choose_rule
from toolkit.training.nbsvm import calibrating_scale, log_loss

BLENDS = tuple(round(0.1 * i, 1) for i in range(11))
"""Candidate shares of the transformer in the sum of both logits."""
SHARES = (0.0, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
"""Candidate shares of the texts that go on."""
EVERY_TEXT = 1e9
"""The margin with which every text goes on."""
AS_GOOD = 0.002
"""Accuracy, 0.2 points, that a cascade may be expected to lose against the transformer alone."""


@dataclass(frozen=True)
class Routing:
    """How a cascade answers."""

    margin: float
    """A text goes on if the n-gram scores of its two best labels differ by less."""
    shifts: tuple[float, ...]
    """(labels,): added to the n-gram logits for the margin; the decision rule, as numbers for logits."""
    ngram_weight: float
    transformer_weight: float
    """Weights of the two logits in the answer to a text that goes on."""

    def unsure(self, ngram: np.ndarray) -> np.ndarray:
        """Return which rows of n-gram logits (rows, labels) go on, bool (rows,)."""
        return margins(ngram, self.shifts) < self.margin

    def blend(self, ngram: np.ndarray, transformer: np.ndarray) -> np.ndarray:
        """Return the logits of texts that go on, (rows, labels)."""
        return self.ngram_weight * ngram + self.transformer_weight * transformer

    def logits(self, ngram: np.ndarray, transformer: np.ndarray) -> np.ndarray:
        """Return the logits of the cascade, (rows, labels), of the logits of both parts on all rows."""
        return np.where(self.unsure(ngram)[:, None], self.blend(ngram, transformer), ngram)

    def as_dict(self) -> dict[str, Any]:
        """Return the entries for a JSON file."""
        return asdict(self) | {"shifts": list(self.shifts)}


@dataclass(frozen=True)
class Point:
    """A cascade at one share of texts that go on."""

    share: float
    """Of the rows measured on."""
    macro_f1: float
    mean_ms: float
    """Mean latency: that of the n-gram student, and the share of that of the transformer."""


@dataclass(frozen=True)
class Parts:
    """Logits of both parts on the same labeled rows, and what a text costs in each."""

    labels: np.ndarray
    """int (rows,)."""
    ngram: np.ndarray
    transformer: np.ndarray
    """float (rows, labels)."""
    ngram_ms: float
    transformer_ms: float
    """Mean latencies."""
    ngram_rule: DecisionRule
    transformer_rule: DecisionRule
    """The decision rule of each part alone."""

    def point(self, routing: Routing, rule: DecisionRule) -> Point:
        """Return the measurement of a cascade on these rows."""
        share = float(routing.unsure(self.ngram).mean())
        predicted = rule.predict(softmax(routing.logits(self.ngram, self.transformer).astype(np.float64)))
        score = macro_f1(self.labels, predicted, self.ngram.shape[1])
        return Point(share, score, self.ngram_ms + share * self.transformer_ms)


def margins(ngram: np.ndarray, shifts: tuple[float, ...]) -> np.ndarray:
    """Return how far the scores of the two best labels are apart, float64 (rows,)."""
    scores = np.sort(ngram.astype(np.float64) + shifts, axis=1)
    return scores[:, -1] - scores[:, -2]


def shifts_of(rule: DecisionRule, count: int) -> tuple[float, ...]:
    """Return what a decision rule adds to the logits of `count` labels."""
    if rule.offsets is not None:
        return rule.offsets
    threshold = rule.threshold
    if count != 2 or threshold is None or not 0 < threshold < 1:
        return (0.0,) * count
    return 0.0, float(np.log((1 - threshold) / threshold))


def fit_blend(labels: np.ndarray, ngram: np.ndarray, transformer: np.ndarray) -> tuple[float, float]:
    """Return the weights of both logits (rows, labels) in the sum with the lowest cross-entropy on these rows."""
    scale = calibrating_scale(labels, transformer)
    found = []
    for share in BLENDS:
        weights = np.array([1 - share, share * scale])
        weights *= calibrating_scale(labels, weights[0] * ngram + weights[1] * transformer)
        found.append((log_loss(labels, weights[0] * ngram + weights[1] * transformer), *weights.tolist()))
    _, first, second = min(found)
    return first, second


def choose_routing(
    parts: Parts, share: float | None = None, budget_ms: float | None = None
) -> tuple[Routing, DecisionRule]:
    """Return routing and decision rule of a cascade, chosen on labeled rows that neither part was trained on.

    share: largest share of the texts that go on; budget_ms: largest mean latency. Without both, the smallest share with
      which the cascade is expected to be as good as the transformer alone.
    """
    count = parts.ngram.shape[1]
    weights = fit_blend(parts.labels, parts.ngram, parts.transformer)
    everything = Routing(EVERY_TEXT, (0.0,) * count, *weights)
    probabilities = softmax(everything.blend(parts.ngram, parts.transformer).astype(np.float64))
    rule = choose_rule(parts.labels, probabilities, parts.ngram_rule).rule  # chosen on many rows, out of fold
    routings = routings_of(parts, rule, weights)
    if budget_ms is not None:
        share = min(1.0, max(0.0, (budget_ms - parts.ngram_ms) / parts.transformer_ms))
    if share is not None:
        fitting = [each for each in routings if each.unsure(parts.ngram).mean() <= share + 1e-9]
        return fitting[-1], rule
    alone = parts.transformer_rule.predict(softmax(parts.transformer.astype(np.float64)))
    enough = expected_accuracy(parts, everything, rule, alone) - AS_GOOD
    return next(each for each in routings if _expected_accuracy_of(parts, each, rule) >= enough), rule


def routings_of(parts: Parts, rule: DecisionRule, weights: tuple[float, float]) -> list[Routing]:
    """Return one routing for each of SHARES, by increasing share of the rows that go on."""
    shifts = shifts_of(rule, parts.ngram.shape[1])
    apart = np.sort(margins(parts.ngram, shifts))
    limits = [*apart, EVERY_TEXT]  # with the margin limits[n], n rows go on (fewer if margins are equal)
    return [Routing(float(limits[int(share * len(apart))]), shifts, *weights) for share in SHARES]


def expected_accuracy(parts: Parts, routing: Routing, rule: DecisionRule, answers: np.ndarray) -> float:
    """Return the mean probability of `answers`, int (rows,), by the sum of both logits after the decision rule.

    It varies less from sample to sample than the share of right answers: a row counts by how sure the sum is.
    """
    shifts = shifts_of(rule, parts.ngram.shape[1])
    probabilities = softmax(routing.blend(parts.ngram, parts.transformer).astype(np.float64) + shifts)
    return float(probabilities[np.arange(len(answers)), answers].mean())


def _expected_accuracy_of(parts: Parts, routing: Routing, rule: DecisionRule) -> float:
    answers = rule.predict(softmax(routing.logits(parts.ngram, parts.transformer).astype(np.float64)))
    return expected_accuracy(parts, routing, rule, answers)
