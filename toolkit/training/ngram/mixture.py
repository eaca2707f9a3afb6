"""Choose how much of one linear model is mixed into another."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import logsumexp

from toolkit.training.nbsvm import SCALES, Score, best_score

SHARES = (0.25, 0.5, 0.75, 1.0)
"""Candidate shares of the model that is mixed in."""
CV_FOLDS = 5
_SEED = 0


@dataclass(frozen=True)
class Addition:
    """What is mixed in."""

    index: int
    """Which of the candidates."""
    share: float
    """Its share; the rest is the model that was there first."""


def best_share(labels: np.ndarray, first: np.ndarray, second: np.ndarray) -> float:
    """Return the share of `second` that is best in a mixture with `first`, 0 for none.

    labels: int (rows,). first and second: calibrated out-of-fold logits (rows, labels).
    """
    shares = (0.0, *SHARES)
    return shares[best_score([Score.of(labels, (1 - share) * first + share * second) for share in shares])]


def best_addition(labels: np.ndarray, first: np.ndarray, others: Sequence[np.ndarray]) -> Addition | None:
    """Return the mixture of `first` with one of `others` that has the lowest cross-entropy, None for `first` alone.

    Choosing among many mixtures on few rows is partly luck. A mixture is therefore used only if choosing one on four
    fifths of the rows lowers the cross-entropy on the other fifth by more than the standard error of that gain.
    All logits are calibrated by one factor, which is fitted with the choice.

    labels: int (rows,). first and others: logits (rows, labels) of models that never saw these rows.
    """
    additions = [Addition(index, share) for index in range(len(others)) for share in SHARES]
    mixed = [(1 - each.share) * first + each.share * others[each.index] for each in additions]
    losses = np.stack([_losses(labels, logits) for logits in (first, *mixed)])  # (mixtures, scales, rows)
    folds = np.random.default_rng(_SEED).permutation(len(labels)) % CV_FOLDS
    gains = np.zeros(len(labels))
    for fold in np.unique(folds):
        outside, inside = losses[:, :, folds != fold].mean(axis=2), losses[:, :, folds == fold]
        chosen, scale = np.unravel_index(outside.argmin(), outside.shape)
        gains[folds == fold] = inside[0, outside[0].argmin()] - inside[chosen, scale]
    if not gains.mean() > gains.std() / np.sqrt(len(gains)):
        return None
    return additions[int(losses[1:].mean(axis=2).min(axis=1).argmin())]


def _losses(labels: np.ndarray, logits: np.ndarray) -> np.ndarray:
    """Return the cross-entropy of each row at each of SCALES, (scales, rows)."""
    rows = np.arange(len(labels))
    return np.stack([logsumexp(scale * logits, axis=1) - scale * logits[rows, labels] for scale in SCALES])
