"""Scenarios against queueing theory in virtual time, and against scipy."""

import math
from collections.abc import Sequence

import numpy as np
import pytest
from scipy import stats

from benchmarks.studies.deployment.server_search import highest_rate_of_theory
from toolkit.latency import scenarios
from toolkit.latency.early_stopping import allowed_above
from toolkit.latency.scenarios import (
    Passed,
    VirtualClock,
    best_batch,
    highest_rate,
    offline_rate,
    predicted_rate,
    serve,
    server_rate,
)

SERVICE_S, BOUND_S = 0.010, 0.050


class Station:
    """A model in virtual time: a call takes `call_s`, and `text_s` more for each text."""

    def __init__(self, call_s: float = SERVICE_S, text_s: float = 0.0) -> None:
        self.clock, self.call_s, self.text_s, self.calls = VirtualClock(), call_s, text_s, list[list[str]]()

    def label(self, texts: Sequence[str]) -> None:
        self.calls.append([*texts])
        self.clock.time += self.call_s + self.text_s * len(texts)

    def batched(self, texts: Sequence[str], batch_size: int = 1) -> None:
        for start in range(0, len(texts), batch_size):
            self.label(texts[start : start + batch_size])


@pytest.mark.parametrize("percentile", [90, 99])
@pytest.mark.parametrize("count", [1, 44, 45, 63, 64, 458, 459, 661, 662, 1200, 20_000])
def test_as_many_samples_may_be_above_as_the_binomial_distribution_says(count: int, percentile: int) -> None:
    found = allowed_above(count, percentile)
    chances = stats.binom.cdf(np.arange(-1, found + 2), count, 1 - percentile / 100)
    assert chances[found + 1] <= 0.01 + 1e-9
    assert chances[found + 2] > 0.01


def test_no_sample_allows_nothing() -> None:
    assert allowed_above(0, 99) == -1


def test_the_highest_rate_is_that_of_an_m_d_1_queue() -> None:
    """The bound is four service times of waiting; the rate at which 99 % wait at most as long is known exactly."""
    expected = highest_rate_of_theory(SERVICE_S, BOUND_S)
    rates = []
    for seed in range(5):
        station = Station()
        found, runs = server_rate(station.label, ["a"], BOUND_S, [SERVICE_S] * 100, 100 * seed, clock=station.clock)
        assert found is not None
        assert found.holds
        assert len(runs) <= 9
        rates.append(found.rate / expected)
    # The p99 has to be shown, by 662 queries, so the rate found is rather too low.
    assert 0.8 < np.median(rates) < 1
    assert max(rates) < 1.1


def test_with_many_queries_the_rate_comes_close_to_theory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scenarios, "QUERIES", 30_000)
    found = predicted_rate([SERVICE_S] * 10, BOUND_S, 0)
    assert found == pytest.approx(highest_rate_of_theory(SERVICE_S, BOUND_S), rel=0.06)


def test_latency_counts_from_the_scheduled_arrival() -> None:
    """One answer of ten bounds delays those behind it; measured from its start, each would be fast."""
    station = Station(call_s=0.0)
    slow = 10 * BOUND_S

    def label(texts: Sequence[str]) -> None:
        station.label(texts)
        if len(station.calls) == 100:
            station.clock.time += slow

    rate = 1000.0
    run = serve(label, ["a"], rate, BOUND_S, 0, station.clock)
    behind = run.latencies_s[99:]
    assert behind[0] == pytest.approx(slow)
    assert behind[:20] == sorted(behind[:20], reverse=True)  # each arrived later, and all were answered together
    assert not run.holds
    assert len(run.latencies_s) < run.queries  # ended as soon as it was lost


def test_arrivals_are_poisson_and_texts_drawn_from_all() -> None:
    moments: list[float] = []
    station = Station(call_s=0.0)

    def label(texts: Sequence[str]) -> None:
        station.label(texts)
        moments.append(station.clock.now())

    run = serve(label, [f"text {i}" for i in range(10)], 500.0, 0.1, 1, station.clock)
    assert run.queries >= 500 * 10  # a hundred bounds
    gaps = np.diff([0.0, *moments])
    assert gaps.mean() == pytest.approx(1 / 500, rel=0.05)
    assert stats.kstest(gaps, "expon", args=(0, 1 / 500)).pvalue > 0.01
    assert len({text for (text,) in station.calls}) == 10
    again = Station(call_s=0.0)
    serve(again.label, [f"text {i}" for i in range(10)], 500.0, 0.1, 1, again.clock)
    assert again.calls == station.calls  # of the seed alone


def test_a_rate_above_what_the_model_can_do_never_holds() -> None:
    """With a loose bound, a short run would end before the queue has grown past it."""
    station = Station(call_s=0.0001)
    assert not serve(station.label, ["a"], 1.02 / 0.0001, BOUND_S, 0, station.clock).holds


def test_a_bound_below_the_service_time_has_no_rate() -> None:
    station = Station()
    found, runs = server_rate(station.label, ["a"], SERVICE_S / 2, [SERVICE_S] * 100, 0, clock=station.clock)
    assert (found, runs) == (None, [])


@pytest.mark.parametrize("guess", [1.0, 70.0, 100.0, 900.0])
def test_the_search_finds_the_edge_from_any_guess(guess: float) -> None:
    tried: list[float] = []

    def holds(rate: float) -> bool:
        tried.append(rate)
        return rate <= 100

    found = highest_rate(holds, guess)
    assert found is not None
    assert 100 / 1.05 <= found <= 100
    assert len(tried) <= 16


def test_the_search_gives_up_when_nothing_holds() -> None:
    tried: list[float] = []
    assert highest_rate(lambda rate: tried.append(rate) is not None, 100.0) is None
    assert min(tried) > 1  # at lower ones, a run takes minutes


def test_offline_states_the_batch_that_is_fastest() -> None:
    station = Station(call_s=0.001, text_s=0.001)
    cost = {size: math.ceil(100 / size) * 0.001 + 100 * 0.001 for size in scenarios.BATCHES}
    best = best_batch(station.batched, ["a"] * 100, station.clock)
    assert best == min(cost, key=cost.__getitem__) == 128
    assert offline_rate(station.batched, ["a"] * 100, best, station.clock).rate == pytest.approx(100 / cost[128])


def test_without_a_batch_size_a_model_gets_all_texts_in_one_call() -> None:
    station = Station(call_s=0.5)
    assert offline_rate(station.label, ["a"] * 10, None, station.clock) == Passed(20.0, 20)
    assert station.calls == [["a"] * 10] * 2  # until a second has passed
