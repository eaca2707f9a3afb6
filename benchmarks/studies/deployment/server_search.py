"""Compare the rate that the scenario `server` finds with queueing theory, in virtual time.

With a fixed service time, the share of texts that wait at most so long in an M/D/1 queue is known exactly, and with it
the highest rate at which the 99th percentile is within a bound.

    python -m benchmarks.studies.deployment.server_search --seeds 60
"""

import argparse
import math
from collections.abc import Sequence

import numpy as np
from scipy import optimize

from toolkit.latency.scenarios import VirtualClock, server_rate

SERVICE_S, BOUND_S = 0.010, 0.050


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n\n")[0])
    parser.add_argument("--seeds", type=int, default=60)
    given = parser.parse_args()
    theory = highest_rate_of_theory(SERVICE_S, BOUND_S)
    shares = np.array([found_rate(seed) / theory for seed in range(given.seeds)])
    low, median, high = np.quantile(shares, [0.05, 0.5, 0.95])
    print(f"theory: {theory:.1f} texts/s; found: median {median:.2f} of it, 5 to 95 %: {low:.2f} to {high:.2f}")


def highest_rate_of_theory(service_s: float, bound_s: float) -> float:
    """Return the highest rate at which 99 % of the latencies are within the bound, in texts per second."""
    load = optimize.brentq(lambda load: wait_within(load, bound_s / service_s - 1) - 0.99, 0.01, 0.99)
    return float(load / service_s)


def wait_within(load: float, services: float) -> float:
    """Return the chance that a text waits at most so many service times in an M/D/1 queue (Erlang 1909)."""
    terms = [
        (-load * (services - k)) ** k / math.factorial(k) * math.exp(load * (services - k))
        for k in range(int(services) + 1)
    ]
    return (1 - load) * math.fsum(terms)


def found_rate(seed: int) -> float:
    """Return the rate that the search finds for a model that takes SERVICE_S, 0 if it finds none."""
    clock = VirtualClock()

    def label(texts: Sequence[str]) -> None:
        clock.time += SERVICE_S

    found, _ = server_rate(label, ["a"], BOUND_S, [SERVICE_S] * 100, 100 * seed, clock=clock)
    return 0.0 if found is None else found.rate


if __name__ == "__main__":
    main()
