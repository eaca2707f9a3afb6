import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.helpers import TINY
from toolkit.config.recipe import Recipe
from toolkit.config.settings import DistillationSettings, ModelSettings, TrainingSettings
from toolkit.data.corpus import Corpus
from toolkit.evaluation.metrics import softmax
from toolkit.evaluation.predictions import Predictions, evaluate
from toolkit.modeling.classifier import Classifier, load_classifier
from toolkit.stages.cross_validation import fold_predictions, train_baseline
from toolkit.stages.distillation import distil
from toolkit.stages.distillation_data import distillation_data
from toolkit.stages.result import StageResult
from toolkit.stages.teachers import ENSEMBLE, TEACHER, Teacher, find_teacher
from toolkit.training.dataset import Examples
from toolkit.training.feature_distillation import DistillationLoss
from toolkit.training.trainer import Fit
from toolkit.utils.errors import InputError

TRAINING = TrainingSettings(epochs=1, learning_rate=5e-3, batch_size=16)
STUDENT = DistillationSettings(student="layers:1", kd_alpha=0.3, kd_temperature=2.5, kd_learning_rate=5e-3)


@pytest.fixture(scope="module")
def stage(toy: Corpus, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("run") / "1-baseline"
    train_baseline(toy, TINY, TRAINING, out)
    return out


@pytest.fixture(scope="module")
def ensemble(toy: Corpus, stage: Path) -> Teacher:
    """The fold ensemble of the stage."""
    (stage.parent / "corpus.json").write_text(json.dumps({"fingerprint": toy.fingerprint}))
    return find_teacher(STUDENT, toy, stage, stage.parent / "cache")


def distilled(
    teacher: Teacher,
    corpus: Corpus,
    settings: DistillationSettings,
    model: ModelSettings,
    training: TrainingSettings,
    out: Path,
    cache: Path,
    watch: Any = None,
) -> StageResult:
    recipe = Recipe(model=model, training=training, distillation=settings)
    return distil(distillation_data(teacher, corpus, recipe, cache), out, watch)


class Spy:
    """Replaces `fit`: records its arguments and trains nothing."""

    def __init__(self) -> None:
        self.train: Examples | None = None
        self.validation: Examples | None = None
        self.distillation_loss: DistillationLoss | None = None

    def __call__(
        self,
        classifier: Classifier,
        train: Examples,
        validation: Examples,
        training: TrainingSettings,
        seed: int,
        work: Path,
        distillation_loss: DistillationLoss | None = None,
        *_: Any,
    ) -> Fit:
        work.mkdir(parents=True)
        self.train, self.validation, self.distillation_loss = train, validation, distillation_loss
        return Fit(1, [{"epoch": 1, "val_macro_f1": 0.5}])


def test_a_student_gets_out_of_fold_logits(
    toy: Corpus, stage: Path, ensemble: Teacher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spy = Spy()
    monkeypatch.setattr("toolkit.stages.distillation.fit", spy)
    distilled(ensemble, toy, STUDENT, TINY, TRAINING, tmp_path / "2-distillation", tmp_path / "cache")
    assert spy.train is not None
    assert spy.validation is not None
    rows = toy.rows("train")
    assert list(spy.train.texts) == toy.take(rows)
    expected = [fold_predictions(stage, toy.fold[row]).of(np.array([row]))[0] for row in rows]
    np.testing.assert_array_equal(spy.train.teacher_logits, expected)
    validation_rows = toy.rows("validation")
    assert list(spy.validation.texts) == toy.take(validation_rows)
    np.testing.assert_array_equal(spy.validation.teacher_logits, ensemble.predictions.of(validation_rows))
    assert spy.distillation_loss == DistillationLoss(0.3, 2.5)


def test_no_student_is_trained_on_held_out_rows(
    toy: Corpus, stage: Path, ensemble: Teacher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spy = Spy()
    monkeypatch.setattr("toolkit.stages.distillation.fit", spy)
    distilled(ensemble, toy, STUDENT, TINY, TRAINING, tmp_path / "2-distillation", tmp_path / "cache")
    assert spy.train is not None
    assert not set(spy.train.texts) & {*toy.take(toy.rows("test")), *toy.take(toy.rows("validation"))}


def test_the_stage_saves_predictions_and_threshold_of_the_student(
    toy: Corpus, stage: Path, ensemble: Teacher, tmp_path: Path
) -> None:
    result = distilled(ensemble, toy, STUDENT, TINY, TRAINING, tmp_path / "2-distillation", tmp_path / "cache")
    folder = tmp_path / "2-distillation"
    assert StageResult.load(folder) == result
    made = load_classifier(folder)
    rows = np.concatenate([toy.rows("validation"), toy.rows("test")])
    predictions = Predictions.load(folder / result.predictions)
    np.testing.assert_array_equal(predictions.of(rows), made.predict_logits(toy.take(rows)))
    assert made.rule == result.rule
    assert result.rule.threshold == result.validation_metrics["best_threshold"]
    versus = result.details["versus_teacher"]
    assert versus["rows"] == len(toy.rows("test"))
    test = toy.rows("test")
    teacher = StageResult.load(stage)
    student_labels = result.rule.predict(softmax(predictions.of(test)))
    teacher_labels = teacher.rule.predict(softmax(Predictions.load(stage / "predictions.csv").of(test)))
    assert versus["agreement"] == pytest.approx((student_labels == teacher_labels).mean())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["2-distillation"]
    assert not (folder / "training").exists()


def test_the_stage_saves_the_teacher_logits_of_every_row(toy: Corpus, ensemble: Teacher, tmp_path: Path) -> None:
    result = distilled(ensemble, toy, STUDENT, TINY, TRAINING, tmp_path / "2-distillation", tmp_path / "cache")
    saved = Predictions.load(tmp_path / "2-distillation" / "teacher.csv")
    rows = toy.rows("all")
    assert saved.of(rows).tobytes() == ensemble.predictions.of(rows).tobytes()
    validation, test, slices = evaluate(toy, saved, ensemble.rule)
    details = result.details
    found = (details["teacher_validation_metrics"], details["teacher_metrics"], details["teacher_slices"])
    assert found == (validation, test, slices)
    network = load_classifier(ensemble.checkpoint)
    assert details["teacher_parameters"] == network.parameters
    assert details["teacher_size_bytes"] == (ensemble.checkpoint / "model.safetensors").stat().st_size
    recorded = {name: details[name] for name in ("student", "kd_method", "teacher_name", "floor_share")}
    assert recorded == {"student": "layers:1", "kd_method": "logit", "teacher_name": ENSEMBLE, "floor_share": 0.0}
    assert (details["teacher_rule"], details["teacher"]) == (ensemble.rule.as_dict(), ensemble.source)
    assert len(details["history"]) == TRAINING.epochs


def settings(**given: Any) -> DistillationSettings:
    return replace(STUDENT, **given)


def test_a_student_without_a_learning_rate_gets_one_of_its_own(
    ensemble: Teacher, toy: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("toolkit.training.learning_rate.RATES", (1e-4, 5e-3))
    given = settings(kd_learning_rate=None)
    result = distilled(ensemble, toy, given, TINY, TRAINING, tmp_path / "stage", tmp_path / "cache")
    trials = result.details["learning_rate_search"]["trials"]
    assert set(trials) == {"0.0001", "0.005"}
    assert result.details["learning_rate"] == float(min(trials, key=trials.__getitem__))


PARTS = {"train_total_loss", "train_soft_loss", "train_hard_loss"}


@pytest.mark.parametrize(
    ("method", "feature_losses"),
    [
        ("logit", set()),
        ("hidden", {"train_hidden_loss"}),
        ("attention", {"train_attention_loss"}),
        ("multi_level", {"train_hidden_loss", "train_attention_loss"}),
        ("relation", {"train_relation_loss"}),
    ],
)
def test_the_history_has_every_loss_of_the_method(
    toy: Corpus, ensemble: Teacher, tmp_path: Path, method: Any, feature_losses: set[str]
) -> None:
    result = distilled(
        ensemble, toy, settings(kd_method=method), TINY, TRAINING, tmp_path / "stage", tmp_path / "cache"
    )
    assert result.details["kd_method"] == method
    for epoch in result.details["history"]:
        losses = {name for name in epoch if name.startswith("train_") and name != "train_loss"}
        assert losses == PARTS | feature_losses
        assert all(np.isfinite(epoch[name]) for name in losses)
        features = sum(epoch[name] * weight for name, weight in WEIGHTS.items() if name in feature_losses)
        expected = 0.3 * epoch["train_soft_loss"] + 0.7 * epoch["train_hard_loss"] + features
        assert epoch["train_total_loss"] == pytest.approx(expected, rel=1e-4)


WEIGHTS = {"train_hidden_loss": 0.3, "train_attention_loss": 0.2, "train_relation_loss": 1.0}


def test_feature_targets_follow_the_settings(
    toy: Corpus, ensemble: Teacher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spy = Spy()
    monkeypatch.setattr("toolkit.stages.distillation.fit", spy)
    given = settings(kd_method="multi_level", hidden_loss_weight=0.6, attention_loss_weight=0.1)
    distilled(ensemble, toy, given, TINY, TRAINING, tmp_path / "stage", tmp_path / "cache")
    assert spy.distillation_loss is not None
    features = spy.distillation_loss.features
    assert features is not None
    assert features.weights == {"hidden_loss": 0.6, "attention_loss": 0.1}
    best = load_classifier(ensemble.checkpoint)
    assert features.teacher.predict_logits(["sea"]).tobytes() == best.predict_logits(["sea"]).tobytes()


@pytest.mark.parametrize(
    "given", [{"student": "layers:1"}, {"student": "ngram:10"}, {"student": "layers:1", "kd_method": "multi_level"}]
)
def test_the_same_recipe_and_seed_give_a_bit_identical_student(
    toy: Corpus, ensemble: Teacher, tmp_path: Path, given: dict[str, Any]
) -> None:
    for name in ("first", "second"):
        distilled(
            ensemble, toy, settings(augment=True, **given), TINY, TRAINING, tmp_path / name, tmp_path / name / "cache"
        )
    for file in ("model.safetensors", "predictions.csv", "tokenizer.json", "config.json"):
        assert (tmp_path / "first" / file).read_bytes() == (tmp_path / "second" / file).read_bytes(), file


@pytest.mark.parametrize("method", ["logit", "multi_level"])
def test_a_resumed_distillation_equals_an_uninterrupted_one(
    toy: Corpus, ensemble: Teacher, tmp_path: Path, method: Any
) -> None:
    def interrupt(epoch: int, metrics: dict[str, float]) -> None:
        if epoch == 2:
            raise KeyboardInterrupt

    epochs: list[int] = []
    training = TrainingSettings(epochs=2, learning_rate=5e-3, batch_size=16)
    rest = (toy, settings(kd_method=method, augment=True), TINY, training)
    with pytest.raises(KeyboardInterrupt):
        distilled(ensemble, *rest, tmp_path / "resumed", tmp_path / "cache", interrupt)
    assert not (tmp_path / "resumed").exists()
    distilled(ensemble, *rest, tmp_path / "resumed", tmp_path / "cache", lambda epoch, _: epochs.append(epoch))
    assert epochs[0] == 2  # the first epoch is not repeated
    distilled(ensemble, *rest, tmp_path / "straight", tmp_path / "cache")
    for file in ("model.safetensors", "predictions.csv"):
        assert (tmp_path / "resumed" / file).read_bytes() == (tmp_path / "straight" / file).read_bytes(), file


def test_an_ngram_student_is_distilled(toy: Corpus, ensemble: Teacher, tmp_path: Path) -> None:
    result = distilled(
        ensemble, toy, settings(student="ngram:10"), TINY, TRAINING, tmp_path / "stage", tmp_path / "cache"
    )
    made = load_classifier(tmp_path / "stage")
    size = 2**10 * (2 if result.details["words"] else 1)  # as many again for words
    assert result.parameters == made.parameters == size * 2 + 1
    rows = toy.rows("test")
    predictions = Predictions.load(tmp_path / "stage" / "predictions.csv")
    np.testing.assert_allclose(predictions.of(rows), made.predict_logits(toy.take(rows)), atol=1e-5)
    assert made.rule == result.rule
    assert result.details["table_rows_used"] < 2**10
    assert result.metrics["macro_f1"] > 0.9


def test_additional_texts_reach_the_student_and_are_counted(
    toy: Corpus, ensemble: Teacher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spy = Spy()
    monkeypatch.setattr("toolkit.stages.distillation.fit", spy)
    (tmp_path / "more.txt").write_text("a new text\n\na new one\nA NEW TEXT!\n")
    given = settings(unlabelled=str(tmp_path / "more.txt"), augment=True)
    result = distilled(ensemble, toy, given, TINY, TRAINING, tmp_path / "stage", tmp_path / "cache")
    assert spy.train is not None
    rows = len(toy.rows("train"))
    assert spy.train.texts[2 * rows :] == ["a new text", "a new one"]
    counts = {name: result.details[name] for name in ("augmented_texts", "unlabelled_texts", "unlabelled_left_out")}
    assert counts == {"augmented_texts": rows, "unlabelled_texts": 2, "unlabelled_left_out": 1}


def test_the_best_fold_is_not_named_as_the_ensemble(
    toy: Corpus, stage: Path, ensemble: Teacher, tmp_path: Path
) -> None:
    teacher = find_teacher(settings(teacher_folds="best"), toy, stage, tmp_path / "cache")
    result = distilled(
        teacher, toy, settings(student="ngram:8"), TINY, TRAINING, tmp_path / "stage", tmp_path / "cache"
    )
    assert result.details["teacher_name"] == TEACHER


def test_a_student_that_cannot_be_built_leaves_no_stage(toy: Corpus, ensemble: Teacher, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="the teacher has 1 layers"):
        distilled(ensemble, toy, settings(student="layers:2"), TINY, TRAINING, tmp_path / "stage", tmp_path / "cache")
    assert not (tmp_path / "stage").exists()
