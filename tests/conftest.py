"""What many tests share: a toy corpus, cheap classifiers, and one tiny pipeline that is run once a session."""

import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

os.environ["HF_HUB_OFFLINE"] = "1"  # before transformers is imported: no test may wait for a network
if "PYTEST_XDIST_WORKER" in os.environ:  # one worker a core: more threads would only wait for each other
    os.environ["OMP_NUM_THREADS"] = "1"

import pytest

from tests.helpers import TINY, Finished, Hbt, examples, tiny_recipe, write_comments
from toolkit import cli
from toolkit.config.settings import CorpusSettings, TrainingSettings
from toolkit.data.corpus import Corpus, corpus_from_table
from toolkit.data.tables import Table
from toolkit.evaluation.decision_rule import DecisionRule
from toolkit.evaluation.standing import Standing
from toolkit.modeling.classifier import Classifier
from toolkit.modeling.encoders import build_classifier
from toolkit.training.trainer import fit
from toolkit.workflows.pipeline import run_pipeline


@pytest.fixture(scope="session", autouse=True)
def plain_linear_baseline() -> Iterator[None]:
    """The linear baseline has one setting, not nine: many tests fit one. test_linear_fit.py has the search."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("toolkit.training.linear_fit.STEPS", ())
        yield


@pytest.fixture(scope="session", autouse=True)
def little_robustness() -> Iterator[None]:
    """Robustness is measured on 8 rows: most packages of the tests have nothing to do with it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("toolkit.export.reliability.checks.ROWS_FAST", 8)
        patch.setattr("toolkit.export.reliability.checks.ROWS_SLOW", 8)
        yield


@pytest.fixture(scope="session", autouse=True)
def no_clock_decides() -> Iterator[None]:
    """No candidate fails for its latency on a busy machine."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("toolkit.export.candidates.significantly_slower", lambda *_: False)
        yield


@pytest.fixture(scope="session", autouse=True)
def no_waiting_for_the_disk() -> Iterator[None]:
    """Neither files nor MLflow's databases are forced to the disk: no test ends with a power failure."""
    from sqlalchemy import Engine, event

    def connected(connection: Any, _: object) -> None:
        connection.execute("PRAGMA synchronous = OFF")

    event.listen(Engine, "connect", connected)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("toolkit.utils.files.sync", lambda _: None)
        yield
    event.remove(Engine, "connect", connected)


@pytest.fixture(scope="session", autouse=True)
def toy_models_ship() -> Iterator[None]:
    """No package needs --force because a toy model is worse than the linear baseline or near chance."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Standing, "needs_force", False)
        yield


@pytest.fixture(scope="session")
def toy() -> Corpus:
    """240 rows that any model learns: one word tells the label."""
    texts = [f"{('sea', 'sun')[i % 2]} number {i} of the made-up texts" for i in range(240)]
    labels = [("sea", "sun")[i % 2] for i in range(240)]
    return corpus_from_table(Table("made-up", {"text": texts, "label": labels}), CorpusSettings(folds=2))


@pytest.fixture(scope="session")
def classifier(toy: Corpus) -> Classifier:
    """Random weights. Do not train it."""
    return build_classifier(TINY, toy.label_names, toy.take(toy.rows("train")), seed=0)


@pytest.fixture(scope="session")
def learned(toy: Corpus, tmp_path_factory: pytest.TempPathFactory) -> Classifier:
    """A classifier that knows the toy corpus. Do not train it."""
    made = build_classifier(TINY, toy.label_names, toy.take(toy.rows("train")), seed=0)
    how = TrainingSettings(epochs=4, learning_rate=5e-3, batch_size=16)
    fit(made, examples(toy, "train"), examples(toy, "validation"), how, 0, tmp_path_factory.mktemp("learned"))
    return made.with_rule(DecisionRule(0.45))


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory, empty_store: Path) -> Iterator[Finished]:
    """One `baseline_kd_quant` run, whose latencies are not measured. Do not change its files: copy them."""
    home = tmp_path_factory.mktemp("finished")
    write_comments(home / "comments.csv")
    shutil.copy(empty_store, home / "mlflow.db")
    recipe = tiny_recipe()
    with pytest.MonkeyPatch.context() as patch:
        settle(home, patch)
        patch.delenv("MLFLOW_TRACKING_URI")
        outcome = run_pipeline(recipe)
    yield Finished(home, recipe, outcome)


@pytest.fixture
def at_home(finished: Finished, monkeypatch: pytest.MonkeyPatch) -> Iterator[Finished]:
    """The finished run, with its folder as the current one. A test that changes a run or a package fails."""
    monkeypatch.chdir(finished.home)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    there = runs_and_packages(finished.home)
    yield finished
    assert runs_and_packages(finished.home) == there, "changes the shared run: use the fixture `copied`"


def runs_and_packages(home: Path) -> dict[Path, int]:
    """The files of all stages and packages, each with the time of its last change."""
    files = [*(home / "runs").rglob("*"), *(home / "models").rglob("*")]
    written_again = {"outputs", "mlflow.json", "tracking.jsonl", "summary.json"}  # when a finished run is resumed
    files = [file for file in files if file.is_file() and not written_again & set(file.parts)]
    return {file: file.stat().st_mtime_ns for file in files}


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An MLflow store without runs. A copy takes no time; MLflow needs a second to set up a new one."""
    from mlflow import MlflowClient

    file = tmp_path_factory.mktemp("store") / "mlflow.db"
    MlflowClient(f"sqlite:///{file}").search_experiments()
    return file


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, empty_store: Path) -> Path:
    """A current folder with nothing but comments.csv, and a store of its own; latency is not measured there."""
    write_comments(tmp_path / "comments.csv", 240)
    shutil.copy(empty_store, tmp_path / "mlflow.db")
    settle(tmp_path, monkeypatch)
    return tmp_path


@pytest.fixture
def copied(finished: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the finished run in the current folder, with its store; latency is not measured there."""
    home = tmp_path / "home"
    shutil.copytree(finished.home, home)
    settle(home, monkeypatch)
    return home


def settle(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(home)
    # Not the default: MLflow keeps one connection a process to a store of that name, whatever the current folder.
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{home}/mlflow.db")
    for module in ("workflows.run_summary", "export.stage"):
        monkeypatch.setattr(f"toolkit.{module}.median_latency_ms", lambda *_: 1.0)


@pytest.fixture
def hbt(monkeypatch: pytest.MonkeyPatch) -> Hbt:
    """Run the command line in this process; returns its exit code."""

    def call(*arguments: str) -> int:
        monkeypatch.setattr(sys, "argv", ["hbt", *arguments])
        try:
            cli.main()
        except SystemExit as stop:
            return int(stop.code or 0)
        return 0

    return call
