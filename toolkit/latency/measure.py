"""Measure models side by side: each in a fresh process for speed and memory, then on test rows for accuracy."""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from toolkit.latency.timing import ColdStart, fixed_order

_THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "RAYON_NUM_THREADS",
)


_PROJECT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Subject:
    """A model to measure."""

    name: str
    kind: Literal["package", "checkpoint", "linear"]
    path: Path
    size_bytes: int
    """On disk, all that is needed to run it."""


@dataclass(frozen=True)
class Measurement:
    """What was measured of one model. None: too few samples for an honest figure, or not measured."""

    name: str
    kind: str
    size_bytes: int
    threads: int
    samples: int
    """Texts timed one by one."""
    p50_ms: float | None
    p90_ms: float | None
    p99_ms: float | None
    throughput_b8_rows_s: float | None
    throughput_b32_rows_s: float | None
    cold_start_ms: float | None
    peak_rss_mib: float
    """Of the whole process, the passes at batch 8 and 32 included."""
    imported: tuple[str, ...] = ()
    """Heavy modules that the model needed."""
    metrics: dict[str, float] = field(default_factory=dict)
    """On the test rows, at the model's own threshold."""
    slices: dict[str, dict[str, float]] = field(default_factory=dict)
    """The same for parts of the test rows."""


def measure(
    models: Sequence[Subject],
    texts: Sequence[str],
    threads: int = 1,
    progress: Callable[[str], None] = lambda line: None,
    budget_s: float = 60.0,
    cold: ColdStart = ColdStart(),  # noqa: B008 (frozen)
) -> list[Measurement]:
    """Speed, memory and size of each model on `texts`, one process after the other.

    Raises: RuntimeError with the end of its error output if a worker fails.
    """
    shuffled = [texts[i] for i in fixed_order(texts)]
    spec: dict[str, Any] = {"texts": shuffled, "threads": threads, "budget_s": budget_s}
    found = []
    for model in models:
        its = spec | {"kind": model.kind, "path": str(model.path)}
        starts = []
        for start in range(cold.starts - 1):
            progress(f"{model.name}: start {start + 1} of {cold.starts}")
            starts.append(_worker(model, its | {"texts": shuffled[:1], "latency": False})["cold_start_ms"])
        progress(f"{model.name}: latency and throughput, {threads} thread{'s' * (threads > 1)}")
        figures = _worker(model, its)
        figures["cold_start_ms"] = statistics.median([*starts, figures["cold_start_ms"]])
        figures["imported"] = tuple(figures["imported"])
        found.append(Measurement(model.name, model.kind, model.size_bytes, **figures))
    return found


def _worker(model: Subject, spec: dict[str, Any]) -> dict[str, Any]:
    """The figures that a worker printed. The spec goes through a file that is gone afterwards."""
    environment = os.environ | {name: str(spec["threads"]) for name in _THREAD_VARIABLES}
    environment |= {"TOKENIZERS_PARALLELISM": "true" if spec["threads"] > 1 else "false"}
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, [str(_PROJECT), os.environ.get("PYTHONPATH")]))
    with tempfile.TemporaryDirectory(prefix="hbt-bench-") as folder:
        file = Path(folder) / "spec.json"
        file.write_text(json.dumps(spec), "utf-8")
        command = [sys.executable, "-P", "-m", "toolkit.latency.worker", str(file), str(time.monotonic_ns())]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, encoding="utf-8")
    if done.returncode != 0:
        raise RuntimeError(f"{model.name}: the measuring worker failed ({done.returncode}):\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


Kind = Literal["package", "checkpoint", "linear"]


SAMPLES, BUDGET_S = 200, 10.0


def median_latency_ms(kind: Kind, path: Path, texts: Sequence[str]) -> float | None:
    """Median text-to-label time on one thread over SAMPLES of `texts`, in a process of its own."""
    subject = Subject(path.name, kind, path, 0)
    return measure([subject], texts[:SAMPLES], threads=1, budget_s=BUDGET_S, cold=ColdStart(1))[0].p50_ms
