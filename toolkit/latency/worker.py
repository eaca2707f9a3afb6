"""Measure one model in its own process: `python -m toolkit.latency.worker SPEC.json [STARTED_NS]`.

Prints one line of JSON. Imports only what the model needs, so that start time and memory are those of the model.
SPEC.json contains:

    kind         "package", "checkpoint", "linear", "onnx" or "python"
    path         folder of the model; MODULE.FUNCTION for "python"
    texts        texts that are timed one by one, in their order
    warm_up      texts that are labeled before, until the time is stable (default: none)
    batches      texts for the throughput (default: none)
    labeled      texts whose labels are returned, for a model of another environment (default: none)
    threads      threads of the model; `toolkit.latency.measure` sets those of libraries in the environment
    budget_s     seconds for the latency pass; each throughput pass gets a third (default 60)

STARTED_NS is the time.monotonic_ns() of the parent right before it started this process; all processes of a machine
share this clock. Without it, cold_start_ms is null.
"""

import json
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from exporters.loaders.command.timing import peak_rss_mib
from toolkit.evaluation.predictor import Predictor
from toolkit.latency.foreign import ONNX, PYTHON, load_foreign
from toolkit.latency.timing import Latency, Throughput, WarmUp, labeling, time_latency, time_throughput, warm_up

BATCHES = (8, 32)
HEAVY_MODULES = ("torch", "transformers", "sklearn", "scipy", "pandas", "onnxruntime", "mlflow")
"""Modules whose import is reported. A package should only need its runtime."""


def main(arguments: list[str]) -> None:
    spec = json.loads(Path(arguments[0]).read_text("utf-8"))
    started_ns = int(arguments[1]) if len(arguments) > 1 else None
    print(json.dumps(measure_here(spec, started_ns)))


def measure_here(spec: dict[str, Any], started_ns: int | None) -> dict[str, Any]:
    """Measure one model in this process. Rates of batches with too few texts are None."""
    threads = spec.get("threads", 1)
    pin_to_cpus(threads)
    texts, budget_s = spec["texts"], spec.get("budget_s", 60.0)
    if not texts:
        raise ValueError("no texts to measure on")
    predictor = load_predictor(spec["kind"], Path(spec["path"]), threads)
    labeling(predictor)(texts[:1])
    first_label_ns = time.monotonic_ns()
    warm_up(predictor, spec.get("warm_up", []), WarmUp())
    measured: dict[str, Any] = {
        "threads": threads,
        "cold_start_ms": None if started_ns is None else (first_label_ns - started_ns) / 1e6,
        "samples_ms": time_latency(predictor, texts, Latency(max_samples=len(texts), budget_s=budget_s, warmup=0)),
    }
    for size in BATCHES:
        rate = time_throughput(predictor, spec.get("batches", []), Throughput(size, budget_s=budget_s / 3))
        measured[f"throughput_b{size}_rows_s"] = rate
    imported = [name for name in HEAVY_MODULES if name in sys.modules]
    if "labeled" in spec:
        measured["labels"] = list(map(str, labeling(predictor)(spec["labeled"])))
    return measured | {"peak_rss_mib": peak_rss_mib(), "imported": imported}


def load_predictor(kind: str, path: Path, threads: int, labels: Sequence[str] = ()) -> Predictor:
    """Load the model in `path`, ready to predict. labels: those of the corpus, for models that do not know them."""
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
    if kind in (ONNX, PYTHON):
        return load_foreign(kind, path, threads, labels)
    raise ValueError(f"unknown kind of model: {kind!r}")


def pin_to_cpus(threads: int) -> None:
    """Pin this process to the first `threads` of its allowed CPUs, if the operating system supports it."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])


if __name__ == "__main__":
    main(sys.argv[1:])
