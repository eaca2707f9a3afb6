"""Choose the decision rule of a classifier for macro-F1, on rows that it was not trained on.

A rule that is best on few rows may owe more to luck than to the classifier. Therefore its parameters are medians over
bootstrap resamples, and a rule is used only if it gains under cross-validation more than the standard error of
that gain.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from toolkit.evaluation.decision_rule import DecisionRule, log_probabilities
from toolkit.evaluation.metrics import f1_scores, macro_f1
from toolkit.evaluation.significance import compare

BAGS = 15
"""Bootstrap resamples whose median parameters are used."""
CV_FOLDS = 5
ROUNDS = 2
"""Passes over the labels in which each offset is chosen with the others fixed."""
STRENGTHS = np.linspace(-0.5, 2.0, 26)
"""Candidate strengths of the logit adjustment; 1 compensates for the shares of the labels."""
FREE_LABELS = 20
"""With more labels, free offsets are not tried: the time grows with the number of labels."""
TIE = 1e-9
"""Smaller differences between scores are rounding."""
_SEED = 0
INTERVAL_WIDTH = 2 * 1.96
"""Width of a 95 % interval in standard errors."""

Fit = Callable[[np.ndarray, np.ndarray, np.random.Generator], np.ndarray]
"""labels (rows,), log-probabilities (rows, labels), generator -> offsets (labels,)."""


@dataclass(frozen=True)
class Choice:
    """A decision rule and the evidence for it."""

    rule: DecisionRule
    method: str
    """default, inherited, threshold, logit adjustment or offsets."""
    rows: int
    """Number of rows it was chosen on."""
    gain: float
    """Macro-F1 under cross-validation of the best fitted rule minus that of the default (or inherited) one."""
    gain_error: float
    """Standard error of the gain."""

    def as_dict(self) -> dict[str, Any]:
        """Return the evidence for a JSON file."""
        return {"method": self.method, "rows": self.rows, "gain": self.gain, "gain_error": self.gain_error}


def choose_rule(labels: np.ndarray, probabilities: np.ndarray, inherited: DecisionRule | None = None) -> Choice:
    """Choose the decision rule with the best macro-F1 on rows that the classifier was not trained on.

    labels: int (rows,). probabilities: float (rows, labels).
    inherited: the rule of the teacher or of the classifier before pruning. It was chosen on other predictions, so it
      replaces the default if it is at least as good on these rows.
    """
    scores, count = log_probabilities(probabilities), probabilities.shape[1]
    start, method = DecisionRule(0.5 if count == 2 else None), "default"
    before = start.predict(probabilities)
    if inherited is not None and inherited not in (start, DecisionRule()):
        predicted = inherited.predict(probabilities)
        if macro_f1(labels, predicted, count) >= macro_f1(labels, before, count):
            start, method, before = inherited, "inherited", predicted
    found = {name: _cross_validated(fit, labels, scores) for name, fit in _methods(count).items()}
    best = max(found, key=lambda name: macro_f1(labels, found[name], count))
    gained = compare(labels, before, found[best], count)
    gain, error = gained.macro_f1_difference, (gained.interval[1] - gained.interval[0]) / INTERVAL_WIDTH
    if not gain > error:
        return Choice(start, method, len(labels), gain, error)
    offsets = _methods(count)[best](labels, scores, np.random.default_rng(_SEED))
    return Choice(_as_rule(offsets), best, len(labels), gain, error)


def best_macro_f1(labels: np.ndarray, probabilities: np.ndarray) -> float:
    """Return macro-F1 at the best threshold, or at the best strength of the logit adjustment for more labels.

    The rule is fitted on these rows, so the score is slightly too high. It ranks models in milliseconds.
    """
    scores, count = log_probabilities(probabilities), probabilities.shape[1]
    if count == 2:
        scores[:, 1] += _best_offset(labels, scores, 1, np.ones(len(labels)))
        return macro_f1(labels, scores.argmax(axis=1), 2)
    shares = _log_shares(labels, count)
    return max(macro_f1(labels, (scores - strength * shares).argmax(axis=1), count) for strength in STRENGTHS)


def _methods(count: int) -> dict[str, Fit]:
    if count == 2:
        return {"threshold": _free_offsets}
    return {"logit adjustment": _adjustment} | ({"offsets": _free_offsets} if count <= FREE_LABELS else {})


def _as_rule(offsets: np.ndarray) -> DecisionRule:
    if len(offsets) == 2:
        return DecisionRule(threshold=round(float(1 / (1 + np.exp(offsets[1] - offsets[0]))), 4))
    return DecisionRule(offsets=tuple(round(float(value), 4) for value in offsets))


def _adjustment(labels: np.ndarray, scores: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Return minus the log of the shares of the labels, times the strength that is best on the median resample."""
    rows, count = scores.shape
    shares = _log_shares(labels, count)
    cells = [labels * count + (scores - strength * shares).argmax(axis=1) for strength in STRENGTHS]
    best = []
    for _ in range(BAGS):
        weights = random.multinomial(rows, np.full(rows, 1 / rows))
        tables = np.stack([np.bincount(each, weights, count * count) for each in cells]).reshape(-1, count, count)
        best.append(int(_macro_f1_of(tables).argmax()))
    offsets = -STRENGTHS[int(np.median(best))] * shares
    return offsets - offsets.mean()


def _log_shares(labels: np.ndarray, count: int) -> np.ndarray:
    """Return the logarithm of the share of each label, (labels,); a label without rows counts as one row."""
    return np.log(np.maximum(np.bincount(labels, minlength=count), 1) / len(labels))


def _free_offsets(labels: np.ndarray, scores: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Return the median over BAGS resamples of the best offsets of each."""
    rows, count = scores.shape
    bags = [_best_offsets(labels, scores, random.multinomial(rows, np.full(rows, 1 / rows))) for _ in range(BAGS)]
    found = np.median(bags, axis=0)
    return found - (found[0] if count == 2 else found.mean())


def _best_offsets(labels: np.ndarray, scores: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Choose each offset in turn with the others fixed (coordinate ascent); with two labels, one offset is enough."""
    count = scores.shape[1]
    offsets = np.zeros(count)
    for _ in range(1 if count == 2 else ROUNDS):
        for label in range(1 if count == 2 else 0, count):
            offsets[label] += _best_offset(labels, scores + offsets, label, weights)
    return offsets


def _best_offset(labels: np.ndarray, scores: np.ndarray, label: int, weights: np.ndarray) -> float:
    """Return the number that, added to the scores of one label, gives the best macro-F1 on weighted rows.

    As the offset grows, each row goes over from its best other label to `label` at one point. Macro-F1 is computed
    between all of these points; of equal ones, the nearest to 0 is returned.
    """
    count = scores.shape[1]
    others = scores.copy()
    others[:, label] = -np.inf
    second = others.argmax(axis=1)
    needed = others[np.arange(len(others)), second] - scores[:, label]
    order = np.argsort(needed)
    needed, truth, second, weight = needed[order], labels[order], second[order], weights[order].astype(float)
    actual = np.bincount(truth, weight, minlength=count)
    lost = _lost_f1(truth, second, weight, actual)  # of the label that the row leaves
    right = second == truth
    first = f1_scores(
        np.bincount(second[right], weight[right], count), np.bincount(second, weight, count), actual
    )  # with no row at `label`
    won = f1_scores(np.cumsum(weight * (truth == label)), np.cumsum(weight), actual[label])
    curve = first.sum() + np.concatenate([[0.0], np.cumsum(lost) + won])  # sum of F1 after each row
    between = np.concatenate([[-np.inf], needed, [np.inf]])
    possible = between[1:] - between[:-1] > TIE  # rows with equal scores go over together
    best = np.flatnonzero(possible & (curve >= curve[possible].max() - TIE))
    low, high = np.maximum(between[best], needed[0] - 1), np.minimum(between[best + 1], needed[-1] + 1)
    middles = (low + high) / 2
    return float(middles[np.abs(middles).argmin()])


def _lost_f1(truth: np.ndarray, second: np.ndarray, weight: np.ndarray, actual: np.ndarray) -> np.ndarray:
    """Return the change in F1 of label `second[i]` when row i leaves it, the rows before i having left: (rows,)."""
    order = np.argsort(second, kind="stable")
    group, weight = second[order], weight[order]
    hit = weight * (truth[order] == group)

    def remaining(values: np.ndarray) -> np.ndarray:
        """Return the sum of the values of the group that come after each row."""
        total = np.concatenate([[0.0], np.cumsum(values)])
        ends = np.searchsorted(group, group, side="right")
        return total[ends] - total[np.arange(len(values)) + 1]

    hits, predicted = remaining(hit), remaining(weight)
    after = f1_scores(hits, predicted, actual[group])
    before = f1_scores(hits + hit, predicted + weight, actual[group])
    change = np.empty(len(truth))
    change[order] = after - before
    return change


def _cross_validated(fit: Fit, labels: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Return predictions (rows,), each by a rule that was fitted on the other folds."""
    random = np.random.default_rng(_SEED)
    fold = np.empty(len(labels), dtype=int)
    for label in np.unique(labels):
        rows = random.permutation(np.flatnonzero(labels == label))
        fold[rows] = (np.arange(len(rows)) + random.integers(CV_FOLDS)) % CV_FOLDS
    predicted = np.empty(len(labels), dtype=int)
    for held_out in np.unique(fold):
        fitted_on = fold != held_out
        offsets = fit(labels[fitted_on], scores[fitted_on], random) if fitted_on.any() else np.zeros(scores.shape[1])
        predicted[~fitted_on] = (scores[~fitted_on] + offsets).argmax(axis=1)
    return predicted


def _macro_f1_of(tables: np.ndarray) -> np.ndarray:
    """Return macro-F1 of confusion matrices (tables, labels, predictions): (tables,)."""
    hits = np.diagonal(tables, axis1=1, axis2=2)
    return f1_scores(hits, tables.sum(axis=1), tables.sum(axis=2)).mean(axis=1)
