"""Measures one model in a process of its own: `python -m toolkit.latency.worker SPEC.json [STARTED_NS]`.

Prints one line of JSON. Imports nothing that the model does not need, so that its start and its memory are
those of the model. SPEC.json holds:

    kind         "package", "checkpoint" or "linear"
    path         its folder
    texts        list of texts, or the name of a file with one text a line
    threads      threads of the model; the libraries' own settings come through the environment (`benchmarks.run`)
    latency      false: stop after the first label, for the cold start alone (default true)
    max_samples  texts that are timed at most (default 1200)
    budget_s     seconds for the latency pass; each throughput pass gets a third (default 60)

STARTED_NS is time.monotonic_ns() of the parent right before it started this process: that clock is shared by
all processes of a machine. Without it there is no cold_start_ms.
"""

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

from toolkit.evaluation.predictor import Predictor
from toolkit.latency.timing import Latency, Throughput, label_indices, percentiles, time_latency, time_throughput

BATCHES = (8, 32)
HEAVY = ("torch", "transformers", "sklearn", "scipy", "pandas", "onnxruntime", "mlflow")
"""Modules whose import is reported: a package for the edge should be seen to need none but its runtime."""


def main(arguments: list[str]) -> None:
    spec = json.loads(Path(arguments[0]).read_text("utf-8"))
    started_ns = int(arguments[1]) if len(arguments) > 1 else None
    print(json.dumps(measure_here(spec, started_ns)))


def measure_here(spec: dict[str, Any], started_ns: int | None) -> dict[str, Any]:
    """The figures of one model in this process. A figure for which there were too few samples is null."""
    threads = spec.get("threads", 1)
    pin(threads)
    texts = _texts(spec["texts"])
    predictor = load_predictor(spec["kind"], Path(spec["path"]), threads)
    label_indices(predictor, texts[:1])
    first_label_ns = time.monotonic_ns()
    found: dict[str, Any] = {
        "threads": threads,
        "cold_start_ms": None if started_ns is None else (first_label_ns - started_ns) / 1e6,
    }
    if spec.get("latency", True):
        found |= _timed(predictor, texts, spec.get("max_samples", 1200), spec.get("budget_s", 60.0))
    return found | {"peak_rss_mib": peak_rss_mib(), "imported": [name for name in HEAVY if name in sys.modules]}


def load_predictor(kind: str, path: Path, threads: int) -> Predictor:
    """The model of `path`, ready to answer."""
    if kind == "package":
        from toolkit.package import load

        return load(path, threads=threads)
    if kind == "checkpoint":
        import torch

        from toolkit.modeling.classifier import load_classifier

        torch.set_num_threads(threads)
        return load_classifier(path)
    if kind == "linear":
        from toolkit.modeling.linear import load_linear

        return load_linear(path)
    raise ValueError(f"no such kind of model: {kind!r}")


def pin(threads: int) -> None:
    """Keep this process on the first `threads` CPUs that it may use, where the system can do that."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])


def peak_rss_mib() -> float:
    """Most memory that this process ever had in RAM.

    Linux: VmHWM and not getrusage, whose figure starts at the memory of the parent that spawned the process.
    """
    status = Path("/proc/self/status")
    if status.exists():
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) / 1024
    if sys.platform == "win32":
        import psutil

        return psutil.Process().memory_info().peak_wset / 2**20
    import resource

    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # bytes on macOS, KiB elsewhere
    return most / (2**20 if sys.platform == "darwin" else 2**10)


def _timed(predictor: Predictor, texts: list[str], max_samples: int, budget_s: float) -> dict[str, Any]:
    samples = time_latency(predictor, texts, Latency(max_samples=max_samples, budget_s=budget_s))
    known = percentiles(samples)
    found: dict[str, Any] = {"samples": len(samples)}
    found |= {f"p{q}_ms": known.get(f"p{q}") for q in (50, 90, 99)}
    for batch in BATCHES:
        rate = time_throughput(predictor, texts, Throughput(batch, budget_s=budget_s / 3))
        found[f"throughput_b{batch}_rows_s"] = rate
    return found


def _texts(given: list[str] | str) -> list[str]:
    texts = given if isinstance(given, list) else Path(given).read_text("utf-8").splitlines()
    if not texts:
        raise ValueError("no texts to measure on")
    return texts


if __name__ == "__main__":
    main(sys.argv[1:])
