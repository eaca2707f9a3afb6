"""Routing of a cascade: which texts the n-gram student defers to the transformer, and how their logits are added.

A text is deferred if the two best labels of the n-gram student are close, as in the cascades of Wang et al. 2022
("Wisdom of Committees") and Varshney and Baral 2022 ("Model Cascading"). There, the larger model answers alone; here,
the logits of both are added (stacking, Wolpert 1992), since the two err on different texts. All is chosen on validation
rows.
"""

from dataclasses import dataclass, replace

import numpy as np

from toolkit.evaluation.decision_rule import DecisionRule
from toolkit.evaluation.metrics import macro_f1, softmax
from toolkit.evaluation.rule_choice import choose_rule
from toolkit.training.nbsvm import calibrating_scale, log_loss

BLENDS = tuple(round(0.1 * i, 1) for i in range(11))
"""Candidate shares of the transformer in the sum of both logits."""
SHARES = (0.0, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
"""Shares of deferred texts on the curve of a cascade."""
DEFER_ALL = 1e9
"""The margin with which every text is deferred."""
NEARLY_ALL = 0.002
"""Without a budget, a cascade may be expected to be this much less accurate than if it deferred all texts."""


@dataclass(frozen=True)
class Routing:
    """How a cascade answers."""

    margin: float
    """A text is deferred if the n-gram scores of its two best labels differ by less."""
    offsets: tuple[float, ...]
    """(labels,): what the decision rule adds to the logits; the margin is that of the sums."""
    ngram_weight: float
    transformer_weight: float
    """Weights of the two logits in the answer to a deferred text."""

    def deferred(self, ngram: np.ndarray) -> np.ndarray:
        """Return which rows of n-gram logits (rows, labels) are deferred, bool (rows,)."""
        return margins(ngram, self.offsets) < self.margin

    def blend(self, ngram: np.ndarray, transformer: np.ndarray) -> np.ndarray:
        """Return the logits of deferred texts, (rows, labels)."""
        return self.ngram_weight * ngram + self.transformer_weight * transformer

    def logits(self, ngram: np.ndarray, transformer: np.ndarray) -> np.ndarray:
        """Return the logits of the cascade, (rows, labels), of the logits of both parts on all rows."""
        return np.where(self.deferred(ngram)[:, None], self.blend(ngram, transformer), ngram)


@dataclass(frozen=True)
class Point:
    """A cascade at one share of deferred texts."""

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

    def point(self, routing: Routing, rule: DecisionRule) -> Point:
        """Return the measurement of a cascade on these rows."""
        share = float(routing.deferred(self.ngram).mean())
        predicted = rule.predict(softmax(routing.logits(self.ngram, self.transformer).astype(np.float64)))
        score = macro_f1(self.labels, predicted, self.ngram.shape[1])
        return Point(share, score, self.ngram_ms + share * self.transformer_ms)


def margins(ngram: np.ndarray, offsets: tuple[float, ...]) -> np.ndarray:
    """Return how far the scores of the two best labels are apart, float64 (rows,)."""
    scores = np.sort(ngram.astype(np.float64) + offsets, axis=1)
    return scores[:, -1] - scores[:, -2]


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
    parts: Parts, inherited: DecisionRule | None, share: float | None = None, budget_ms: float | None = None
) -> tuple[Routing, DecisionRule]:
    """Return routing and decision rule of a cascade, chosen on labeled rows that neither part was trained on.

    inherited: the rule of the n-gram student, see `toolkit.evaluation.rule_choice.choose_rule`.
    share: largest share of deferred texts; budget_ms: largest mean latency. Without both, see NEARLY_ALL.
    """
    count = parts.ngram.shape[1]
    weights = fit_blend(parts.labels, parts.ngram, parts.transformer)
    everything = Routing(DEFER_ALL, (0.0,) * count, *weights)
    probabilities = softmax(everything.blend(parts.ngram, parts.transformer).astype(np.float64))
    rule = choose_rule(parts.labels, probabilities, inherited).rule
    if budget_ms is not None:
        share = min(1.0, max(0.0, (budget_ms - parts.ngram_ms) / parts.transformer_ms))
    routing = replace(everything, offsets=rule.logit_offsets(count))
    margin = _nearly_all(parts, routing) if share is None else _margin(parts, routing, share)
    return replace(routing, margin=margin), rule


def at_shares(parts: Parts, routing: Routing) -> list[Routing]:
    """Return the routing with the margins that defer each of SHARES of the rows."""
    return [replace(routing, margin=_margin(parts, routing, share)) for share in SHARES]


def _margin(parts: Parts, routing: Routing, share: float) -> float:
    """Return the margin that defers at most a share of the rows."""
    apart = np.sort(margins(parts.ngram, routing.offsets))
    return float([*apart, DEFER_ALL][int(share * len(apart))])  # as many margins are smaller, or fewer


def _nearly_all(parts: Parts, routing: Routing) -> float:
    """Return the smallest margin at which deferring the other texts, too, is expected to gain at most NEARLY_ALL.

    The gain that is expected from a text is an isotonic regression on its margin: the larger, the smaller the gain.
    """
    from sklearn.isotonic import IsotonicRegression

    apart = margins(parts.ngram, routing.offsets)
    expected = IsotonicRegression(increasing=False).fit_transform(apart, expected_gains(parts, routing))
    left = np.cumsum(np.sort(expected)) / len(expected)  # of the texts with the smallest gains, one more each
    return _margin(parts, routing, float((left > NEARLY_ALL).mean()))


def expected_gains(parts: Parts, routing: Routing) -> np.ndarray:
    """Return the gain in accuracy that is expected from deferring each row, float64 (rows,).

    It is the probability of the answer of both models minus that of the n-gram student, by the sum of both logits after
    the decision rule. Its mean varies less from sample to sample than the share of answers that become right.
    """
    scores = routing.blend(parts.ngram, parts.transformer).astype(np.float64) + routing.offsets
    probabilities = softmax(scores)
    answers = (parts.ngram.astype(np.float64) + routing.offsets).argmax(axis=1)
    return probabilities.max(axis=1) - probabilities[np.arange(len(answers)), answers]
