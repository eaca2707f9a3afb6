"""How far a measured latency, or a ratio of two, can be trusted."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from toolkit.latency.early_stopping import allowed_above

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Ratio:
    """How many times larger one latency is than another, with its confidence interval."""

    value: float
    low: float
    high: float


def percentile_bound(samples: Sequence[float], percentile: int) -> float | None:
    """Return the smallest sample that is above the percentile with 99 % confidence; None if too few samples are.

    One sample or more must be larger, so that one outlier does not decide; see `allowed_above`.
    """
    allowed = allowed_above(len(samples), percentile)
    return None if allowed < 1 else sorted(samples)[-1 - allowed]


def paired_ratio(base: Sequence[Sequence[float]], other: Sequence[Sequence[float]]) -> Ratio | None:
    """Return mean latency of `base` divided by that of `other`, from rounds that both ran side by side.

    base, other: milliseconds of the same texts by round. None with fewer than two rounds.
    The interval is that of a paired t-test on the logarithms of the ratios of each round.
    """
    if len(base) != len(other) or len(base) < 2:
        return None
    logs = np.log(_means(base)) - np.log(_means(other))
    return _interval(float(logs.mean()), float(logs.std(ddof=1)) / math.sqrt(len(logs)), len(logs) - 1)


def ratio_of_runs(before: Sequence[Sequence[float]], now: Sequence[Sequence[float]]) -> Ratio | None:
    """Return the mean latency of `now` divided by that of `before`, from rounds of two separate measurements.

    None with fewer than two rounds. The interval is that of Welch's t-test on the logarithms of the means of rounds.
    """
    if min(len(before), len(now)) < 2:
        return None
    logs = [np.log(_means(each)) for each in (before, now)]
    errors = [float(each.var(ddof=1)) / len(each) for each in logs]
    squares = sum(error**2 / (len(each) - 1) for error, each in zip(errors, logs, strict=True))
    freedom = sum(errors) ** 2 / squares if squares > 0 else len(before) + len(now) - 2
    return _interval(float(logs[1].mean() - logs[0].mean()), math.sqrt(sum(errors)), freedom)


def _means(rounds: Sequence[Sequence[float]]) -> np.ndarray:
    return np.array([np.mean(each) for each in rounds])


def _interval(log_ratio: float, error: float, freedom: float) -> Ratio:
    from scipy.stats import t

    half = float(t.ppf((1 + CONFIDENCE) / 2, freedom)) * error
    return Ratio(math.exp(log_ratio), math.exp(log_ratio - half), math.exp(log_ratio + half))
