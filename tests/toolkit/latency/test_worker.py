"""A model is measured in its own process, which imports only what the model needs."""

import dataclasses
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.bench import accuracy, bench
from exporters.loaders.command.timing import peak_rss_mib
from toolkit.config.settings import CorpusSettings
from toolkit.data.corpus import Corpus, corpus_from_table
from toolkit.data.tables import Table
from toolkit.evaluation.metrics import metrics_with_rule
from toolkit.latency.limits import CpuTarget
from toolkit.latency.measure import Subject, measure
from toolkit.latency.scenarios import Scenario
from toolkit.modeling.linear import LinearModel, save
from toolkit.training.linear_fit import fit_linear
from toolkit.utils.errors import InputError
from toolkit.utils.files import folder_size

KEYS = {
    "threads",
    "samples_ms",
    "throughput_b8_rows_s",
    "throughput_b32_rows_s",
    "cold_start_ms",
    "start_ms",
    "import_ms",
    "load_ms",
    "first_label_ms",
    "encode_ms",
    "energy_mj",
    "rss_mib",
    "peak_rss_mib",
    "imported",
}


@pytest.fixture(scope="module")
def corpus() -> Corpus:
    texts = [f"{('sea', 'sun')[i % 2]} number {i} of the made-up texts" for i in range(240)]
    table = Table("made-up", {"text": texts, "label": [("sea", "sun")[i % 2] for i in range(240)]})
    return corpus_from_table(table, CorpusSettings(folds=2, slice=("0:120",)))


@pytest.fixture(scope="module")
def linear_baseline(corpus: Corpus) -> LinearModel:
    return fit_linear(corpus).model


@pytest.fixture(scope="module")
def subject(linear_baseline: LinearModel, tmp_path_factory: pytest.TempPathFactory) -> Subject:
    folder = tmp_path_factory.mktemp("linear")
    save(linear_baseline, folder)
    return Subject("linear baseline", "linear", folder, folder_size(folder))


def run_worker(spec: dict[str, object], folder: Path, *more: str) -> subprocess.CompletedProcess[str]:
    (folder / "spec.json").write_text(json.dumps(spec), "utf-8")
    command = [sys.executable, "-m", "toolkit.latency.worker", str(folder / "spec.json"), *more]
    return subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[3])


def test_worker_prints_all_measurements_as_one_line_of_json(subject: Subject, corpus: Corpus, tmp_path: Path) -> None:
    spec = {"kind": "linear", "path": str(subject.path), "texts": corpus.texts, "batches": corpus.texts, "threads": 1}
    done = run_worker(spec, tmp_path, str(time.monotonic_ns()))
    found = json.loads(done.stdout)
    assert found.keys() == KEYS
    assert (len(found["samples_ms"]), found["threads"]) == (240, 1)
    assert (
        min(*found["samples_ms"], found["cold_start_ms"], found["throughput_b8_rows_s"], found["throughput_b32_rows_s"])
        > 0
    )
    parts = [found[name] for name in ("start_ms", "import_ms", "load_ms", "first_label_ms")]
    assert min(parts) > 0
    assert sum(parts) == pytest.approx(found["cold_start_ms"])
    assert 0 < found["rss_mib"] <= found["peak_rss_mib"]


def test_worker_for_a_linear_baseline_does_not_import_torch(subject: Subject, tmp_path: Path) -> None:
    spec = {"kind": "linear", "path": str(subject.path), "texts": ["a"]}
    found = json.loads(run_worker(spec, tmp_path).stdout)
    assert set(found["imported"]) <= {"sklearn", "scipy", "pandas"}
    assert found["cold_start_ms"] is None


def test_worker_itself_imports_no_heavy_module() -> None:
    """So that a package is measured with only its own runtime."""
    code = (
        "import sys, toolkit.latency.worker as worker; "
        "print([name for name in worker.HEAVY_MODULES if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=Path(__file__).parents[3])
    assert done.stdout.strip() == "[]", done.stderr


def test_every_round_has_its_own_texts_and_they_are_the_same_for_all_models(
    subject: Subject, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[str, dict[str, Any]]] = []

    def worker(model: Subject, spec: dict[str, Any]) -> dict[str, Any]:
        seen.append((model.name, spec))
        rates = {"throughput_b8_rows_s": None, "throughput_b32_rows_s": 9.0 if "batches" in spec else None}
        milliseconds = [float(len(seen))] * len(spec["texts"])
        cold = 100.0 + len(seen)
        peak = {"peak_rss_mib": 50.0 - len(seen), "imported": [], "threads": spec["threads"]}
        return {"samples_ms": milliseconds, "cold_start_ms": cold, **rates, **peak}

    monkeypatch.setattr("toolkit.latency.measure._worker", worker)
    texts = [f"text {i}" for i in range(23)]
    other = dataclasses.replace(subject, name="other")
    first, second = measure([subject, other], texts, rounds=3)
    assert [name for name, _ in seen] == [subject.name, "other"] * 3  # in turns
    rounds = [spec["texts"] for name, spec in seen if name == "other"]
    assert rounds == [spec["texts"] for name, spec in seen if name == subject.name]
    assert sorted(text for each in rounds for text in each) == sorted(texts)
    for texts_of_round, (_, spec) in zip(rounds, seen[1::2], strict=True):
        assert spec["warm_up"]
        assert not {*spec["warm_up"]} & {*texts_of_round}
    assert [len(each) for each in first.rounds_ms] == [8, 8, 7]
    assert (first.samples, first.mean_ms) == (23, pytest.approx((8 * 1 + 8 * 3 + 7 * 5) / 23))
    assert (first.cold_start_ms, second.cold_start_ms) == (103, 104)  # medians of three processes
    assert (first.peak_rss_mib, first.throughput_b32_rows_s) == (49, 9.0)


def answered(spec: dict[str, Any], **figures: Any) -> dict[str, Any]:
    return {"threads": spec["threads"], "cold_start_ms": 1.0, "peak_rss_mib": 50.0, "imported": []} | figures


def test_offline_rounds_use_the_batch_of_the_first_and_are_compared_by_their_rates(
    subject: Subject, monkeypatch: pytest.MonkeyPatch
) -> None:
    batches = []

    def worker(model: Subject, spec: dict[str, Any]) -> dict[str, Any]:
        batches.append(spec.get("batch"))
        return answered(spec, rate_texts_s=(100.0, 200.0)[len(batches) - 1], batch=32, queries=len(spec["all_texts"]))

    monkeypatch.setattr("toolkit.latency.measure._worker", worker)
    (found,) = measure([subject], [f"text {i}" for i in range(23)], rounds=2, scenario=Scenario("offline"))
    assert batches == [None, 32]
    assert (found.batch, found.rates_texts_s, found.samples) == (32, (100.0, 200.0), 46)
    assert found.rounds_ms_per_text == ((10.0,), (5.0,))
    assert (found.ms_per_text, found.p50_ms) == (7.5, None)


def test_server_rounds_start_at_the_rate_of_the_round_before(subject: Subject, monkeypatch: pytest.MonkeyPatch) -> None:
    specs = []

    def worker(model: Subject, spec: dict[str, Any]) -> dict[str, Any]:
        specs.append(spec)
        rate = None if spec["p99_ms"] < 1 else 50.0 * len(specs)
        return answered(spec, rate_texts_s=rate, samples_ms=[] if rate is None else [1.0] * 70, queries=700)

    monkeypatch.setattr("toolkit.latency.measure._worker", worker)
    texts = [f"text {i}" for i in range(23)]
    (found,) = measure([subject], texts, scenario=Scenario("server", 20.0))
    assert [spec.get("rate") for spec in specs] == [None, 50.0, 100.0]
    assert len({spec["seed"] for spec in specs}) == 3
    assert (found.rates_texts_s, found.samples, found.p99_limit_ms) == ((50.0, 100.0, 150.0), 2100, 20.0)
    assert (found.p50_ms, found.p90_ms, found.p99_ms) == (1.0, 1.0, None)
    (none,) = measure([subject], texts, scenario=Scenario("server", 0.5))
    assert (none.rates_texts_s, none.ms_per_text, none.p50_ms) == ((), None, None)


def test_a_model_that_needs_more_memory_than_the_target_has_no_figures(
    subject: Subject, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(command: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        spec = json.loads(Path(command[-2]).read_text("utf-8"))
        assert spec["memory_mib"] == 64
        if "small" in spec["path"]:
            figures = json.dumps(answered(spec, samples_ms=[1.0] * 30, peak_rss_mib=60.0))
            return subprocess.CompletedProcess(command, 0, figures, "")
        if "large" in spec["path"]:
            return subprocess.CompletedProcess(command, 1, "", "MemoryError: Unable to allocate 2. GiB")
        return subprocess.CompletedProcess(command, 0, json.dumps(answered(spec, peak_rss_mib=65.0)), "")

    monkeypatch.setattr("toolkit.latency.measure.subprocess.run", run)
    monkeypatch.setattr("toolkit.latency.measure.bare_python_mib", lambda: 9.0)
    models = [dataclasses.replace(subject, name=name, path=Path(name)) for name in ("small", "large", "peak")]
    lines: list[str] = []
    target = CpuTarget("tiny", "a tiny machine", memory_mib=64)
    found = measure(models, ["a"], progress=lines.append, rounds=1, target=target)
    assert [each.fits for each in found] == [True, False, False]
    assert [each.p50_ms for each in found] == [1.0, None, None]
    assert "large: needs more than the 64 MiB of the target" in lines
    assert "peak: used 65 MiB, more than the 64 MiB of the target" in lines


def test_peak_memory_is_at_least_the_current_memory() -> None:
    psutil = pytest.importorskip("psutil")
    assert peak_rss_mib() >= 0.9 * psutil.Process().memory_info().rss / 2**20


@pytest.mark.slow
def test_peak_memory_does_not_include_the_parent_process(subject: Subject) -> None:
    ballast = np.ones(200 * 2**20, dtype=np.uint8)  # 200 MiB in the parent
    (small,) = measure([subject], ["a"], rounds=1)
    del ballast
    again = measure([subject], ["a"], rounds=1)[0]
    assert abs(small.peak_rss_mib - again.peak_rss_mib) < 100


@pytest.mark.slow
def test_bench_measures_speed_size_and_accuracy_on_the_test_rows(
    subject: Subject, linear_baseline: LinearModel, corpus: Corpus
) -> None:
    progress: list[str] = []
    (found,) = bench([subject], corpus, progress=progress.append)
    test = corpus.rows("test")
    expected = metrics_with_rule(
        corpus.labels[test],
        linear_baseline.predict_proba(corpus.take(test)),
        linear_baseline.rule,
        corpus.label_names,
    )
    assert found.metrics == expected
    assert found.slices.keys() == {"rows 0:120"}
    assert (found.samples, found.size_bytes) == (len(test), subject.size_bytes)
    assert any("accuracy" in line for line in progress)


def test_a_failing_worker_shows_the_end_of_its_errors(tmp_path: Path) -> None:
    with pytest.raises(
        RuntimeError, match=r"nothing here: the measuring worker failed[\s\S]*not a saved linear baseline"
    ):
        measure([Subject("nothing here", "linear", tmp_path, 0)], ["a"], rounds=1)


def test_a_model_with_other_labels_is_refused(linear_baseline: LinearModel, corpus: Corpus) -> None:
    other = dataclasses.replace(linear_baseline, labels=("no", "yes"))
    with pytest.raises(InputError, match="labels are no, yes"):
        accuracy(other, corpus, corpus.rows("test"))
