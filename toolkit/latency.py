"""The quick latency figure of a run's table; `hbt bench` measures thoroughly."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from benchmarks.run import Subject, measure
from benchmarks.scenarios import ColdStart

Kind = Literal["package", "checkpoint", "floor"]
SAMPLES, BUDGET_S = 200, 10.0


def median_latency_ms(kind: Kind, path: Path, texts: Sequence[str]) -> float | None:
    """Median text-to-label time on one thread over SAMPLES of `texts`, in a process of its own."""
    subject = Subject(path.name, kind, path, 0)
    return measure([subject], texts[:SAMPLES], threads=1, budget_s=BUDGET_S, cold=ColdStart(1))[0].p50_ms
