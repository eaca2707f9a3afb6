"""The interface through which evaluation and benchmarks use a model."""

from collections.abc import Sequence
from typing import Protocol

import numpy as np


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

    def predict_proba(self, texts: Sequence[str]) -> np.ndarray:
        """Return float32 (texts, labels): rows sum to 1, in the order of `texts`; columns in the order of `labels`."""
        ...
