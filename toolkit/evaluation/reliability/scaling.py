"""Make probabilities mean what they say: scale the logits so that of the answers given with 80 %, 80 % are right.

A temperature (Guo et al. 2017) or, for two labels, scale and shift of the log-odds (Platt 1999), fitted on rows that
the classifier was not trained on. The decision rule moves along, so that no label changes.
"""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from toolkit.evaluation.decision_rule import SMALLEST, DecisionRule

LARGEST_SCALE = 20.0
"""Of the logits, and the inverse of the smallest."""
CV_FOLDS = 10
FEWEST_ROWS = 20
"""With fewer labeled rows, nothing is fitted."""
_SEED = 0


@dataclass(frozen=True)
class Scaling:
    """New logits are scale × logits; with two labels, `shift` is added to their difference, label 1 minus label 0."""

    scale: float = 1.0
    shift: float = 0.0

    def apply(self, logits: np.ndarray) -> np.ndarray:
        """Return the scaled logits (rows, labels), in the dtype of `logits`."""
        return (self.scale * logits.astype(np.float64) + self.shifts(logits.shape[1])).astype(logits.dtype)

    @property
    def inverse(self) -> "Scaling":
        """The scaling that gives the original logits of the scaled ones."""
        return Scaling(1 / self.scale, -self.shift / self.scale)

    def shifts(self, labels: int) -> np.ndarray:
        """Return what is added to each logit, (labels,)."""
        return np.array([-self.shift / 2, self.shift / 2]) if self.shift else np.zeros(labels)

    def moved(self, rule: DecisionRule, labels: int) -> DecisionRule:
        """Return the rule that predicts from scaled logits what `rule` predicts from the original ones."""
        if labels == 2:
            low, high = rule.logit_offsets(2)
            if high == low and not self.shift:
                return rule
            threshold = 1 / (1 + np.exp(self.scale * (high - low) - self.shift))
            return DecisionRule(threshold=float(np.clip(threshold, SMALLEST, 1 - SMALLEST)))
        if rule.offsets is None:
            return rule
        return DecisionRule(offsets=tuple(self.scale * offset for offset in rule.offsets))


@dataclass(frozen=True)
class ScalingChoice:
    """A scaling and the evidence for it."""

    scaling: Scaling
    method: str
    """none, temperature or Platt."""
    rows: int
    """Number of rows it was fitted on."""
    loss_before: float
    """Cross-entropy of the original logits on these rows."""
    loss_after: float
    """Cross-entropy of the scaled ones under cross-validation; `loss_before` if nothing lowers it."""

    def as_dict(self) -> dict[str, Any]:
        """Return the choice for a JSON file."""
        own = {key: value for key, value in asdict(self).items() if key != "scaling"}
        return own | {"temperature": 1 / self.scaling.scale, "shift": self.scaling.shift}


def choose_scaling(labels: np.ndarray, logits: np.ndarray) -> ScalingChoice:
    """Return the scaling that lowers the cross-entropy under cross-validation by more than the error of that gain.

    None is better than a temperature, and a temperature better than Platt's scaling, unless the gain of the latter is
    larger than its standard error.

    labels: int (rows,). logits: float (rows, labels) of a classifier that was not trained on these rows.
    """
    logits = logits.astype(np.float64)
    lowest = before = _losses(labels, logits)
    scaling, method = Scaling(), "none"
    if len(labels) >= FEWEST_ROWS:
        fold = np.random.default_rng(_SEED).permutation(len(labels)) % CV_FOLDS
        for name in ("temperature", "Platt") if logits.shape[1] == 2 else ("temperature",):
            losses = _cross_validated(labels, logits, fold, shifted=name == "Platt")
            gains = lowest - losses
            if gains.mean() > gains.std() / np.sqrt(len(gains)):
                lowest, scaling, method = losses, fit(labels, logits, shifted=name == "Platt"), name
    return ScalingChoice(scaling, method, len(labels), float(before.mean()), float(lowest.mean()))


def fit(labels: np.ndarray, logits: np.ndarray, shifted: bool) -> Scaling:
    """Return the scaling with the lowest cross-entropy on these rows. shifted: also fit `shift`, for two labels."""
    from scipy.optimize import minimize, minimize_scalar

    reach = np.log(LARGEST_SCALE)
    if not shifted:
        found = minimize_scalar(
            lambda x: _losses(labels, np.exp(x) * logits).mean(), bounds=(-reach, reach), method="bounded"
        )
        return Scaling(float(np.exp(found.x)))

    def loss(values: np.ndarray) -> float:
        return float(_losses(labels, Scaling(float(np.exp(values[0])), float(values[1])).apply(logits)).mean())

    found = minimize(loss, np.zeros(2), method="L-BFGS-B", bounds=[(-reach, reach), (-reach, reach)])
    return Scaling(float(np.exp(found.x[0])), float(found.x[1]))


def _cross_validated(labels: np.ndarray, logits: np.ndarray, fold: np.ndarray, shifted: bool) -> np.ndarray:
    """Return the loss of each row, (rows,), at the scaling that was fitted on the other folds."""
    scaled = np.empty_like(logits)
    for held_out in np.unique(fold):
        outside = fold != held_out
        scaled[~outside] = fit(labels[outside], logits[outside], shifted).apply(logits[~outside])
    return _losses(labels, scaled)


def _losses(labels: np.ndarray, logits: np.ndarray) -> np.ndarray:
    """Return the cross-entropy of each row, (rows,)."""
    from scipy.special import logsumexp

    return np.asarray(logsumexp(logits, axis=1) - logits[np.arange(len(labels)), labels])
