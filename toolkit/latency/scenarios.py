"""Scenarios of MLPerf inference: offline, with all texts at once, and server, with random arrivals.

The measuring worker imports this module, so it needs the standard library alone.
"""

import inspect
import math
import time
from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from random import Random
from typing import Any, Final, Literal, Protocol

from toolkit.latency.early_stopping import allowed_above

Name = Literal["single-stream", "offline", "server"]
SINGLE_STREAM: Final = "single-stream"
OFFLINE: Final = "offline"
SERVER: Final = "server"
P99_MS = 10.0
BATCHES = (1, 2, 4, 8, 16, 32, 64, 128, 256)
OFFLINE_S = 1.0
"""Seconds that a timed pass over all texts is repeated for, at least once."""
QUERIES = 662
"""Fewest queries of a run at one rate: as many as the 99th percentile needs if one of them is too slow."""
RUN_S, BOUNDS_PER_RUN = 2.0, 100.0
"""A run at one rate takes at least so many seconds, and so many times the bound: at a rate that is 1 % too high, the
queue then grows past the bound before the run ends."""
TOLERANCE, STEP, LONGEST_STEP, MOST_RUNS = 0.05, 1.1, 5.0, 16
"""The search ends when the lowest rate that fails is this much above the highest that holds, or after so many runs; the
first step from the guess, which is squared with each further one, and the longest."""
LOWEST = 1 / 16
"""The search ends at this share of the guess: below, a run takes minutes, and what fails there is not the model."""
CONFIRMATIONS = 8
"""Most further runs until one confirms the rate found, each TOLERANCE below the one before."""
SLEEP_UNTIL_S = 0.001
"""Before this much of a wait is left, the process sleeps; then it spins, since a sleep ends late."""


@dataclass(frozen=True)
class Scenario:
    """How texts arrive."""

    name: Name = SINGLE_STREAM
    p99_ms: float = P99_MS
    """Server: bound of the 99th percentile of latency, counted from the scheduled arrival."""


ONE_BY_ONE: Final = Scenario()


class Clock(Protocol):
    """Time in seconds."""

    def now(self) -> float:
        """Return the time."""
        ...

    def wait_until(self, moment: float) -> None:
        """Return at `moment`, at once if it has passed."""
        ...


class RealClock:
    """The clock of this machine."""

    def now(self) -> float:
        """Return the time."""
        return time.perf_counter()

    def wait_until(self, moment: float) -> None:
        """Sleep, and spin through the last millisecond."""
        left = moment - time.perf_counter()
        if left > SLEEP_UNTIL_S:
            time.sleep(left - SLEEP_UNTIL_S)
        while time.perf_counter() < moment:
            pass


class VirtualClock:
    """A clock that moves when somebody waits: a simulation takes no time."""

    def __init__(self) -> None:
        self.time = 0.0

    def now(self) -> float:
        """Return the time."""
        return self.time

    def wait_until(self, moment: float) -> None:
        """Move to `moment`."""
        self.time = max(self.time, moment)


@dataclass(frozen=True)
class Served:
    """A run at one rate."""

    rate: float
    """Texts per second."""
    queries: int
    latencies_s: list[float]
    """From the scheduled arrival to the label. Fewer than `queries` if too many were above the bound before the end."""
    above: int
    """Latencies above the bound."""
    holds: bool
    """Whether the 99th percentile is shown to be within the bound."""


@dataclass(frozen=True)
class Passed:
    """All texts, given at once, one or more times."""

    rate: float
    """Texts per second."""
    texts: int
    """Labeled in all."""


def takes_batches(predictor: Any) -> bool:
    """Return whether what labels the texts of a predictor takes a batch size."""
    try:
        return "batch_size" in inspect.signature(getattr(predictor, "predict", predictor.predict_proba)).parameters
    except (TypeError, ValueError):
        return False


def best_batch(label: Callable[..., Any], texts: Sequence[str], clock: Clock | None = None) -> int:
    """Return the batch size with the highest rate, one pass each.

    Larger sizes are tried until two in a row are slower than the best.
    """
    clock = clock or RealClock()
    times: dict[int, float] = {}
    for size in BATCHES:
        if size > 1 and size >= 2 * len(texts):
            break
        start = clock.now()
        label(texts, batch_size=size)
        times[size] = clock.now() - start
        if len(times) > 2 and min([*times.values()][-2:]) > min(times.values()):
            break
    return min(times, key=times.__getitem__)


def offline_rate(
    label: Callable[..., Any], texts: Sequence[str], batch: int | None, clock: Clock | None = None
) -> Passed:
    """Return the rate if all texts are given at once, over passes that take OFFLINE_S together."""
    clock = clock or RealClock()
    how = {} if batch is None else {"batch_size": batch}
    start, passes = clock.now(), 0
    while passes == 0 or clock.now() - start < OFFLINE_S:
        label(texts, **how)
        passes += 1
    return Passed(passes * len(texts) / (clock.now() - start), passes * len(texts))


def serve(
    label: Callable[..., Any], texts: Sequence[str], rate: float, bound_s: float, seed: int, clock: Clock | None = None
) -> Served:
    """Label texts that arrive at random, `rate` a second on average (Poisson), one at a time in order of arrival.

    A text that arrives while another is labeled waits, and its latency counts from its scheduled arrival, so that a
    slow answer delays no later arrival. Texts are drawn with replacement. The run ends early when it cannot hold.
    """
    clock, random = clock or RealClock(), Random(seed)
    queries = max(QUERIES, math.ceil(rate * max(RUN_S, BOUNDS_PER_RUN * bound_s)))
    allowed = allowed_above(queries, 99)
    arrivals = array("d", accumulate(random.expovariate(rate) for _ in range(queries)))
    drawn = random.choices(texts, k=queries)
    latencies: list[float] = []
    above, start = 0, clock.now()
    for moment, text in zip(arrivals, drawn, strict=True):
        clock.wait_until(start + moment)
        label([text])
        latency = clock.now() - start - moment
        latencies.append(latency)
        if latency > bound_s:
            above += 1
            if above > allowed:
                break
    return Served(rate, queries, latencies, above, above <= allowed)


def highest_rate(holds: Callable[[float], bool], guess: float) -> float | None:
    """Return the highest rate that holds, within TOLERANCE; None if none of those tried does.

    From the guess, up or down by growing steps until both kinds of rates are known, then by halving in between.
    """
    low: float | None = None
    high: float | None = None
    rate, step = guess, STEP
    for _ in range(MOST_RUNS):
        if holds(rate):
            low = rate
        else:
            high = rate
        if low is None:
            if rate < LOWEST * guess:
                break
            rate, step = rate / step, min(step**2, LONGEST_STEP)
        elif high is None:
            rate, step = rate * step, min(step**2, LONGEST_STEP)
        elif high / low <= 1 + TOLERANCE:
            break
        else:
            rate = math.sqrt(low * high)
    return low


def predicted_rate(service_s: Sequence[float], bound_s: float, seed: int) -> float | None:
    """Return the rate that should hold if labels take the measured `service_s`; None if none should.

    The runs are simulated: a search by real ones alone would take minutes.
    """
    clock = VirtualClock()
    mean = sum(service_s) / len(service_s)

    def label(query: Sequence[float]) -> None:
        clock.time += query[0]

    def holds(rate: float) -> bool:
        return serve(label, service_s, rate, bound_s, seed, clock).holds  # type: ignore[arg-type]

    if not holds(min(0.001 / mean, 1.0)):  # with hardly a queue
        return None
    return highest_rate(holds, 0.9 / mean)


def server_rate(
    label: Callable[..., Any],
    texts: Sequence[str],
    bound_s: float,
    service_s: Sequence[float],
    seed: int,
    guess: float | None = None,
    clock: Clock | None = None,
) -> tuple[Served | None, list[Served]]:
    """Return the run at the highest rate that holds, None if there is none, and all runs.

    service_s: measured seconds of single texts, from which the first rate is predicted unless there is a `guess`.
    """
    runs: list[Served] = []
    guess = guess or predicted_rate(service_s, bound_s, seed)

    def holds(rate: float) -> bool:
        runs.append(serve(label, texts, rate, bound_s, seed + len(runs), clock))
        return runs[-1].holds

    if guess is None:
        return None, runs
    found = highest_rate(holds, guess)
    while found is not None and len(runs) < MOST_RUNS + CONFIRMATIONS:
        if holds(found):  # again, with other arrivals: of several runs near the edge, one holds by luck
            return runs[-1], runs
        found /= 1 + TOLERANCE
    return None, runs
