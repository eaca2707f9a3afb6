"""A package that is logged to MLflow is a model that MLflow itself loads, registers and serves."""

from pathlib import Path

import mlflow
import numpy as np
import pandas
import pytest
from mlflow import MlflowClient
from mlflow.entities import LoggedModel

from benchmarks.studies.runtimes.mlflow_way import answer, served
from tests.helpers import Finished, contents
from toolkit import package
from toolkit.tracking import mlflow_runs
from toolkit.tracking.packaged_model import log_package

TEXTS = ["sea", "ভালো না", "🙂", "sun " * 500]


@pytest.fixture
def client(at_home: Finished) -> MlflowClient:
    return MlflowClient(f"sqlite:///{at_home.home}/mlflow.db")


@pytest.fixture
def logged(client: MlflowClient, at_home: Finished) -> LoggedModel:
    run = client.get_run(mlflow_runs.run_of(at_home.run) or "")
    (found,) = client.search_logged_models([run.info.experiment_id], f"source_run_id = '{run.info.run_id}'")
    assert [output.model_id for output in run.outputs.model_outputs] == [found.model_id]
    return found


def folder_of(logged: LoggedModel) -> Path:
    return Path(logged.artifact_location.removeprefix("file://"))


def test_the_model_of_a_run_is_its_package_and_answers_like_it(logged: LoggedModel, at_home: Finished) -> None:
    folder = folder_of(logged)
    assert contents(folder / "artifacts" / at_home.package.name) == contents(at_home.package)
    model = mlflow.pyfunc.load_model(str(folder))
    answers = model.predict(pandas.DataFrame({"text": TEXTS}))
    own = package.load(at_home.package)
    assert list(zip(answers["label"], answers["score"], strict=True)) == own.predict(TEXTS)
    scores = answers[[f"probability {label}" for label in own.labels]].to_numpy()
    np.testing.assert_array_equal(scores, own.predict_proba(TEXTS))
    assert [column.name for column in model.metadata.signature.outputs] == list(answers.columns)
    golden = package.read_manifest(at_home.package)["golden"]
    assert list(model.input_example["text"]) == [entry["text"] for entry in golden[:2]]
    assert not list(folder.rglob("__pycache__"))


def test_the_model_needs_what_the_package_needs(logged: LoggedModel, at_home: Finished) -> None:
    lines = (folder_of(logged) / "requirements.txt").read_text("utf-8").splitlines()
    own = (at_home.package / "requirements.txt").read_text("utf-8").splitlines()
    names = {line.split("=")[0].split("<")[0].split(">")[0] for line in lines}
    assert names == {"mlflow", *(line.split(">")[0] for line in own if not line.startswith("#"))}
    assert "torch" not in names


def test_a_package_is_registered_once_for_each_content(copied: Path, tmp_path: Path) -> None:
    client = MlflowClient(f"sqlite:///{copied}/mlflow.db")
    run = client.get_run(mlflow_runs.run_of(copied / "runs" / "tiny") or "")
    (folder,) = (copied / "models").iterdir()
    for content in ("a", "a", "b"):
        log_package(client, run.info.experiment_id, run.info.run_id, folder, "tiny model", content)
    versions = client.search_model_versions("name = 'tiny model'")
    assert sorted(int(each.version) for each in versions) == [1, 2]
    assert {each.run_id for each in versions} == {run.info.run_id}
    models = client.search_logged_models([run.info.experiment_id], f"source_run_id = '{run.info.run_id}'")
    assert len(models) == 3  # with the one that the run logged itself


@pytest.mark.slow
def test_mlflow_serves_a_package(logged: LoggedModel, at_home: Finished) -> None:
    with served(folder_of(logged)) as address:
        answers = answer(address, TEXTS)
    own = package.load(at_home.package).predict(TEXTS)
    assert [(each["label"], pytest.approx(each["score"])) for each in answers] == own
