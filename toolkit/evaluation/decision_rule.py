"""How probabilities become a label.

With two labels, the second is predicted from a threshold on. With more, one offset per label is added to the
log-probabilities before the highest is taken (logit adjustment, Menon et al. 2021).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

SMALLEST = 1e-12
"""Probabilities are clipped to this before their logarithm is taken."""


@dataclass(frozen=True)
class DecisionRule:
    """The rule of a classifier; without threshold and offsets, the label with the highest probability is predicted."""

    threshold: float | None = None
    """For two labels: the second is predicted if its probability is at least this."""
    offsets: tuple[float, ...] | None = None
    """For more labels, (labels,): added to the log-probabilities."""

    def predict(self, probabilities: np.ndarray) -> np.ndarray:
        """Return the predicted label of each row of `probabilities` (rows, labels), as int (rows,)."""
        if probabilities.shape[1] == 2 and self.threshold is not None:
            return (probabilities[:, 1] >= self.threshold).astype(np.int64)
        if self.offsets is not None:
            return (log_probabilities(probabilities) + np.array(self.offsets)).argmax(axis=1)
        return probabilities.argmax(axis=1)

    def logit_offsets(self, labels: int) -> tuple[float, ...]:
        """Return what the rule adds to the logits of `labels` labels before the highest is predicted."""
        if labels == 2 and self.threshold is not None:
            threshold = float(np.clip(self.threshold, SMALLEST, 1 - SMALLEST))
            return 0.0, float(np.log((1 - threshold) / threshold))
        return (0.0,) * labels if self.offsets is None else self.offsets

    def as_dict(self) -> dict[str, Any]:
        """Return the entries for a JSON file."""
        return {"threshold": self.threshold, "offsets": None if self.offsets is None else list(self.offsets)}


def rule_from(entries: Mapping[str, Any]) -> DecisionRule:
    """Return the rule in entries that `DecisionRule.as_dict` made; older files have no `offsets`."""
    offsets = entries.get("offsets")
    return DecisionRule(entries.get("threshold"), None if offsets is None else tuple(offsets))


def log_probabilities(probabilities: np.ndarray) -> np.ndarray:
    """Return float64 log-probabilities, clipped at log SMALLEST."""
    return np.log(np.maximum(probabilities.astype(np.float64), SMALLEST))
