"""The one thing that evaluation and benchmarks know of a model."""

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
        """Where label 1 of two is cut; None for more labels."""
        ...

    def predict_proba(self, texts: Sequence[str]) -> np.ndarray:
        """float32 (texts, labels), rows sum to 1, in the order of `texts`, columns in the order of `labels`."""
        ...
