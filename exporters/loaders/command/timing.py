"""Percentiles and memory of a measurement. `hbt bench` reports its own by the same rules."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

SAMPLES_NEEDED = {50: 20, 90: 64, 99: 662}
"""Minimum number of samples for each percentile. Of 64 samples, the second largest is above the 90th percentile with
99 % confidence, and of 662 above the 99th (early stopping of MLPerf inference)."""


def percentiles(samples: Sequence[float]) -> dict[str, float]:
    """Return `p50`, `p90` and `p99`, each only if there are enough samples for it (SAMPLES_NEEDED)."""
    import statistics  # here, since it would lengthen every cold start

    known = [q for q, needed in SAMPLES_NEEDED.items() if len(samples) >= needed]
    cuts = statistics.quantiles(samples, n=100, method="inclusive") if known else []
    return {f"p{q}": cuts[q - 1] for q in known}


def peak_rss_mib() -> float | None:
    """Return the peak resident memory of this process; None on Windows without psutil.

    On Linux, it is VmHWM, because getrusage includes the memory of the parent process.
    """
    status = Path("/proc/self/status")
    if status.exists():
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) / 1024
    if sys.platform == "win32":
        try:
            import psutil
        except ImportError:
            return None
        return psutil.Process().memory_info().peak_wset / 2**20
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # bytes on macOS, KiB elsewhere
    return peak / (2**20 if sys.platform == "darwin" else 2**10)
