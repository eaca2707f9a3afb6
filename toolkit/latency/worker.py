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
    scenario     "single-stream", "offline" or "server", see `toolkit.latency.scenarios` (default "single-stream")
    all_texts    texts of the scenarios offline and server
    batch        offline: texts per batch; the best one is searched if it is missing
    p99_ms       server: bound of the 99th percentile
    rate, seed   server: rate to start the search with (default: predicted), seed of arrivals and texts
    memory_mib   limit of the private memory of this process (default: none)

STARTED_NS is the time.monotonic_ns() of the parent right before it started this process; all processes of a machine
share this clock. Without it, cold_start_ms and start_ms are null.
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
from toolkit.latency.cold_start import ImportClock, resident_mib
from toolkit.latency.early_stopping import allowed_above
from toolkit.latency.energy import counters, joules_since
from toolkit.latency.foreign import ONNX, PYTHON, load_foreign
from toolkit.latency.limits import limit_memory
from toolkit.latency.scenarios import (
    OFFLINE,
    SERVER,
    SINGLE_STREAM,
    best_batch,
    offline_rate,
    server_rate,
    takes_batches,
)
from toolkit.latency.timing import (
    Latency,
    Throughput,
    WarmUp,
    labeling,
    time_encoding,
    time_latency,
    time_throughput,
    warm_up,
)

BATCHES = (8, 32)
SERVICE_TEXTS, MOST_SAMPLES = 400, 1000
"""Texts timed one by one before the search for a rate, and latencies of a server run that are kept: evenly spaced in
their order of size."""
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
    if spec.get("memory_mib") is not None:
        limit_memory(spec["memory_mib"])
    if not spec["texts"]:
        raise ValueError("no texts to measure on")
    predictor, measured = _cold_start(spec, threads, started_ns)
    warm_up(predictor, spec.get("warm_up", []), WarmUp())
    measured |= {"threads": threads} | _SCENARIOS[spec.get("scenario", SINGLE_STREAM)](predictor, spec)
    imported = [name for name in HEAVY_MODULES if name in sys.modules]
    if "labeled" in spec:
        measured["labels"] = list(map(str, labeling(predictor)(spec["labeled"])))
    return measured | {"peak_rss_mib": peak_rss_mib(), "imported": imported}


def _cold_start(spec: dict[str, Any], threads: int, started_ns: int | None) -> tuple[Predictor, dict[str, Any]]:
    """Return the predictor, ready and used once, and where the time went. The parts add up to the cold start."""
    begun_ns = time.monotonic_ns()
    with ImportClock() as imports:
        predictor = load_predictor(spec["kind"], Path(spec["path"]), threads)
        loaded_ns, import_ns = time.monotonic_ns(), imports.ns
        labeling(predictor)(spec["texts"][:1])
        first_ns = time.monotonic_ns()
    late_ns = imports.ns - import_ns  # what the first label imports
    return predictor, {
        "cold_start_ms": None if started_ns is None else (first_ns - started_ns) / 1e6,
        "start_ms": None if started_ns is None else (begun_ns - started_ns) / 1e6,
        "import_ms": imports.ns / 1e6,
        "load_ms": (loaded_ns - begun_ns - import_ns) / 1e6,
        "first_label_ms": (first_ns - loaded_ns - late_ns) / 1e6,
        "rss_mib": resident_mib(),
    }


def _single_stream(predictor: Predictor, spec: dict[str, Any]) -> dict[str, Any]:
    texts, budget_s = spec["texts"], spec.get("budget_s", 60.0)
    before = counters()
    samples = time_latency(predictor, texts, Latency(max_samples=len(texts), budget_s=budget_s, warmup=0))
    joules = joules_since(before)
    measured: dict[str, Any] = {
        "samples_ms": samples,
        "energy_mj": None if joules is None else 1000 * joules / len(samples),
        "encode_ms": time_encoding(predictor, texts[: len(samples)]),
    }
    for size in BATCHES:
        rate = time_throughput(predictor, spec.get("batches", []), Throughput(size, budget_s=budget_s / 3))
        measured[f"throughput_b{size}_rows_s"] = rate
    return measured


def _offline(predictor: Predictor, spec: dict[str, Any]) -> dict[str, Any]:
    label, texts = labeling(predictor), spec["all_texts"]
    batch = spec.get("batch") or (best_batch(label, texts) if takes_batches(predictor) else None)
    before = counters()
    passed = offline_rate(label, texts, batch)
    joules = joules_since(before)
    return {
        "rate_texts_s": passed.rate,
        "batch": batch,
        "queries": passed.texts,
        "energy_mj": None if joules is None else 1000 * joules / passed.texts,
    }


def _server(predictor: Predictor, spec: dict[str, Any]) -> dict[str, Any]:
    label, texts = labeling(predictor), spec["texts"]
    service_ms = time_latency(predictor, texts[:SERVICE_TEXTS], Latency(budget_s=10.0, warmup=0))
    bound_s, guess = spec["p99_ms"] / 1000, spec.get("rate")
    service_s = [each / 1000 for each in service_ms]
    found, runs = server_rate(label, spec["all_texts"], bound_s, service_s, spec.get("seed", 0), guess)
    measured: dict[str, Any] = {"runs": [[run.rate, run.queries, run.above, run.holds] for run in runs]}
    if found is None:
        return measured | {"rate_texts_s": None, "samples_ms": [], "queries": 0}
    latencies = sorted(found.latencies_s)
    kept = min(len(latencies), MOST_SAMPLES)
    spaced = [latencies[round(i * (len(latencies) - 1) / (kept - 1))] for i in range(kept)]
    return measured | {
        "rate_texts_s": found.rate,
        "samples_ms": [1000 * each for each in spaced],
        "queries": found.queries,
        "p99_bound_ms": 1000 * latencies[-1 - allowed_above(len(latencies), 99)],
    }


_SCENARIOS = {SINGLE_STREAM: _single_stream, OFFLINE: _offline, SERVER: _server}


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
