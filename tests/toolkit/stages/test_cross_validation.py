from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.helpers import TINY, random_logits
from toolkit.config.settings import TrainingSettings
from toolkit.data.corpus import Corpus
from toolkit.evaluation.metrics import apply_threshold, calculate_metrics_with_threshold_exploration, macro_f1, softmax
from toolkit.evaluation.predictions import Predictions
from toolkit.modeling.classifier import Classifier, load_classifier
from toolkit.stages.cross_validation import FoldResult, combine_folds, fold_predictions, train_baseline
from toolkit.stages.result import StageResult
from toolkit.training.dataset import Examples
from toolkit.training.trainer import Fit

HOW = TrainingSettings(epochs=1, learning_rate=5e-3, batch_size=16)


@pytest.fixture(scope="module")
def stage(toy: Corpus, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("run") / "1-baseline"
    train_baseline(toy, TINY, HOW, out)
    return out


class Spy:
    """Stands in for `fit`: keeps what it was given and trains nothing."""

    def __init__(self) -> None:
        self.calls: list[tuple[Examples, Examples]] = []

    def __call__(
        self, made: Classifier, train: Examples, validation: Examples, settings: Any, seed: int, work: Path, **_: Any
    ) -> Fit:
        work.mkdir(parents=True)
        self.calls.append((train, validation))
        return Fit(1, [{"epoch": 1, "val_macro_f1": 0.5}])


def test_training_rows_get_the_logits_of_the_fold_that_did_not_see_them(toy: Corpus) -> None:
    rows = toy.rows("all")
    made = [Predictions(np.random.default_rng(k).permutation(rows), random_logits(len(rows), seed=k)) for k in range(2)]
    combined = combine_folds(toy, made)
    for row in rows:
        by_fold = [predictions.of(np.array([row]))[0] for predictions in made]
        fold = toy.fold[row]
        expected = by_fold[fold] if fold >= 0 else (by_fold[0] + by_fold[1]) / 2
        np.testing.assert_allclose(combined.of(np.array([row]))[0], expected, rtol=1e-6)
    assert combined.logits.dtype == np.float32


def test_a_fold_learns_from_the_other_folds_alone(toy: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spy = Spy()
    monkeypatch.setattr("toolkit.stages.cross_validation.fit", spy)
    train_baseline(toy, TINY, HOW, tmp_path / "stage")
    held_out = {*toy.take(toy.rows("test")), *toy.take(toy.rows("validation"))}
    for fold, (train, validation) in enumerate(spy.calls):
        mine = toy.take(np.flatnonzero(toy.fold == fold))
        assert set(validation.texts) == set(mine)
        assert not set(train.texts) & (held_out | set(mine))
        assert len(train.texts) + len(validation.texts) == len(toy.rows("train"))
        assert [toy.texts.index(text) % 2 for text in train.texts] == train.labels.tolist()
    assert len(spy.calls) == 2


def test_no_tokenizer_is_trained_on_held_out_rows(toy: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []

    def spy(settings: Any, labels: Any, texts: list[str], seed: int) -> Classifier:
        from toolkit.modeling.encoders import build_classifier

        seen.extend(texts)
        return build_classifier(settings, labels, texts, seed)

    monkeypatch.setattr("toolkit.stages.cross_validation.build_classifier", spy)
    monkeypatch.setattr("toolkit.stages.cross_validation.fit", Spy())
    train_baseline(toy, TINY, HOW, tmp_path / "stage")
    assert set(seen) == set(toy.take(toy.rows("train")))


def test_the_stage_keeps_what_it_says(toy: Corpus, stage: Path) -> None:
    result = StageResult.load(stage)
    folds = [FoldResult.load(stage / f"fold-{k + 1}") for k in range(2)]
    assert result.checkpoint == f"fold-{1 + int(np.argmax([fold.val['macro_f1'] for fold in folds]))}"
    test = toy.rows("test")
    logits = combine_folds(toy, [fold_predictions(stage, k) for k in range(2)]).of(test)
    assert result.metrics == calculate_metrics_with_threshold_exploration(
        toy.labels[test], softmax(logits), result.threshold, toy.label_names
    )
    assert result.parameters == sum(fold.total_parameters for fold in folds)
    assert result.size_bytes == sum(file.stat().st_size for file in stage.glob("fold-*/model.safetensors"))
    assert not list(stage.rglob("training"))
    assert not list(stage.rglob("*.partial"))


def test_the_threshold_is_chosen_on_all_rows_that_the_answering_folds_did_not_see(
    toy: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def by_chance(made: Classifier, corpus: Corpus, rows: np.ndarray, what: str) -> Predictions:
        return Predictions(rows, random_logits(len(rows), seed=7))

    monkeypatch.setattr("toolkit.stages.cross_validation.fit", Spy())
    monkeypatch.setattr("toolkit.stages.cross_validation.predict_rows", by_chance)
    result = train_baseline(toy, TINY, HOW, tmp_path / "stage")
    predictions = Predictions.load(tmp_path / "stage" / "predictions.csv")

    def chosen(*splits: str) -> float:
        rows = np.concatenate([toy.rows(split) for split in splits])
        return calculate_metrics_with_threshold_exploration(toy.labels[rows], softmax(predictions.of(rows)))[
            "best_threshold"
        ]

    assert result.threshold == chosen("train", "validation") != chosen("validation")


def test_a_fold_is_stored_with_its_predictions_and_its_threshold(toy: Corpus, stage: Path) -> None:
    rows = toy.rows("all")
    for k in range(2):
        made = load_classifier(stage / f"fold-{k + 1}")
        fold = FoldResult.load(stage / f"fold-{k + 1}")
        np.testing.assert_array_equal(fold_predictions(stage, k).of(rows), made.predict_logits(toy.take(rows)))
        assert made.threshold == fold.threshold == fold.val["best_threshold"]


def test_what_a_fold_measures_is_measured_on_its_own_rows(toy: Corpus, stage: Path) -> None:
    for k in range(2):
        fold, predictions = FoldResult.load(stage / f"fold-{k + 1}"), fold_predictions(stage, k)
        for found, rows in ((fold.val, toy.fold == k), (fold.train, (toy.fold >= 0) & (toy.fold != k))):
            rows = np.flatnonzero(rows)
            p = softmax(predictions.of(rows).astype(np.float64))
            said = apply_threshold(p, fold.threshold)
            assert found["macro_f1"] == pytest.approx(macro_f1(toy.labels[rows], said, 2))
            assert found["loss"] == pytest.approx(-np.log(p[np.arange(len(rows)), toy.labels[rows]]).mean())


def test_the_watcher_hears_of_every_epoch_of_every_fold(toy: Corpus, tmp_path: Path) -> None:
    heard: list[tuple[int, int]] = []
    how = TrainingSettings(epochs=2, learning_rate=5e-3, batch_size=64)
    train_baseline(toy, TINY, how, tmp_path / "stage", lambda fold, epoch, _: heard.append((fold, epoch)))
    assert heard == [(0, 1), (0, 2), (1, 1), (1, 2)]
