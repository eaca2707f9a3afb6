"""Does a text get the same score alone and among others?"""

from typing import Any

import numpy as np

from benchmarks.scenarios import fixed_order
from exporters.registry import LoadedArtefact
from toolkit.metrics import apply_threshold, softmax

BATCH = 64
MANY = 0.001
"""Share of rows; more than this, and the form is no longer called one that batches do not move."""


def batch_invariance(model: LoadedArtefact, texts: list[str], alone: np.ndarray) -> dict[str, Any]:
    """How far scores move, and how many labels flip, when texts are scored in batches and not alone.

    The batches are mixed at random, so that most texts are padded to a length far from their own.
    alone: logits (texts, labels) of the texts one by one.
    """
    order = fixed_order(texts)
    among = np.empty_like(alone)
    for start in range(0, len(order), BATCH):
        chosen = order[start : start + BATCH]
        among[chosen] = model.predict_logits([texts[i] for i in chosen], batch_size=len(chosen))
    one, other = softmax(alone), softmax(among)
    flips = apply_threshold(one, model.threshold) != apply_threshold(other, model.threshold)
    return {
        "rows": len(texts),
        "batch": BATCH,
        "largest_score_difference": float(np.abs(one - other).max()),
        "label_flips": int(flips.sum()),
    }
