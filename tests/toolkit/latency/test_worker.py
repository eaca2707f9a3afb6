"""A model is measured in its own process, which imports only what the model needs."""

import dataclasses
import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from benchmarks.bench import accuracy, bench
from exporters.loaders.command.timing import peak_rss_mib
from toolkit.config.settings import CorpusSettings
from toolkit.data.corpus import Corpus, corpus_from_table
from toolkit.data.tables import Table
from toolkit.evaluation.metrics import metrics_with_rule
from toolkit.latency.measure import Subject, measure
from toolkit.latency.timing import ColdStart
from toolkit.modeling.linear import LinearModel, save
from toolkit.training.linear_fit import fit_linear
from toolkit.utils.errors import InputError
from toolkit.utils.files import folder_size

KEYS = {
    "threads",
    "samples",
    "p50_ms",
    "p90_ms",
    "p99_ms",
    "mean_ms",
    "max_ms",
    "throughput_b8_rows_s",
    "throughput_b32_rows_s",
    "cold_start_ms",
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
    spec = {"kind": "linear", "path": str(subject.path), "texts": corpus.texts, "threads": 1}
    done = run_worker(spec, tmp_path, str(time.monotonic_ns()))
    found = json.loads(done.stdout)
    assert found.keys() == KEYS
    assert (found["samples"], found["threads"], found["p99_ms"]) == (240, 1, None)
    assert 0 < found["p50_ms"] <= found["p90_ms"] <= found["max_ms"]
    assert 0 < found["mean_ms"] < found["max_ms"]
    assert min(found["cold_start_ms"], found["throughput_b8_rows_s"], found["throughput_b32_rows_s"]) > 0


def test_worker_for_a_linear_baseline_does_not_import_torch(subject: Subject, tmp_path: Path) -> None:
    spec = {"kind": "linear", "path": str(subject.path), "texts": ["a"], "latency": False}
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


def test_worker_reads_texts_from_a_file(subject: Subject, tmp_path: Path) -> None:
    (tmp_path / "texts.txt").write_text("one\ntwo\nthree\n", "utf-8")
    spec = {"kind": "linear", "path": str(subject.path), "texts": str(tmp_path / "texts.txt")}
    assert json.loads(run_worker(spec, tmp_path).stdout)["samples"] == 3


def test_peak_memory_is_at_least_the_current_memory() -> None:
    psutil = pytest.importorskip("psutil")
    assert peak_rss_mib() >= 0.9 * psutil.Process().memory_info().rss / 2**20


def test_peak_memory_does_not_include_the_parent_process(subject: Subject) -> None:
    ballast = np.ones(200 * 2**20, dtype=np.uint8)  # 200 MiB in the parent
    (small,) = measure([subject], ["a"], cold=ColdStart(starts=1))
    del ballast
    again = measure([subject], ["a"], cold=ColdStart(starts=1))[0]
    assert abs(small.peak_rss_mib - again.peak_rss_mib) < 100


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
        measure([Subject("nothing here", "linear", tmp_path, 0)], ["a"], cold=ColdStart(starts=1))


def test_a_model_with_other_labels_is_refused(linear_baseline: LinearModel, corpus: Corpus) -> None:
    other = dataclasses.replace(linear_baseline, labels=("no", "yes"))
    with pytest.raises(InputError, match="labels are no, yes"):
        accuracy(other, corpus, corpus.rows("test"))
