"""Measure models side by side: each in a fresh process for speed and memory, then on test rows for accuracy."""

import dataclasses
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

import numpy as np

from benchmarks.machine import allowed_cpus
from benchmarks.scenarios import ColdStart, fixed_order
from benchmarks.worker import load_predictor
from toolkit.corpus import Corpus
from toolkit.errors import InputError
from toolkit.metrics import calculate_metrics_with_threshold_exploration
from toolkit.predictor import Predictor

_THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "RAYON_NUM_THREADS",
)
_PROJECT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Subject:
    """A model to measure."""

    name: str
    kind: Literal["package", "checkpoint", "floor"]
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


def bench(
    models: Sequence[Subject], corpus: Corpus, threads: int = 1, progress: Callable[[str], None] = lambda line: None
) -> list[Measurement]:
    """Speed, memory, size and accuracy of each model on the test rows of `corpus`.

    Raises: InputError if a model's labels are not those of the corpus; RuntimeError if a worker fails.
    """
    test = corpus.rows("test")
    measured = measure(models, corpus.take(test), threads, progress)
    found = []
    for model, measurement in zip(models, measured, strict=True):
        progress(f"{model.name}: accuracy on {len(test)} test rows")
        metrics, slices = accuracy(load_predictor(model.kind, model.path, len(allowed_cpus()) or 1), corpus, test)
        found.append(dataclasses.replace(measurement, metrics=metrics, slices=slices))
    return found


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


def accuracy(
    predictor: Predictor, corpus: Corpus, rows: np.ndarray
) -> tuple[dict[str, float], dict[str, dict[str, float]]]:
    """Metrics on `rows` of `corpus` at the predictor's own threshold, and the same for each slice of the corpus.

    Raises: InputError if the predictor's labels are not those of the corpus.
    """
    if tuple(predictor.labels) != corpus.label_names:
        raise InputError(
            f"the model's labels are {', '.join(predictor.labels)}, those of {corpus.name} are "
            f"{', '.join(corpus.label_names)}; name them in the model's order with --label-names"
        )
    probabilities = predictor.predict_proba(corpus.take(rows))  # (rows, labels)

    def metrics(mask: np.ndarray) -> dict[str, float]:
        return calculate_metrics_with_threshold_exploration(
            corpus.labels[rows][mask], probabilities[mask], _threshold(predictor), corpus.label_names
        )

    parts = {name: metrics(mask[rows]) for name, mask in corpus.slices.items() if mask[rows].any()}
    return metrics(np.ones(len(rows), dtype=bool)), parts


def _threshold(predictor: Predictor) -> float | None:
    """The predictor's own; 0.5 where two labels have none, so that these rows never choose one."""
    return 0.5 if predictor.threshold is None and len(predictor.labels) == 2 else predictor.threshold


def _worker(model: Subject, spec: dict[str, Any]) -> dict[str, Any]:
    """The figures that a worker printed. The spec goes through a file that is gone afterwards."""
    environment = os.environ | {name: str(spec["threads"]) for name in _THREAD_VARIABLES}
    environment |= {"TOKENIZERS_PARALLELISM": "true" if spec["threads"] > 1 else "false"}
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, [str(_PROJECT), os.environ.get("PYTHONPATH")]))
    with tempfile.TemporaryDirectory(prefix="hbt-bench-") as folder:
        file = Path(folder) / "spec.json"
        file.write_text(json.dumps(spec), "utf-8")
        command = [sys.executable, "-P", "-m", "benchmarks.worker", str(file), str(time.monotonic_ns())]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, encoding="utf-8")
    if done.returncode != 0:
        raise RuntimeError(f"{model.name}: the measuring worker failed ({done.returncode}):\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])
