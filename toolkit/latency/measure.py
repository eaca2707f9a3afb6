"""Measure the latency, throughput and memory of models, each in its own process."""

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from toolkit.latency.timing import ColdStart, fixed_order
from toolkit.utils.scratch import scratch_folder

_THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "RAYON_NUM_THREADS",
)


_PROJECT = Path(__file__).resolve().parents[2]

Kind = Literal["package", "checkpoint", "linear"]

MEDIAN_TEXTS, MEDIAN_BUDGET_S = 200, 10.0
"""Maximum number of texts, and of seconds, for `median_latency_ms`."""


@dataclass(frozen=True)
class Subject:
    """A model to measure."""

    name: str
    kind: Kind
    path: Path
    size_bytes: int
    """Total size of the files needed to run it."""


@dataclass(frozen=True)
class Measurement:
    """Measurements of one model. None means not measured, or too few samples."""

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
    peak_rss_mib: float | None
    """Of the whole process, including the throughput passes with batches of 8 and 32."""
    imported: tuple[str, ...] = ()
    """Heavy modules that the model imported."""
    metrics: dict[str, float] = field(default_factory=dict)
    """Metrics on the test rows, at the model's own decision rule."""
    slices: dict[str, dict[str, float]] = field(default_factory=dict)
    """Metrics on slices of the test rows."""
    mean_ms: float | None = None
    max_ms: float | None = None
    """None in files that are older than these fields, or with too few samples for a median."""
    machine: str | None = None
    """The machine, if it is not this one, and the texts it was measured on."""


def measure(
    models: Sequence[Subject],
    texts: Sequence[str],
    threads: int = 1,
    progress: Callable[[str], None] = lambda line: None,
    budget_s: float = 60.0,
    cold: ColdStart = ColdStart(),  # noqa: B008 (frozen)
) -> list[Measurement]:
    """Measure speed, memory and size of each model on `texts`, one process after the other.

    progress: called with a line of text before each step. budget_s: time limit of the latency pass.
    cold: number of cold starts.
    Raises: RuntimeError with the end of the worker's error output if a worker fails.
    """
    shuffled = [texts[i] for i in fixed_order(texts)]
    spec: dict[str, Any] = {"texts": shuffled, "threads": threads, "budget_s": budget_s}
    measurements = []
    for model in models:
        model_spec = spec | {"kind": model.kind, "path": str(model.path)}
        starts = []
        for start in range(cold.starts - 1):
            progress(f"{model.name}: start {start + 1} of {cold.starts}")
            starts.append(_worker(model, model_spec | {"texts": shuffled[:1], "latency": False})["cold_start_ms"])
        progress(f"{model.name}: latency and throughput, {threads} thread{'s' * (threads > 1)}")
        figures = _worker(model, model_spec)
        figures["cold_start_ms"] = statistics.median([*starts, figures["cold_start_ms"]])
        figures["imported"] = tuple(figures["imported"])
        measurements.append(Measurement(model.name, model.kind, model.size_bytes, **figures))
    return measurements


def _worker(model: Subject, spec: dict[str, Any]) -> dict[str, Any]:
    """Run a worker and return the measurements that it prints. The spec is passed in a temporary file."""
    environment = os.environ | {name: str(spec["threads"]) for name in _THREAD_VARIABLES}
    environment |= {"TOKENIZERS_PARALLELISM": "true" if spec["threads"] > 1 else "false"}
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, [str(_PROJECT), os.environ.get("PYTHONPATH")]))
    with scratch_folder() as folder:
        file = folder / "spec.json"
        file.write_text(json.dumps(spec), "utf-8")
        command = [sys.executable, "-P", "-m", "toolkit.latency.worker", str(file), str(time.monotonic_ns())]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, encoding="utf-8")
    if done.returncode != 0:
        raise RuntimeError(f"{model.name}: the measuring worker failed ({done.returncode}):\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def median_latency_ms(kind: Kind, path: Path, texts: Sequence[str]) -> float | None:
    """Return the median end-to-end latency on one thread over MEDIAN_TEXTS of `texts`, measured in its own process."""
    subject = Subject(path.name, kind, path, 0)
    return measure([subject], texts[:MEDIAN_TEXTS], threads=1, budget_s=MEDIAN_BUDGET_S, cold=ColdStart(1))[0].p50_ms
