"""What the epochs of a training are judged by, and when a training has no prospect of being any use."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

MACRO_F1, LOSS = "val_macro_f1", "val_loss"
"""Metrics that select the best epoch. Students use the validation loss against teacher and labels, as in training: it
is less noisy than macro-F1. Without a teacher, the loss rises while macro-F1 still improves, so macro-F1 is used."""


@dataclass(frozen=True)
class ToBeat:
    """Loss and macro-F1 of the linear baseline on validation rows: what a training should reach."""

    loss: float
    macro_f1: float

    def is_out_of_reach(self, history: Sequence[dict[str, float]], epochs: int) -> bool:
        """Return whether a training of `epochs` epochs may stop, since it has not come near in the first half of them.

        It may if no epoch has a lower loss or a higher macro-F1, and the last one is no better than the one before.
        """
        if len(history) < max(3, math.ceil(epochs / 2)):
            return False

        def better(epoch: dict[str, float], loss: float, macro_f1: float) -> bool:  # False for a loss of NaN
            return epoch[LOSS] < loss or epoch[MACRO_F1] > macro_f1

        last, before = history[-1], history[-2]
        near = any(better(epoch, self.loss, self.macro_f1) for epoch in history)
        return not near and not better(last, before[LOSS], before[MACRO_F1])
