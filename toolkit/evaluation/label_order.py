"""Do the outputs of a model mean the labels that they are read as? Found out on labeled rows."""

import numpy as np

from toolkit.evaluation.significance import compare, macro_f1_interval

FAR = 0.10
"""Difference of macro-F1 from which another order of the labels is far better."""


def better_order(y_true: np.ndarray, predicted: np.ndarray, labels: int) -> tuple[int, ...] | None:
    """Return the label that each output of a model fits best, if that is far better than the present order.

    Far better: macro-F1 rises by more than FAR, the 95 % interval of the paired bootstrap is above zero, and the new
    order beats chance (1 / labels), so that a constant or random model is not taken for one in another order.

    y_true, predicted: int (rows,).
    """
    from scipy.optimize import linear_sum_assignment

    counts = np.bincount(y_true * labels + predicted, minlength=labels**2).reshape(labels, labels).astype(np.float64)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)  # each label counts alike, as in macro-F1
    truth, output = linear_sum_assignment(shares, maximize=True)
    order = np.empty(labels, dtype=np.int64)
    order[output] = truth
    reordered = order[predicted]
    found = compare(y_true, predicted, reordered, labels)
    far = found.macro_f1_difference > FAR and found.interval[0] > 0
    beats_chance = macro_f1_interval(y_true, reordered, labels)[0] > 1 / labels
    return tuple(order.tolist()) if far and beats_chance else None
