"""Measure one model in its own process: `python -m toolkit.latency.worker SPEC.json [STARTED_NS]`.

Prints one line of JSON. Imports only what the model needs, so that start time and memory are those of the model.
SPEC.json contains:

    kind         "package", "checkpoint" or "linear"
    path         folder of the model
    texts        list of texts, or the name of a file with one text per line
    threads      threads of the model; `toolkit.latency.measure` sets those of libraries in the environment
    latency      false: stop after the first label, to measure only the cold start (default true)
    max_samples  maximum number of timed texts (default 1200)
    budget_s     seconds for the latency pass; each throughput pass gets a third (default 60)

STARTED_NS is the time.monotonic_ns() of the parent right before it started this process; all processes of a machine
share this clock. Without it, cold_start_ms is null.
"""

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

from exporters.loaders.command.timing import peak_rss_mib, percentiles
from toolkit.evaluation.predictor import Predictor
from toolkit.latency.timing import Latency, Throughput, label_indices, time_latency, time_throughput

BATCHES = (8, 32)
HEAVY_MODULES = ("torch", "transformers", "sklearn", "scipy", "pandas", "onnxruntime", "mlflow")
"""Modules whose import is reported. A package should only need its runtime."""


def main(arguments: list[str]) -> None:
    spec = json.loads(Path(arguments[0]).read_text("utf-8"))
    started_ns = int(arguments[1]) if len(arguments) > 1 else None
    print(json.dumps(measure_here(spec, started_ns)))


def measure_here(spec: dict[str, Any], started_ns: int | None) -> dict[str, Any]:
    """Measure one model in this process. Values with too few samples are None."""
    threads = spec.get("threads", 1)
    pin_to_cpus(threads)
    texts = _texts(spec["texts"])
    predictor = load_predictor(spec["kind"], Path(spec["path"]), threads)
    label_indices(predictor, texts[:1])
    first_label_ns = time.monotonic_ns()
    measured: dict[str, Any] = {
        "threads": threads,
        "cold_start_ms": None if started_ns is None else (first_label_ns - started_ns) / 1e6,
    }
    if spec.get("latency", True):
        measured |= _timed(predictor, texts, spec.get("max_samples", 1200), spec.get("budget_s", 60.0))
    imported = [name for name in HEAVY_MODULES if name in sys.modules]
    return measured | {"peak_rss_mib": peak_rss_mib(), "imported": imported}


def load_predictor(kind: str, path: Path, threads: int) -> Predictor:
    """Load the model in `path`, ready to predict."""
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
    raise ValueError(f"unknown kind of model: {kind!r}")


def pin_to_cpus(threads: int) -> None:
    """Pin this process to the first `threads` of its allowed CPUs, if the operating system supports it."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])


def _timed(predictor: Predictor, texts: list[str], max_samples: int, budget_s: float) -> dict[str, Any]:
    samples = time_latency(predictor, texts, Latency(max_samples=max_samples, budget_s=budget_s))
    quantiles = percentiles(samples)
    timed: dict[str, Any] = {"samples": len(samples)}
    timed |= {f"p{q}_ms": quantiles.get(f"p{q}") for q in (50, 90, 99)}
    timed |= {"mean_ms": sum(samples) / len(samples), "max_ms": max(samples)} if quantiles else {}
    for batch in BATCHES:
        rate = time_throughput(predictor, texts, Throughput(batch, budget_s=budget_s / 3))
        timed[f"throughput_b{batch}_rows_s"] = rate
    return timed


def _texts(texts_or_file: list[str] | str) -> list[str]:
    texts = texts_or_file if isinstance(texts_or_file, list) else Path(texts_or_file).read_text("utf-8").splitlines()
    if not texts:
        raise ValueError("no texts to measure on")
    return texts


if __name__ == "__main__":
    main(sys.argv[1:])
