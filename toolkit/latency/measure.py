"""Measure the latency, throughput and memory of models, in turns, each time in a fresh process."""

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

from exporters.loaders.command.timing import percentiles
from toolkit.latency.timing import fixed_order
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

Kind = Literal["package", "checkpoint", "linear", "onnx", "python"]

ROUNDS = 5
"""Turns of each model. Every round has its own texts, the same for all models, so that models can be compared within
it: noise of the machine that lasts longer than a round affects all of them."""
MAX_TEXTS, BATCH_TEXTS, WARM_UP_TEXTS = 1200, 1024, 20
"""Texts that are timed one by one, texts for the throughput, and texts of another round for the warm-up."""
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
    interpreter: Path | None = None
    """Python that runs it, if it needs another environment than this one."""


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
    rounds_ms: tuple[tuple[float, ...], ...] = ()
    """Milliseconds of each timed text, by round. Empty in files that are older, and of other machines."""


def measure(
    models: Sequence[Subject],
    texts: Sequence[str],
    threads: int = 1,
    progress: Callable[[str], None] = lambda line: None,
    budget_s: float = 60.0,
    rounds: int = ROUNDS,
) -> list[Measurement]:
    """Measure speed, memory and size of each model on `texts`, one process after the other, in `rounds` turns.

    The cold start is the median over the rounds; throughput is measured in the last one.
    progress: called with a line of text before each step. budget_s: time limit of the latency pass of a model.
    Raises: RuntimeError with the end of the worker's error output if a worker fails.
    """
    shuffled = [texts[i] for i in fixed_order(texts)]
    parts = [part for part in (shuffled[:MAX_TEXTS][i::rounds] for i in range(rounds)) if part]
    found: list[list[dict[str, Any]]] = [[] for _ in models]
    for number, part in enumerate(parts):
        spec = {"texts": part, "warm_up": parts[number - 1][:WARM_UP_TEXTS], "threads": threads}
        spec |= {"budget_s": budget_s / len(parts)}
        if number == len(parts) - 1:
            spec |= {"batches": shuffled[:BATCH_TEXTS]}
        for model, results in zip(models, found, strict=True):
            progress(f"{model.name}: round {number + 1} of {len(parts)}, {threads} thread{'s' * (threads > 1)}")
            results.append(_worker(model, spec | {"kind": model.kind, "path": str(model.path)}))
    return [_measurement(model, results) for model, results in zip(models, found, strict=True)]


def _measurement(model: Subject, rounds: Sequence[dict[str, Any]]) -> Measurement:
    """Return the measurement of a model from what its workers printed."""
    samples = [sample for each in rounds for sample in each["samples_ms"]]
    quantiles, last = percentiles(samples), rounds[-1]
    peaks = [each["peak_rss_mib"] for each in rounds if each["peak_rss_mib"] is not None]
    return Measurement(
        name=model.name,
        kind=model.kind,
        size_bytes=model.size_bytes,
        threads=last["threads"],
        samples=len(samples),
        p50_ms=quantiles.get("p50"),
        p90_ms=quantiles.get("p90"),
        p99_ms=quantiles.get("p99"),
        throughput_b8_rows_s=last["throughput_b8_rows_s"],
        throughput_b32_rows_s=last["throughput_b32_rows_s"],
        cold_start_ms=statistics.median(each["cold_start_ms"] for each in rounds),
        peak_rss_mib=max(peaks, default=None),
        imported=tuple(last["imported"]),
        mean_ms=statistics.mean(samples) if quantiles else None,
        max_ms=max(samples) if quantiles else None,
        rounds_ms=tuple(tuple(each["samples_ms"]) for each in rounds),
    )


def _worker(model: Subject, spec: dict[str, Any]) -> dict[str, Any]:
    """Run a worker and return the measurements that it prints. The spec is passed in a temporary file."""
    environment = os.environ | {name: str(spec["threads"]) for name in _THREAD_VARIABLES}
    environment |= {"TOKENIZERS_PARALLELISM": "true" if spec["threads"] > 1 else "false"}
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, [str(_PROJECT), os.environ.get("PYTHONPATH")]))
    with scratch_folder() as folder:
        file = folder / "spec.json"
        file.write_text(json.dumps(spec), "utf-8")
        python = sys.executable if model.interpreter is None else str(model.interpreter)
        command = [python, "-P", "-m", "toolkit.latency.worker", str(file), str(time.monotonic_ns())]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, encoding="utf-8")
    if done.returncode != 0:
        raise RuntimeError(f"{model.name}: the measuring worker failed ({done.returncode}):\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def labels_elsewhere(model: Subject, texts: Sequence[str], threads: int = 1) -> list[str]:
    """Return the labels of `texts` by a model of another environment, from a process there.

    Raises: RuntimeError with the end of the worker's error output if it fails.
    """
    spec = {"texts": list(texts[:1]), "labeled": list(texts), "threads": threads}
    return _worker(model, spec | {"kind": model.kind, "path": str(model.path)})["labels"]


def median_latency_ms(kind: Kind, path: Path, texts: Sequence[str]) -> float | None:
    """Return the median end-to-end latency on one thread over MEDIAN_TEXTS of `texts`, measured in its own process."""
    subject = Subject(path.name, kind, path, 0)
    return measure([subject], texts[:MEDIAN_TEXTS], threads=1, budget_s=MEDIAN_BUDGET_S, rounds=1)[0].p50_ms
