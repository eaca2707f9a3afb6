"""Which parts of a network eight bits hurt most, and the fewest of them that must stay in float."""

from collections.abc import Callable, Sequence

import numpy as np

from toolkit.progress import bar
from toolkit.trials import Gauge, Measured, logits_of_some, measure

RANKED_ON = 128
"""Validation texts by which the parts are ranked."""


def keep_fewest_in_float(gauge: Gauge, base: Measured) -> list[Measured]:
    """The form `base` with more and more of its most sensitive parts in float, as measured.

    The one with the fewest parts in float that loses little enough is the last; if none does, all parts are in float
    in the last.
    """
    order = by_sensitivity(gauge, base)
    found: dict[int, Measured] = {}

    def passes(count: int) -> bool:
        found[count] = measure(gauge, base.candidate, base.classifier, frozenset(order[:count]))
        return gauge.drop(found[count].logits) <= gauge.max_drop

    fewest = fewest_that_pass(passes, len(order))
    return [each for count, each in found.items() if count != fewest] + [found[fewest]]


def fewest_that_pass(passes: Callable[[int], bool], most: int) -> int:
    """The least count from 1 to `most` that passes, if more never hurts; `most` if none does.

    Twice as many each time until one passes, then halving in between: about 2 log2(count) trials.
    """
    low, high = 0, 1
    while not passes(high):
        if high == most:
            return most
        low, high = high, min(2 * high, most)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if passes(middle) else (middle, high)
    return high


def by_sensitivity(gauge: Gauge, base: Measured) -> Sequence[str]:
    """The parts of a form; first that which moves the logits most when it alone is quantized."""
    parts = base.candidate.parts
    single = gauge.single.logits[:RANKED_ON]
    moved = {}
    with bar(f"{gauge.how.name}: ranking {len(parts)} parts", len(parts)) as advance:
        for part in parts:
            others = frozenset(parts) - {part}
            logits = logits_of_some(gauge, base.candidate, base.classifier, others, RANKED_ON)
            moved[part] = float(np.abs(logits - single).mean())
            advance(1)
    return sorted(parts, key=lambda part: -moved[part])
