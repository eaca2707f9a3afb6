"""The interface through which evaluation and benchmarks use a model."""

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from toolkit.evaluation.decision_rule import DecisionRule


class Predictor(Protocol):
    """A torch checkpoint, an artifact, a loaded package or the linear baseline."""

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of the labels."""
        ...

    @property
    def threshold(self) -> float | None:
        """Threshold of the probability of label 1 of two; None for more labels."""
        ...

    @property
    def offsets(self) -> tuple[float, ...] | None:
        """Offsets of the log-probabilities of more than two labels; None to predict the most probable label."""
        ...

    def predict_proba(self, texts: Sequence[str]) -> np.ndarray:
        """Return float32 (texts, labels): rows sum to 1, in the order of `texts`; columns in the order of `labels`."""
        ...


def rule_of(predictor: Predictor) -> DecisionRule:
    """Return the decision rule of a predictor."""
    return DecisionRule(predictor.threshold, predictor.offsets)
