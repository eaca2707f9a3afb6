"""Intervals against an independent computation and by simulation."""

import dataclasses

import numpy as np
import pytest
from scipy import stats

from benchmarks.against import changes, slower_than
from benchmarks.intervals import paired_ratio, percentile_bound, ratio_of_runs
from tests.benchmarks.test_report import measured
from toolkit.latency.measure import Measurement


@pytest.mark.parametrize(("percentile", "needed"), [(90, 64), (99, 662)])
def test_a_bound_needs_as_many_samples_as_early_stopping_of_mlperf(percentile: int, needed: int) -> None:
    samples = list(range(needed))
    assert percentile_bound(samples[:-1], percentile) is None
    assert percentile_bound(samples, percentile) == needed - 2  # the second largest
    assert percentile_bound([], percentile) is None


@pytest.mark.parametrize(("percentile", "count"), [(90, 100), (90, 1200), (99, 1200)])
def test_a_bound_is_above_the_percentile_in_99_of_100_cases(percentile: int, count: int) -> None:
    random = np.random.default_rng(0)
    truth = stats.expon.ppf(percentile / 100)
    bounds = [percentile_bound(random.exponential(size=count), percentile) for _ in range(1000)]
    below = sum(bound < truth for bound in bounds)
    assert 0 < below <= 18  # 10 are expected at most, and this many happen once in a hundred times


def test_a_paired_ratio_is_free_of_noise_that_both_share() -> None:
    random = np.random.default_rng(0)
    noise = random.uniform(1, 3, size=5)  # of each round
    base = [10 * each * random.uniform(0.99, 1.01, size=50) for each in noise]
    other = [2 * each * random.uniform(0.99, 1.01, size=50) for each in noise]
    ratio = paired_ratio(base, other)
    assert ratio is not None
    assert ratio.low < ratio.value < ratio.high
    assert ratio.value == pytest.approx(5, rel=0.01)
    assert ratio.high / ratio.low < 1.02
    assert paired_ratio(base[:1], other[:1]) is None
    assert paired_ratio(base, other[:4]) is None


def test_two_separate_runs_are_compared_by_the_test_of_welch() -> None:
    random = np.random.default_rng(1)
    before = [random.uniform(9, 11, size=20) for _ in range(5)]
    now = [random.uniform(10, 14, size=20) for _ in range(4)]
    ratio = ratio_of_runs(before, now)
    assert ratio is not None
    logs = [np.log([each.mean() for each in rounds]) for rounds in (now, before)]
    expected = stats.ttest_ind(*logs, equal_var=False).confidence_interval(0.95)
    assert (ratio.low, ratio.high) == pytest.approx((np.exp(expected.low), np.exp(expected.high)))
    assert ratio_of_runs(before[:1], now) is None


def _model(name: str, level: float, rounds: int = 5) -> Measurement:
    random = np.random.default_rng(len(name))
    turns = tuple(tuple(level * random.uniform(0.98, 1.02, size=30)) for _ in range(rounds))
    return dataclasses.replace(measured(name, level, 0.8), rounds_ms=turns, mean_ms=level)


def test_only_what_is_slower_beyond_noise_and_by_more_than_allowed_fails() -> None:
    before = [_model("same", 1.0), _model("slower", 1.0), _model("a little slower", 1.0), _model("gone", 1.0)]
    now = [_model("same", 1.0), _model("slower", 1.5), _model("a little slower", 1.05), _model("new", 1.0)]
    found = changes(before, now)
    assert [(each.name, each.verdict) for each in found] == [
        ("same", "within noise"),
        ("slower", "slower"),
        ("a little slower", "slower"),
    ]
    assert found[1].ratio == pytest.approx(1.5, rel=0.02)
    assert [each.name for each in slower_than(found, 10)] == ["slower"]
    assert changes(before, [_model("same", 1.0, rounds=1)]) == []  # one round has no noise to compare with
