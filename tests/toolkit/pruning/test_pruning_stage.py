"""Pruning as a stage of a run: its results, its errors and resuming."""

import csv
import dataclasses
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mlflow.tracking import MlflowClient
from safetensors.numpy import load_file

from exporters.registry import exporter
from tests.conftest import settle
from tests.helpers import Finished, contents, random_logits, tiny_recipe
from toolkit import package
from toolkit.config.settings import CorpusSettings, ExportSettings, PruningSettings
from toolkit.data.corpus import Corpus, load_corpus
from toolkit.evaluation.decision_rule import DecisionRule
from toolkit.evaluation.predictions import Predictions
from toolkit.modeling.architecture import Sizes, encoder_weights, sizes
from toolkit.modeling.classifier import load_classifier
from toolkit.pruning import structured
from toolkit.pruning.cost_model import Shape
from toolkit.pruning.masks import prunable
from toolkit.pruning.selection import Costs
from toolkit.pruning.stage import describe_pruning
from toolkit.stages.distillation_data import DistillationData, distillation_data
from toolkit.stages.result import StageResult, predict_rows
from toolkit.stages.teachers import Teacher
from toolkit.tracking import mlflow_runs as tracking
from toolkit.training.dataset import Examples
from toolkit.training.losses import UNLABELED
from toolkit.utils.errors import InputError
from toolkit.workflows.compress import compress_checkpoint, compress_run
from toolkit.workflows.pipeline import run_pipeline
from toolkit.workflows.run_summary import RunSummary

FP32 = ExportSettings(target="onnx-fp32")
HALF = PruningSettings(prune_sparsity=0.4, fine_tune_epochs=1, calib_samples=64)
RUN, STUDENT = Path("runs/tiny"), Path("runs/tiny/2-distillation")


def corpus() -> Corpus:
    return load_corpus(tiny_recipe().corpus)


@pytest.fixture(scope="module")
def halved(finished: Finished, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, RunSummary]:
    """A copy of the finished run, pruned with HALF and exported. Do not change its files."""
    home = tmp_path_factory.mktemp("halved") / "home"
    shutil.copytree(finished.home, home)
    with pytest.MonkeyPatch.context() as patch:
        settle(home, patch)
        return home, compress_run(RUN, FP32, None, force=False, pruning=HALF)


@pytest.fixture
def pruned(halved: tuple[Path, RunSummary], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunSummary:
    """The summary of the pruned run, a copy of which is in the current folder."""
    shutil.copytree(halved[0], tmp_path / "home")
    settle(tmp_path / "home", monkeypatch)
    return halved[1]


def test_a_run_is_pruned_recovered_exported_and_compared(pruned: RunSummary) -> None:
    outcome = pruned
    assert outcome.package == Path("models/tiny-onnx-fp32-structured-0.4")
    stage = RUN / "3-pruning-structured-0.4"
    result = StageResult.load(stage)
    student, pruned = load_classifier(STUDENT), load_classifier(stage)
    removed = 1 - encoder_weights(pruned.network) / encoder_weights(student.network)
    assert 0.4 <= removed < 0.6
    assert result.details["sparsity"] == pytest.approx(removed)
    assert [Sizes(**size) for size in result.details["left"]] == sizes(pruned.network)
    assert result.size_bytes < StageResult.load(STUDENT).size_bytes
    assert len(result.details["recovery"][0]["history"]) == 1
    assert pruned.rule == result.rule
    assert pruned.threshold == result.validation_metrics["best_threshold"]
    rows = np.concatenate([corpus().rows("validation"), corpus().rows("test")])
    saved = Predictions.load(stage / "predictions.csv")
    np.testing.assert_allclose(saved.of(rows), predict_rows(pruned, corpus(), rows, "").logits, atol=1e-6)
    # The package has the pruned network.
    artifact = exporter("onnx-fp32").load(outcome.package)
    np.testing.assert_allclose(artifact.predict_logits(corpus().take(rows)), saved.of(rows), atol=1e-4)
    assert package.verify(outcome.package).problems == []
    assert [row.stage for row in outcome.rows if row.slice is None][-3:] == [
        "pruned structured-0.4",
        "onnx-fp32, pruned structured-0.4",
        "onnx-int8",
    ]
    pairs = {(each.b, each.a) for each in outcome.comparisons}
    assert ("pruned structured-0.4", "student") in pairs
    assert ("onnx-fp32, pruned structured-0.4", "pruned structured-0.4") in pairs
    assert ("onnx-int8", "student") in pairs
    card = (outcome.package / "README.md").read_text("utf-8")
    assert "of the encoder's weights to 1 layer" in card
    with (RUN / "outputs/pipeline_summary_baseline_kd_quant.csv").open(newline="") as lines:
        assert ("Pruned", "pruned structured-0.4") in {(line["Stage"], line["Model"]) for line in csv.DictReader(lines)}


def test_the_card_of_an_unpruned_package_does_not_mention_pruning(pruned: RunSummary) -> None:
    plain = compress_run(RUN, FP32, None, force=False).package
    assert plain is not None
    assert "pruned" not in (plain / "README.md").read_text("utf-8")
    assert load_classifier(STUDENT).parameters == StageResult.load(RUN / "4-export-onnx-fp32").parameters


def test_pruning_metrics_are_logged_to_mlflow(pruned: RunSummary) -> None:
    client = MlflowClient(f"sqlite:///{Path.cwd()}/mlflow.db")
    run_id = tracking.run_of(RUN)
    assert run_id is not None
    metrics = client.get_run(run_id).data.metrics
    result = StageResult.load(RUN / "3-pruning-structured-0.4")
    for name in ("accuracy", "macro_f1", "f1_hate", "f1_non_hate", "roc_auc", "best_threshold"):
        assert metrics[f"pruning_{name}"] == pytest.approx(result.metrics[name])
    assert metrics["pruning_sparsity"] == pytest.approx(result.details["sparsity"])
    assert metrics["pruning_parameters"] == result.parameters
    assert metrics["pruning_size_mb"] == pytest.approx(result.size_bytes / 1e6)


def test_the_same_settings_are_not_pruned_again_and_different_ones_are_refused(
    pruned: RunSummary, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before = contents(RUN / "3-pruning-structured-0.4")
    other = dataclasses.replace(HALF, calib_samples=32)
    with pytest.raises(InputError, match=r"pruned with a different calib_samples; give the same, or --force"):
        compress_run(RUN, FP32, Path("two"), force=False, pruning=other)
    with monkeypatch.context() as patch:
        patch.setattr("toolkit.workflows.steps.prune_stage", lambda *_: pytest.fail("pruned again"))
        compress_run(RUN, FP32, Path("two"), force=False, pruning=HALF)
    assert "already finished, skipped" in capsys.readouterr().err
    assert contents(RUN / "3-pruning-structured-0.4") == before
    compress_run(RUN, FP32, Path("two"), force=True, pruning=other)
    assert StageResult.load(RUN / "3-pruning-structured-0.4").details["settings"]["calib_samples"] == 32


@pytest.mark.slow
def test_the_same_settings_and_seed_give_a_bit_identical_network(copied: Path) -> None:
    compress_run(RUN, FP32, Path("one"), force=False, pruning=HALF)
    first = (RUN / "3-pruning-structured-0.4/model.safetensors").read_bytes()
    shutil.rmtree(RUN / "3-pruning-structured-0.4")
    compress_run(RUN, FP32, Path("two"), force=False, pruning=HALF)
    assert (RUN / "3-pruning-structured-0.4/model.safetensors").read_bytes() == first


class Killed(BaseException):
    """Stands for a killed process."""


@pytest.mark.slow
def test_a_killed_recovery_is_resumed(copied: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pruning = dataclasses.replace(HALF, fine_tune_epochs=2)
    compress_run(RUN, FP32, Path("straight"), force=False, pruning=pruning)
    expected = (RUN / "3-pruning-structured-0.4/model.safetensors").read_bytes()
    shutil.rmtree(RUN / "3-pruning-structured-0.4")

    def kill(epoch: int, *_: Any) -> None:
        if epoch == 2:
            raise Killed

    with monkeypatch.context() as patch:
        patch.setattr("toolkit.tracking.mlflow_runs.Tracked.metrics", lambda self, found, epoch=0: kill(epoch))
        with pytest.raises(Killed):
            compress_run(RUN, FP32, Path("resumed"), force=False, pruning=pruning)
    assert not (RUN / "3-pruning-structured-0.4").exists()
    assert (RUN / "3-pruning-structured-0.4.partial").is_dir()
    with monkeypatch.context() as patch:  # the saved plan must be used
        patch.setattr("toolkit.pruning.structured.plans_within", lambda *_: pytest.fail("planned again"))
        compress_run(RUN, FP32, Path("resumed"), force=False, pruning=pruning)
    assert (RUN / "3-pruning-structured-0.4/model.safetensors").read_bytes() == expected
    assert not (RUN / "3-pruning-structured-0.4/training").exists()


@pytest.mark.slow
def test_an_interrupted_pruning_with_other_settings_is_not_resumed(copied: Path) -> None:
    work = RUN / "3-pruning-structured-0.4.partial/training"
    work.mkdir(parents=True)
    (work / "recipe.json").write_text('{"recipe": "another"}')
    (work / "plan-1.json").write_text('{"kept": [[[0], [0, 1]]], "loss": 0.0, "told": {}}')
    compress_run(RUN, FP32, None, force=False, pruning=HALF)
    assert StageResult.load(RUN / "3-pruning-structured-0.4").details["left"][0]["neurons"] > 2


@pytest.mark.parametrize("method", ["magnitude", "wanda", "gradual"])
def test_zeros_are_counted_in_the_file_and_kept_during_recovery(copied: Path, method: Any) -> None:
    pruning = dataclasses.replace(
        HALF, prune_method=method, prune_sparsity=0.7, prune_end_epoch=1, prune_frequency=2, fine_tune_epochs=1
    )
    compress_run(RUN, FP32, None, force=False, pruning=pruning)
    stage = RUN / f"3-pruning-{method}-0.7"
    result = StageResult.load(stage)
    weights, before = (load_file(folder / "model.safetensors") for folder in (stage, STUDENT))
    names = [f"{name}.weight" for name in prunable(load_classifier(stage).network, "encoder")]
    zeros = sum((weights[name] == 0).sum() for name in names) / sum(weights[name].size for name in names)
    assert result.details["sparsity"] == pytest.approx(zeros)
    assert zeros == pytest.approx(0.7, abs=0.01)
    assert {name: w.shape for name, w in weights.items()} == {name: w.shape for name, w in before.items()}
    moved = [
        name
        for name in names
        if not np.array_equal(weights[name][weights[name] != 0], before[name][weights[name] != 0])
    ]
    assert moved == names  # the remaining weights were trained
    history = result.details["recovery"][0]["history"]
    assert len(history) == (2 if method == "gradual" else 1)
    assert result.size_bytes == pytest.approx(StageResult.load(STUDENT).size_bytes, rel=0.01)
    assert result.details["zstd_size_bytes"] < 0.9 * result.details["zstd_size_bytes_before"]
    assert "neither faster nor smaller" in describe_pruning(result.details, result.details["settings"])


def test_without_recovery_the_remaining_weights_are_unchanged(copied: Path) -> None:
    pruning = dataclasses.replace(HALF, prune_method="magnitude", fine_tune_after_prune=False)
    compress_run(RUN, FP32, None, force=False, pruning=pruning)
    weights, before = (load_file(folder / "model.safetensors") for folder in (RUN / "3-pruning-magnitude-0.4", STUDENT))
    for name, tensor in weights.items():
        kept = tensor != 0
        np.testing.assert_array_equal(tensor[kept], before[name][kept])
    assert StageResult.load(RUN / "3-pruning-magnitude-0.4").details["recovery"] == []


@pytest.mark.slow
def test_every_round_has_a_recovery(copied: Path) -> None:
    pruning = dataclasses.replace(HALF, prune_sparsity=0.55, prune_steps=3)
    compress_run(RUN, FP32, None, force=False, pruning=pruning)
    details = StageResult.load(RUN / "3-pruning-structured-0.55").details
    assert [len(each["history"]) for each in details["recovery"]] == [1, 1, 1]
    assert details["sparsity"] >= 0.55


def linear(classifier: Any, lefts: Any, target: str, texts: Any) -> tuple[Shape, ...]:
    """Fake measurement: latency and size are linear, and the machine is 10 % slower than the costs."""
    costs = Costs(0.1, 0.01, 0.01, 0.001)
    return tuple(Shape(tuple(left), 1.1 * costs.of(left), costs.of(left)) for left in lefts)


def test_a_latency_budget_is_met(copied: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("cost_model", "structured"):
        monkeypatch.setattr(f"toolkit.pruning.{module}.measure_shapes", lambda *given: linear(*given))
    compress_run(RUN, FP32, None, force=False, pruning=dataclasses.replace(HALF, prune_to_ms=0.2))
    details = StageResult.load(RUN / "3-pruning-structured-0.2ms").details
    (shape,) = linear(None, [[Sizes(**size) for size in details["left"]]], "", None)
    assert shape.ms == pytest.approx(0.2, rel=0.15)
    assert details["cost_model_error"] == pytest.approx(0, abs=1e-6)
    assert details["asked"] == 0.2


def test_a_plan_that_misses_the_latency_is_replaced(copied: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The costs were fitted while the machine was slower than now."""
    monkeypatch.setattr("toolkit.pruning.cost_model.measure_shapes", lambda *given: linear(*given))
    monkeypatch.setattr(
        structured,
        "measure_shapes",
        lambda *given: tuple(
            dataclasses.replace(shape, ms=shape.ms / (1.3 if shape.left != (Sizes(1, 128),) else 1))
            for shape in linear(*given)
        ),
    )
    compress_run(RUN, FP32, None, force=False, pruning=dataclasses.replace(HALF, prune_to_ms=0.17))
    details = StageResult.load(RUN / "3-pruning-structured-0.17ms").details
    assert len(details["tries"]) > 1
    errors = [abs(each["measured"] / 0.17 - 1) for each in details["tries"]]
    assert errors[-1] < errors[0]
    chosen = linear(None, [[Sizes(**size) for size in details["left"]]], "", None)[0].ms / 1.3
    assert abs(chosen / 0.17 - 1) == pytest.approx(min(errors))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"prune_to_ms": 99.0}, r"--prune-to-ms 99: the unpruned model takes only .* ms; give less"),
        ({"prune_to_ms": 1e-3}, r"--prune-to-ms 0.001: one layer with one head .* give more"),
        ({"prune_to_mb": 1e-3}, r"--prune-to-mb 0.001: one layer with one head .* MB; give more"),
        ({"prune_sparsity": 0.99}, r"--prune-sparsity 0.99: one layer with one head .* weights; give more"),
    ],
)
def test_a_budget_that_cannot_be_met_is_one_line_and_no_stage(
    copied: Path, monkeypatch: pytest.MonkeyPatch, change: dict[str, Any], message: str
) -> None:
    monkeypatch.setattr("toolkit.pruning.cost_model.measure_shapes", lambda *given: linear(*given))
    with pytest.raises(InputError, match=message) as caught:
        compress_run(RUN, FP32, None, force=False, pruning=dataclasses.replace(HALF, **change))
    assert "\n" not in str(caught.value)
    assert not list(RUN.glob("3-pruning*"))
    assert not Path("models/tiny-onnx-fp32").exists()


def test_a_checkpoint_is_pruned_with_itself_as_the_teacher(copied: Path) -> None:
    data = CorpusSettings(data="comments.csv", folds=2)
    outcome = compress_checkpoint(str(STUDENT), data, FP32, None, force=False, pruning=HALF)
    assert outcome.package == Path("models/2-distillation-onnx-fp32-structured-0.4")
    assert [row.stage for row in outcome.rows if row.slice is None] == [
        "linear baseline",
        "2-distillation in torch",
        "pruned structured-0.4",
        "onnx-fp32, pruned structured-0.4",
    ]
    unpruned, pruned = outcome.rows[1].parameters, outcome.rows[2].parameters
    assert unpruned == load_classifier(STUDENT).parameters
    assert pruned is not None
    assert unpruned is not None
    assert pruned < unpruned
    assert package.read_manifest(outcome.package)["lineage"]["pruning"] == "structured-0.4"


def test_the_card_of_a_checkpoint_states_that_zeros_save_nothing(copied: Path) -> None:
    pruning = PruningSettings(prune_method="magnitude", prune_sparsity=0.5, fine_tune_epochs=1, calib_samples=16)
    outcome = compress_checkpoint(
        str(STUDENT), CorpusSettings(data="comments.csv", folds=2), FP32, None, force=False, pruning=pruning
    )
    assert outcome.package is not None
    card = (outcome.package / "README.md").read_text("utf-8")
    assert "50.0 % zeros in encoder linear layers (magnitude): neither faster nor smaller`" in card


@pytest.mark.slow
@pytest.mark.parametrize("pipeline", ["baseline_prune", "baseline_kd_prune_quant"])
def test_pipelines_prune_the_last_trained_stage(workplace: Path, pipeline: str) -> None:
    student = {"student": "layers:1"} if "kd" in pipeline else {"student": None}
    recipe = tiny_recipe(pipeline=pipeline, name="p", epochs=1, calib_samples=32, fine_tune_epochs=1, **student)
    outcome = run_pipeline(recipe)
    run = Path("runs/p")
    source = run / "2-distillation" if "kd" in pipeline else run / "1-baseline/fold-1"
    result = StageResult.load(run / "3-pruning-structured-0.5")
    assert Path(result.details["source"]).parent == source.parent
    assert result.details["source_name"] == ("student" if "kd" in pipeline else "best fold")
    assert (outcome.package is not None) == pipeline.endswith("quant")
    if outcome.package is not None:
        assert StageResult.load(run / "4-export-onnx-int8-structured-0.5").parameters == result.parameters
    again = run_pipeline(recipe)
    assert [row.stage for row in again.rows] == [row.stage for row in outcome.rows]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"pipeline": "baseline_kd_quant", "prune_sparsity": 0.3}, "does not prune; use one with prune"),
        ({"pipeline": "baseline_kd_prune", "student": "ngram"}, "--student ngram: has no heads or neurons"),
        ({"pipeline": "baseline_prune", "student": "layers:1"}, "use one with kd"),
    ],
)
def test_invalid_pruning_is_reported_before_training(workplace: Path, change: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        run_pipeline(tiny_recipe(**change))
    assert not Path("runs").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"prune_sparsity": 1.0}, "--prune-sparsity 1.0 is outside"),
        ({"prune_to_ms": 0.0}, "--prune-to-ms 0.0 is not above 0"),
        ({"prune_to_ms": 1.0, "prune_to_mb": 1.0}, "not both"),
        ({"prune_method": "wanda", "prune_to_ms": 1.0}, "wanda does not reduce size or latency"),
        ({"prune_start_epoch": 3, "prune_end_epoch": 3}, "--prune-end-epoch 3 is not after"),
        ({"calib_samples": 0}, "--calib-samples 0 is too small"),
    ],
)
def test_invalid_pruning_settings_are_reported(change: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError) as caught:
        PruningSettings(**change)
    assert message in str(caught.value).replace(":", "")


def test_calibration_uses_labeled_training_rows_only(toy: Corpus, tmp_path: Path) -> None:
    rows, train = toy.rows("all"), toy.rows("train")
    teacher = Teacher(
        tmp_path, Predictions(rows, random_logits(len(rows))), DecisionRule(0.5), "made up", "teacher", ()
    )

    def data(count: int) -> DistillationData:
        given = tiny_recipe(calib_samples=count)
        found = distillation_data(teacher, toy, given, tmp_path)
        additional = Examples(["one more"], np.array([UNLABELED]), np.zeros((1, 2)))
        train = Examples(
            [*found.train.texts, *additional.texts],
            np.concatenate([found.train.labels, additional.labels]),
            np.concatenate([found.train.teacher_logits, additional.teacher_logits]),
        )
        return dataclasses.replace(found, train=train)

    found = data(8).calibration()
    assert len(set(found.texts)) == 8
    assert set(found.texts) <= set(toy.take(train))
    assert list(found.texts) == list(data(8).calibration().texts)
    assert len(data(512).calibration().texts) == len(train)
