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
from toolkit.latency.cold_start import bare_python_mib
from toolkit.latency.limits import CpuTarget, environment
from toolkit.latency.scenarios import ONE_BY_ONE, SERVER, SINGLE_STREAM, Scenario
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
SERVER_ROUNDS = 3
"""Of the scenario server, each of which searches the highest rate again, from that of the round before."""
OUT_OF_MEMORY = ("MemoryError", "bad_alloc", "an't allocate memory", "annot allocate memory", "failed to map segment")
"""How a worker ends that needs more than its limit."""
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
    rounds_ms: tuple[tuple[float, ...], ...] = ()
    """Milliseconds of each timed text, by round. Empty in files that are older, and of other machines.

    Of the scenario server, latencies at the highest rate, evenly spaced in their order of size.
    """
    scenario: str = SINGLE_STREAM
    rates_texts_s: tuple[float, ...] = ()
    """Scenarios offline and server: texts per second of each round. Empty if no rate holds the bound."""
    batch: int | None = None
    """Offline: the batch size, the fastest; None if the model decides itself."""
    p99_limit_ms: float | None = None
    """Server: the bound that the 99th percentile has to hold."""
    encode_ms: float | None = None
    """Mean time for the token ids of a text, where the model makes them apart from the rest."""
    start_ms: float | None = None
    import_ms: float | None = None
    load_ms: float | None = None
    first_label_ms: float | None = None
    """Parts of the cold start, which add up to it: Python and the measuring code, imports of the model, its files, and
    the first label."""
    rss_mib: float | None = None
    """Resident memory after the first label."""
    python_mib: float | None = None
    """Peak resident memory of a Python that does nothing."""
    energy_mj: float | None = None
    """Millijoules of the processor package per text, from RAPL."""
    parts_bytes: dict[str, int] = field(default_factory=dict)
    """Size by part of the model, and of the distributions that it needs (`runtime`)."""
    fits: bool = True
    """Whether it stayed within the memory of the CPU target."""

    @property
    def rounds_ms_per_text(self) -> tuple[tuple[float, ...], ...]:
        """Milliseconds per text by round, which models are compared by: latencies, or the inverse of the rates."""
        return tuple((1000 / rate,) for rate in self.rates_texts_s) if self.rates_texts_s else self.rounds_ms

    @property
    def ms_per_text(self) -> float | None:
        """Mean milliseconds per text: of one text by itself, or the inverse of the rate."""
        if self.scenario != SINGLE_STREAM:
            costs = [1000 / rate for rate in self.rates_texts_s]
            return statistics.mean(costs) if costs else None
        return self.mean_ms


class DoesNotFit(Exception):
    """A worker needed more memory than its target has."""


def measure(
    models: Sequence[Subject],
    texts: Sequence[str],
    threads: int = 1,
    progress: Callable[[str], None] = lambda line: None,
    budget_s: float = 60.0,
    rounds: int = ROUNDS,
    scenario: Scenario = ONE_BY_ONE,
    target: CpuTarget | None = None,
) -> list[Measurement]:
    """Measure speed, memory and size of each model on `texts`, one process after the other, in `rounds` turns.

    The cold start is the median over the rounds; throughput is measured in the last one.
    progress: called with a line of text before each step. budget_s: time limit of the latency pass of a model.
    target: the machine to imitate; a model that needs more than its memory has no figures.
    Raises: RuntimeError with the end of the worker's error output if a worker fails.
    """
    shuffled = [texts[i] for i in fixed_order(texts)]
    rounds = min(rounds, SERVER_ROUNDS) if scenario.name == SERVER else rounds
    parts = [part for part in (shuffled[:MAX_TEXTS][i::rounds] for i in range(rounds)) if part]
    found: list[list[dict[str, Any]]] = [[] for _ in models]
    too_large: set[int] = set()
    for number, part in enumerate(parts):
        spec = {"texts": part, "warm_up": parts[number - 1][:WARM_UP_TEXTS], "threads": threads}
        spec |= {"budget_s": budget_s / len(parts), "scenario": scenario.name}
        if target is not None:
            spec |= {"memory_mib": target.memory_mib, "variables": environment(target)}
        if scenario.name != SINGLE_STREAM:
            spec |= {"all_texts": shuffled[:MAX_TEXTS], "p99_ms": scenario.p99_ms, "seed": 1000 * number}
        elif number == len(parts) - 1:
            spec |= {"batches": shuffled[:BATCH_TEXTS]}
        for place, (model, results) in enumerate(zip(models, found, strict=True)):
            if place in too_large:
                continue
            progress(f"{model.name}: round {number + 1} of {len(parts)}, {threads} thread{'s' * (threads > 1)}")
            own: dict[str, Any] = {"kind": model.kind, "path": str(model.path)}
            if results:  # what the round before has found
                own |= {"batch": results[-1].get("batch"), "rate": results[-1].get("rate_texts_s")}
            try:
                results.append(_worker(model, spec | own))
            except DoesNotFit as error:
                progress(f"{model.name}: {error}")
                too_large.add(place)
    bare = bare_python_mib()
    return [
        _too_large(model, threads, scenario) if place in too_large else _measurement(model, results, scenario, bare)
        for place, (model, results) in enumerate(zip(models, found, strict=True))
    ]


def _too_large(model: Subject, threads: int, scenario: Scenario) -> Measurement:
    """Return a measurement without figures."""
    nothing: dict[str, Any] = dict.fromkeys(
        ("p50_ms", "p90_ms", "p99_ms", "throughput_b8_rows_s", "throughput_b32_rows_s", "cold_start_ms", "peak_rss_mib")
    )
    return Measurement(
        model.name, model.kind, model.size_bytes, threads, 0, **nothing, scenario=scenario.name, fits=False
    )


def _measurement(
    model: Subject, rounds: Sequence[dict[str, Any]], scenario: Scenario, bare: float | None
) -> Measurement:
    """Return the measurement of a model from what its workers printed. bare: memory of Python alone."""
    samples = [sample for each in rounds for sample in each.get("samples_ms", ())]
    quantiles, last = percentiles(samples), rounds[-1]
    peaks = [each["peak_rss_mib"] for each in rounds if each["peak_rss_mib"] is not None]
    rates: list[Any] = [each.get("rate_texts_s") for each in rounds]

    def median(name: str) -> float | None:
        known = [each[name] for each in rounds if each.get(name) is not None]
        return statistics.median(known) if known else None

    medians: dict[str, Any] = {name: median(name) for name in _MEDIANS}
    return Measurement(
        name=model.name,
        kind=model.kind,
        size_bytes=model.size_bytes,
        threads=last["threads"],
        samples=sum(each.get("queries", len(each.get("samples_ms", ()))) for each in rounds),
        p50_ms=quantiles.get("p50"),
        p90_ms=quantiles.get("p90"),
        p99_ms=quantiles.get("p99"),
        throughput_b8_rows_s=last.get("throughput_b8_rows_s"),
        throughput_b32_rows_s=last.get("throughput_b32_rows_s"),
        cold_start_ms=median("cold_start_ms"),
        peak_rss_mib=max(peaks, default=None),
        imported=tuple(last["imported"]),
        mean_ms=statistics.mean(samples) if quantiles else None,
        max_ms=max(samples) if quantiles else None,
        rounds_ms=tuple(tuple(each.get("samples_ms", ())) for each in rounds) if samples else (),
        scenario=scenario.name,
        rates_texts_s=() if None in rates else tuple(rates),
        batch=last.get("batch"),
        p99_limit_ms=scenario.p99_ms if scenario.name == SERVER else None,
        python_mib=bare,
        **medians,
    )


_MEDIANS = ("encode_ms", "start_ms", "import_ms", "load_ms", "first_label_ms", "rss_mib", "energy_mj")


def _worker(model: Subject, spec: dict[str, Any]) -> dict[str, Any]:
    """Run a worker and return the measurements that it prints. The spec is passed in a temporary file.

    spec: may have `variables` of the environment, besides those for threads.
    Raises: DoesNotFit if it needs more memory than the spec allows, RuntimeError if it fails.
    """
    environ = os.environ | thread_environment(spec["threads"]) | spec.get("variables", {})
    with scratch_folder() as folder:
        file = folder / "spec.json"
        file.write_text(json.dumps(spec), "utf-8")
        command = [sys.executable, "-P", "-m", "toolkit.latency.worker", str(file), str(time.monotonic_ns())]
        done = subprocess.run(command, env=environ, capture_output=True, text=True, encoding="utf-8")
    limit = spec.get("memory_mib")
    if done.returncode != 0:
        if limit is not None and any(sign in done.stderr for sign in OUT_OF_MEMORY):
            raise DoesNotFit(f"needs more than the {limit:,} MiB of the target")
        raise RuntimeError(f"{model.name}: the measuring worker failed ({done.returncode}):\n{done.stderr[-2000:]}")
    found = json.loads(done.stdout.splitlines()[-1])
    if limit is not None and (found["peak_rss_mib"] or 0) > limit:
        raise DoesNotFit(f"used {found['peak_rss_mib']:,.0f} MiB, more than the {limit:,} MiB of the target")
    return found


def thread_environment(threads: int) -> dict[str, str]:
    """Return the environment variables of a process that measures on `threads` threads, and finds hbt."""
    found = {name: str(threads) for name in _THREAD_VARIABLES}
    found |= {"TOKENIZERS_PARALLELISM": "true" if threads > 1 else "false"}
    return found | {"PYTHONPATH": os.pathsep.join(filter(None, [str(_PROJECT), os.environ.get("PYTHONPATH")]))}


def median_latency_ms(kind: Kind, path: Path, texts: Sequence[str]) -> float | None:
    """Return the median end-to-end latency on one thread over MEDIAN_TEXTS of `texts`, measured in its own process."""
    subject = Subject(path.name, kind, path, 0)
    return measure([subject], texts[:MEDIAN_TEXTS], threads=1, budget_s=MEDIAN_BUDGET_S, rounds=1)[0].p50_ms
