import json
import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest
from mlflow import MlflowClient
from mlflow.entities import Run

from tests.helpers import Finished
from toolkit.config.settings import RunSettings
from toolkit.stages.result import StageResult
from toolkit.tracking import mlflow_runs as tracking
from toolkit.utils.errors import InputError
from toolkit.workflows.pipeline import run_pipeline

PARAMETERS = [
    "pipeline", "pipeline_description", "enable_kd", "enable_pruning", "enable_quantization", "model_path",
    "student_path", "batch_size", "learning_rate", "epochs", "kd_alpha", "kd_temperature", "kd_method",
    "quant_method", "quant_dtype", "final_model_path",
]  # fmt: skip
SETTINGS = [
    "data", "text_column", "label_column", "label_names", "stratification", "stratify_by", "slice", "folds",
    "seed", "data_fraction", "model", "pooling", "max_length", "dropout", "freeze_base", "weight_decay",
    "warmup_ratio", "scheduler", "gradient_clip_norm", "early_stopping_patience", "loss", "class_weights",
    "device", "student", "teacher", "teacher_folds", "blend_floor", "unlabelled", "augment", "kd_method",
    "hidden_loss_weight", "attention_loss_weight", "target", "trim_vocabulary", "author", "experiment", "name",
    "prune_method", "prune_sparsity", "prune_to_ms", "prune_to_mb", "prune_steps", "prune_layers", "prune_schedule",
    "prune_start_epoch", "prune_end_epoch", "prune_frequency", "calib_samples", "fine_tune_after_prune",
    "fine_tune_epochs",
]  # fmt: skip
METRICS = [
    "teacher_total_params", "teacher_size_mb", "kd_accuracy", "kd_macro_f1", "kd_f1_hate", "kd_f1_non_hate",
    "kd_roc_auc", "kd_best_threshold", "kd_agreement", "student_total_params", "student_size_mb",
    "compression_ratio", "size_ratio", "quantization_accuracy", "quantization_macro_f1", "quantization_f1_hate",
    "quantization_f1_non_hate", "quantization_roc_auc", "quantization_best_threshold", "quantization_size_mb",
]  # fmt: skip
RUN = RunSettings(author="tester", experiment="experiment")
EPOCH_METRICS = ["accuracy", "macro_f1", "roc_auc", "loss"]


@pytest.fixture
def client(at_home: Finished) -> MlflowClient:
    return MlflowClient(f"sqlite:///{at_home.home}/mlflow.db")


@pytest.fixture
def parent(at_home: Finished, client: MlflowClient) -> Run:
    run_id = tracking.run_of(at_home.run)
    assert run_id is not None
    return client.get_run(run_id)


def children(client: MlflowClient, parent: Run) -> dict[str, Run]:
    query = f"tags.mlflow.parentRunId = '{parent.info.run_id}'"
    return {run.info.run_name: run for run in client.search_runs([parent.info.experiment_id], query)}


def artifacts(client: MlflowClient, run_id: str, folder: str | None = None) -> list[str]:
    found = []
    for entry in client.list_artifacts(run_id, folder):
        found += artifacts(client, run_id, entry.path) if entry.is_dir else [entry.path]
    return sorted(found)


def test_the_parent_run_is_named_after_its_folder_author_and_pipeline(parent: Run, at_home: Finished) -> None:
    assert parent.info.run_name == f"{at_home.run.name} (tester_baseline_kd_quant)"
    assert parent.info.status == "FINISHED"


def test_every_setting_is_a_parameter(parent: Run) -> None:
    assert set(PARAMETERS) | set(SETTINGS) <= set(parent.data.params)


def test_parameters_have_the_values_of_the_recipe(parent: Run, at_home: Finished) -> None:
    shown = {name: parent.data.params[name] for name in PARAMETERS}
    assert shown == {
        "pipeline": "baseline_kd_quant",
        "pipeline_description": "k-fold fine-tuning, distillation into a student, then export and quantization",
        "enable_kd": "True",
        "enable_pruning": "False",
        "enable_quantization": "True",
        "model_path": "shape:2x32",
        "student_path": "layers:1",
        "batch_size": "32",
        "learning_rate": "0.001",
        "epochs": "2",
        "kd_alpha": "0.7",
        "kd_temperature": "4.0",
        "kd_method": "logit",
        "quant_method": "search fast",
        "quant_dtype": "int8",
        "final_model_path": "models/tiny-onnx-int8",
    }
    assert parent.data.params["recipe_sha256"] == at_home.recipe.sha256()


def test_every_metric_has_its_name(parent: Run) -> None:
    assert set(METRICS) <= set(parent.data.metrics)
    epochs = {f"fold_{k}_epoch_{e}_val_{name}" for k in (1, 2) for e in (1, 2) for name in EPOCH_METRICS}
    assert epochs <= set(parent.data.metrics)
    assert {f"{kind}_val_{name}" for kind in ("mean", "std") for name in EPOCH_METRICS} <= set(parent.data.metrics)


def test_metrics_are_those_of_the_stages(parent: Run, at_home: Finished) -> None:
    student = StageResult.load(at_home.run / "2-distillation")
    quantized = StageResult.load(at_home.run / "4-export-onnx-int8")
    found = parent.data.metrics
    assert found["kd_f1_hate"] == pytest.approx(student.metrics["f1"])
    assert found["kd_f1_non_hate"] == pytest.approx(student.metrics["f1_negative"])
    assert found["quantization_macro_f1"] == pytest.approx(quantized.metrics["macro_f1"])
    assert found["quantization_size_mb"] == pytest.approx(
        (at_home.package / "onnx" / "model.onnx").stat().st_size / 1e6
    )
    assert found["size_ratio"] == pytest.approx(found["teacher_size_mb"] / found["student_size_mb"])
    assert found["compression_ratio"] == found["teacher_total_params"] / found["student_total_params"]
    assert found["teacher_total_params"] > found["student_total_params"] == student.parameters
    gate = quantized.details["gate"]
    selected = gate["trials"][gate["ships"]]
    for name in ("drop", "agreement", "mean_logit_shift", "share_flipped", "times_faster"):
        assert found[f"gate_{name}"] == pytest.approx(selected[name])
    assert (at_home.run / "outputs" / "forms_onnx-int8.csv").is_file()


def test_folds_and_stages_are_nested_runs(client: MlflowClient, parent: Run) -> None:
    nested = children(client, parent)
    assert set(nested) == {"fold-1", "fold-2", "distillation", "export onnx-int8"}
    assert {run.info.status for run in nested.values()} == {"FINISHED"}


@pytest.mark.parametrize("name", ["fold-1", "fold-2", "distillation"])
def test_a_nested_run_has_one_point_per_epoch(client: MlflowClient, parent: Run, name: str) -> None:
    points = client.get_metric_history(children(client, parent)[name].info.run_id, "val_macro_f1")
    assert [point.step for point in points] == [1, 2]
    if name.startswith("fold"):
        shown = [parent.data.metrics[f"fold_{name[-1]}_epoch_{e}_val_macro_f1"] for e in (1, 2)]
        assert [point.value for point in points] == pytest.approx(shown)


def test_tables_and_card_are_artifacts(client: MlflowClient, parent: Run, at_home: Finished) -> None:
    found = artifacts(client, parent.info.run_id)
    tables = {path.name for path in (at_home.run / "outputs").glob("*.csv")}
    assert {name.split("_")[0] for name in tables} >= {"best", "fold", "pipeline"}
    assert {f"outputs/{name}" for name in tables} <= set(found)
    assert "model_card/README.md" in found
    assert {"recipe.toml", "corpus.json"} <= set(found)


def test_the_corpus_is_a_dataset_input_with_its_fingerprint_and_no_text(parent: Run, at_home: Finished) -> None:
    (entry,) = parent.inputs.dataset_inputs
    recorded = json.loads((at_home.run / "corpus.json").read_text("utf-8"))
    assert entry.dataset.name == "comments"
    assert len(entry.dataset.digest) >= 16
    assert recorded["fingerprint"].startswith(entry.dataset.digest)
    profile = json.loads(entry.dataset.profile)
    assert profile == {"rows": 400, "splits": recorded["counts"]}


def test_a_resumed_run_reuses_its_mlflow_run(client: MlflowClient, parent: Run, at_home: Finished) -> None:
    run_pipeline(at_home.recipe)
    runs = client.search_runs([parent.info.experiment_id], "attributes.run_name LIKE '%(tester_baseline_kd_quant)'")
    assert [run.info.run_id for run in runs] == [parent.info.run_id]
    assert runs[0].info.status == "FINISHED"
    assert set(children(client, parent)) == {"fold-1", "fold-2", "distillation", "export onnx-int8"}


def test_the_package_names_its_mlflow_run(parent: Run, at_home: Finished) -> None:
    lineage = json.loads((at_home.package / "manifest.json").read_text("utf-8"))["lineage"]
    assert lineage["mlflow_run_id"] == parent.info.run_id


@pytest.mark.parametrize(("error", "status"), [(KeyboardInterrupt, "KILLED"), (RuntimeError, "FAILED")])
def test_an_interrupted_run_has_the_status_of_its_error(
    workplace: Path, error: type[BaseException], status: str
) -> None:
    with pytest.raises(error), tracking.tracked_run(workplace, RUN) as tracked:
        raise error
    client = MlflowClient(f"sqlite:///{workplace}/mlflow.db")
    assert client.get_run(tracked.run_id).info.status == status
    with tracking.tracked_run(workplace, RUN) as again:
        assert client.get_run(again.run_id).info.status == "RUNNING"
    assert again.run_id == tracked.run_id
    assert client.get_run(tracked.run_id).info.status == "FINISHED"


def test_a_finished_run_stays_finished_if_its_next_command_is_refused(workplace: Path) -> None:
    client = MlflowClient(f"sqlite:///{workplace}/mlflow.db")
    statuses = []
    for refused in (True, False, True):
        with suppress(InputError), tracking.tracked_run(workplace, RUN) as tracked:
            if refused:
                raise InputError("--max-drop: nothing passes")
        statuses.append(client.get_run(tracked.run_id).info.status)
    assert statuses == ["FAILED", "FINISHED", "FINISHED"]


def test_another_store_gets_a_new_run(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with tracking.tracked_run(workplace, RUN) as tracked:
        tracked.metrics({"loss": 0.5})
    first = tracked.run_id
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{workplace}/new.db")
    with tracking.tracked_run(workplace, RUN) as tracked:
        assert tracked.run_id != first
    found = MlflowClient(f"sqlite:///{workplace}/new.db").get_run(tracking.run_of(workplace) or "")
    assert (found.data.metrics, found.info.status) == ({"loss": 0.5}, "FINISHED")


def test_the_environment_variable_sets_the_store(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (workplace / "mlflow.db").unlink()
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    assert tracking.store() == "sqlite:///mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{workplace}/elsewhere.db")
    with tracking.tracked_run(workplace, RUN):
        pass
    assert (workplace / "elsewhere.db").exists()
    assert not (workplace / "mlflow.db").exists()


@pytest.mark.parametrize("store", ["nonsense://x", "sqlite:///{}/comments.csv", "sqlite:///{}/comments.csv/mlflow.db"])
def test_a_store_that_cannot_be_used_is_one_warning(
    workplace: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], store: str
) -> None:
    used = os.environ["MLFLOW_TRACKING_URI"]
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store.format(workplace))
    before = (workplace / "comments.csv").read_bytes()
    with tracking.tracked_run(workplace, RUN) as tracked:
        for step in range(3):
            tracked.metrics({"loss": 0.5}, step)
            tracked.send()
    warnings = [line for line in capsys.readouterr().err.splitlines() if "MLFLOW_TRACKING_URI" in line]
    assert len(warnings) == 1
    assert f"hbt sync {workplace}" in warnings[0]
    assert (workplace / "comments.csv").read_bytes() == before
    with pytest.raises(InputError, match="MLFLOW_TRACKING_URI") as caught:
        tracking.send_all(tracking.open_run(workplace, RUN), True)
    assert "\n" not in str(caught.value)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", used)
    tracking.send_all(tracking.open_run(workplace, RUN), True)
    client = MlflowClient(used)
    assert len(client.get_metric_history(tracking.run_of(workplace), "loss")) == 3


def test_non_finite_values_are_left_out_and_invalid_names_are_fixed(workplace: Path) -> None:
    with tracking.tracked_run(workplace, RUN) as tracked:
        tracked.metrics({"f1_ঘৃণা": 0.5, "nan": float("nan"), "inf": float("inf"), "a?b": 1})
        tracked.parameters({"epochs": 3})
        tracked.parameters({"epochs": 3, "more": "x"})
    data = MlflowClient(f"sqlite:///{workplace}/mlflow.db").get_run(tracked.run_id).data
    assert sorted(data.metrics.values()) == [0.5, 1.0]
    assert "a_b" in data.metrics
    assert data.params == {"epochs": "3", "more": "x"}


def test_metrics_of_bangla_labels_have_distinct_names(workplace: Path) -> None:
    with tracking.tracked_run(workplace, RUN) as tracked:
        tracked.metrics({"f1_কখগ": 0.5, "f1_চছজ": 0.25})
    data = MlflowClient(f"sqlite:///{workplace}/mlflow.db").get_run(tracked.run_id).data
    assert sorted(data.metrics.values()) == [0.25, 0.5]


@pytest.mark.slow
def test_mlflow_telemetry_is_off(tmp_path: Path) -> None:
    code = (
        "from pathlib import Path\n"
        "from toolkit.config.settings import RunSettings\n"
        "from toolkit.tracking import mlflow_runs as tracking\n"
        "with tracking.tracked_run(Path('.'), RunSettings()): pass\n"
        "from mlflow.telemetry.client import get_telemetry_client\n"
        "from mlflow.telemetry.utils import is_telemetry_disabled\n"
        "print(is_telemetry_disabled(), get_telemetry_client())"
    )
    unset = ("MLFLOW_DISABLE_TELEMETRY", "DO_NOT_TRACK", "PYTEST_CURRENT_TEST", "CI", "MLFLOW_TRACKING_URI")
    environment = {name: value for name, value in os.environ.items() if name not in unset}
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.stdout.split() == ["True", "None"], done.stderr
