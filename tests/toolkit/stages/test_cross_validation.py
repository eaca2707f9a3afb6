from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.helpers import TINY, random_logits
from toolkit.config.settings import TrainingSettings
from toolkit.data.corpus import Corpus
from toolkit.evaluation.decision_rule import DecisionRule
from toolkit.evaluation.metrics import macro_f1, metrics_with_rule, softmax
from toolkit.evaluation.predictions import Predictions
from toolkit.evaluation.rule_choice import choose_rule
from toolkit.modeling.classifier import Classifier, load_classifier
from toolkit.stages.cross_validation import FoldResult, combine_folds, fold_predictions, train_baseline
from toolkit.stages.result import StageResult
from toolkit.training.dataset import Examples
from toolkit.training.trainer import Fit

TRAINING = TrainingSettings(epochs=1, learning_rate=5e-3, batch_size=16)


@pytest.fixture(scope="module")
def stage(toy: Corpus, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("run") / "1-baseline"
    train_baseline(toy, TINY, TRAINING, out)
    return out


class Spy:
    """Replaces `fit`: records its arguments and trains nothing."""

    def __init__(self) -> None:
        self.calls: list[tuple[Examples, Examples]] = []

    def __call__(
        self,
        classifier: Classifier,
        train: Examples,
        validation: Examples,
        training: Any,
        seed: int,
        work: Path,
        **_: Any,
    ) -> Fit:
        work.mkdir(parents=True)
        self.calls.append((train, validation))
        return Fit(1, [{"epoch": 1, "val_macro_f1": 0.5}])


def test_training_rows_get_out_of_fold_logits(toy: Corpus) -> None:
    rows = toy.rows("all")
    made = [Predictions(np.random.default_rng(k).permutation(rows), random_logits(len(rows), seed=k)) for k in range(2)]
    combined = combine_folds(toy, made)
    for row in rows:
        by_fold = [predictions.of(np.array([row]))[0] for predictions in made]
        fold = toy.fold[row]
        expected = by_fold[fold] if fold >= 0 else (by_fold[0] + by_fold[1]) / 2
        np.testing.assert_allclose(combined.of(np.array([row]))[0], expected, rtol=1e-6)
    assert combined.logits.dtype == np.float32


def test_a_fold_is_trained_on_the_other_folds_only(
    toy: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spy = Spy()
    monkeypatch.setattr("toolkit.stages.cross_validation.fit", spy)
    train_baseline(toy, TINY, TRAINING, tmp_path / "stage")
    held_out = {*toy.take(toy.rows("test")), *toy.take(toy.rows("validation"))}
    for fold, (train, validation) in enumerate(spy.calls):
        own = toy.take(np.flatnonzero(toy.fold == fold))
        assert set(validation.texts) == set(own)
        assert not set(train.texts) & (held_out | set(own))
        assert len(train.texts) + len(validation.texts) == len(toy.rows("train"))
        assert [toy.texts.index(text) % 2 for text in train.texts] == train.labels.tolist()
    assert len(spy.calls) == 2


def test_no_tokenizer_is_trained_on_held_out_rows(toy: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    used: list[str] = []

    def spy(settings: Any, labels: Any, texts: list[str], seed: int) -> Classifier:
        from toolkit.modeling.encoders import build_classifier

        used.extend(texts)
        return build_classifier(settings, labels, texts, seed)

    monkeypatch.setattr("toolkit.stages.cross_validation.build_classifier", spy)
    monkeypatch.setattr("toolkit.stages.cross_validation.fit", Spy())
    train_baseline(toy, TINY, TRAINING, tmp_path / "stage")
    assert set(used) == set(toy.take(toy.rows("train")))


def test_the_result_is_that_of_the_ensemble(toy: Corpus, stage: Path) -> None:
    result = StageResult.load(stage)
    folds = [FoldResult.load(stage / f"fold-{k + 1}") for k in range(2)]
    assert result.checkpoint == f"fold-{1 + int(np.argmax([fold.val['macro_f1'] for fold in folds]))}"
    test = toy.rows("test")
    logits = combine_folds(toy, [fold_predictions(stage, k) for k in range(2)]).of(test)
    assert result.metrics == metrics_with_rule(
        toy.labels[test], softmax(logits.astype(np.float64)), result.rule, toy.label_names
    )
    assert result.parameters == sum(fold.total_parameters for fold in folds)
    assert result.size_bytes == sum(file.stat().st_size for file in stage.glob("fold-*/model.safetensors"))
    assert not list(stage.rglob("training"))
    assert not list(stage.rglob("*.partial"))


def test_the_threshold_is_chosen_on_validation_and_out_of_fold_rows(
    toy: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def random_predictions(classifier: Classifier, corpus: Corpus, rows: np.ndarray, what: str) -> Predictions:
        return Predictions(rows, random_logits(len(rows), seed=7))

    monkeypatch.setattr("toolkit.stages.cross_validation.fit", Spy())
    monkeypatch.setattr("toolkit.stages.cross_validation.predict_rows", random_predictions)
    result = train_baseline(toy, TINY, TRAINING, tmp_path / "stage")
    predictions = Predictions.load(tmp_path / "stage" / "predictions.csv")

    def chosen(*splits: str) -> tuple[DecisionRule, dict[str, Any]]:
        rows = np.concatenate([toy.rows(split) for split in splits])
        choice = choose_rule(toy.labels[rows], softmax(predictions.of(rows).astype(np.float64)))
        return choice.rule, choice.as_dict()

    assert (result.rule, result.details["decision_rule"]) == chosen("train", "validation") != chosen("validation")


def test_a_fold_is_saved_with_its_predictions_and_threshold(toy: Corpus, stage: Path) -> None:
    rows = toy.rows("all")
    for k in range(2):
        made = load_classifier(stage / f"fold-{k + 1}")
        fold = FoldResult.load(stage / f"fold-{k + 1}")
        np.testing.assert_array_equal(fold_predictions(stage, k).of(rows), made.predict_logits(toy.take(rows)))
        assert made.rule == fold.rule
        assert fold.rule.threshold == fold.val["best_threshold"]


def test_the_metrics_of_a_fold_are_those_of_its_own_rows(toy: Corpus, stage: Path) -> None:
    for k in range(2):
        fold, predictions = FoldResult.load(stage / f"fold-{k + 1}"), fold_predictions(stage, k)
        for found, rows in ((fold.val, toy.fold == k), (fold.train, (toy.fold >= 0) & (toy.fold != k))):
            rows = np.flatnonzero(rows)
            p = softmax(predictions.of(rows).astype(np.float64))
            labels = fold.rule.predict(p)
            assert found["macro_f1"] == pytest.approx(macro_f1(toy.labels[rows], labels, 2))
            assert found["loss"] == pytest.approx(-np.log(p[np.arange(len(rows)), toy.labels[rows]]).mean())


def test_the_callback_is_called_after_every_epoch_of_every_fold(toy: Corpus, tmp_path: Path) -> None:
    calls: list[tuple[int, int]] = []
    training = TrainingSettings(epochs=2, learning_rate=5e-3, batch_size=64)
    train_baseline(toy, TINY, training, tmp_path / "stage", lambda fold, epoch, _: calls.append((fold, epoch)))
    assert calls == [(0, 1), (0, 2), (1, 1), (1, 2)]
