"""How many samples may be above a percentile while it is still shown to be below a bound: early stopping of MLPerf.

The measuring worker imports this module, so it needs the standard library alone.
"""

import math
from functools import cache

CONFIDENCE = 0.99
"""Confidence of the bound of a percentile, as in MLPerf inference."""


@cache
def allowed_above(count: int, percentile: int) -> int:
    """Return the largest number of `count` samples that may be above a bound of `percentile`; -1 if none may.

    So few samples would be above the true percentile with a chance of at most 1 - CONFIDENCE (Reddi et al. 2020,
    section V). 0 is allowed from 459 samples on for the 99th percentile, 1 from 662 on.
    """
    share = 1 - percentile / 100  # of samples above the percentile
    if count == 0:
        return -1
    total, allowed = 0.0, -1
    for above in range(count):  # the sum ends far below `count`
        total += math.exp(_log_binomial(count, above, share))
        if total > (1 - CONFIDENCE) * (1 + 1e-9):
            return allowed
        allowed = above
    return allowed


def _log_binomial(count: int, chosen: int, share: float) -> float:
    """Return the logarithm of the chance that `chosen` of `count` samples are above, if each is with chance `share`."""
    ways = math.lgamma(count + 1) - math.lgamma(chosen + 1) - math.lgamma(count - chosen + 1)
    return ways + chosen * math.log(share) + (count - chosen) * math.log1p(-share)
