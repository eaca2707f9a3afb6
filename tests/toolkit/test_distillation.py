import dataclasses
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.helpers import TINY
from toolkit.baseline import combine_folds, fold_predictions, train_baseline
from toolkit.classifier import Classifier, load_classifier, save_classifier
from toolkit.corpus import Corpus
from toolkit.distillation import distil, teacher_of_checkpoint, teacher_of_stage
from toolkit.errors import InputError
from toolkit.metrics import apply_threshold, calculate_metrics_with_threshold_exploration, softmax
from toolkit.recipe import DistillationSettings, TrainingSettings
from toolkit.runs import baseline_stage
from toolkit.stage import Predictions, StageResult
from toolkit.training import Examples, Fit, Imitation

HOW = TrainingSettings(epochs=1, learning_rate=5e-3, batch_size=16)
STUDENT = DistillationSettings(student="layers:1", kd_alpha=0.3, kd_temperature=2.5)


@pytest.fixture(scope="module")
def stage(toy: Corpus, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("run") / "1-baseline"
    train_baseline(toy, TINY, HOW, out)
    return out


class Spy:
    """Stands in for `fit`: keeps what it was given and trains nothing."""

    def __init__(self) -> None:
        self.train: Examples | None = None
        self.validation: Examples | None = None
        self.imitation: Imitation | None = None

    def __call__(
        self,
        made: Classifier,
        train: Examples,
        validation: Examples,
        how: TrainingSettings,
        seed: int,
        work: Path,
        imitation: Imitation | None = None,
        *_: Any,
    ) -> Fit:
        work.mkdir(parents=True)
        self.train, self.validation, self.imitation = train, validation, imitation
        return Fit(1, [{"epoch": 1, "val_macro_f1": 0.5}])


def test_a_student_is_taught_by_folds_that_did_not_see_the_row(
    toy: Corpus, stage: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spy = Spy()
    monkeypatch.setattr("toolkit.distillation.fit", spy)
    distil(teacher_of_stage(stage), toy, STUDENT, TINY, HOW, tmp_path / "2-distillation")
    assert spy.train is not None
    assert spy.validation is not None
    rows = toy.rows("train")
    assert list(spy.train.texts) == toy.take(rows)
    expected = [fold_predictions(stage, toy.fold[row]).of(np.array([row]))[0] for row in rows]
    np.testing.assert_array_equal(spy.train.teacher_logits, expected)
    assert set(spy.validation.texts) == set(toy.take(toy.rows("validation")))
    assert spy.imitation == Imitation(0.3, 2.5)


def test_no_student_learns_from_held_out_rows(
    toy: Corpus, stage: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spy = Spy()
    monkeypatch.setattr("toolkit.distillation.fit", spy)
    distil(teacher_of_stage(stage), toy, STUDENT, TINY, HOW, tmp_path / "2-distillation")
    assert spy.train is not None
    assert not set(spy.train.texts) & {*toy.take(toy.rows("test")), *toy.take(toy.rows("validation"))}


def test_a_finished_baseline_teaches_with_its_ensemble(toy: Corpus, stage: Path) -> None:
    teacher = teacher_of_stage(stage)
    result = StageResult.load(stage)
    assert teacher.checkpoint == stage / result.checkpoint
    assert teacher.threshold == result.threshold
    rows = toy.rows("all")
    expected = combine_folds(toy, [fold_predictions(stage, k) for k in range(2)])
    np.testing.assert_array_equal(teacher.predictions.of(rows), expected.of(rows))


def count_predictions(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    calls: list[int] = []
    honest = Classifier.predict_logits

    def counted(self: Classifier, texts: list[str], *others: Any, **named: Any) -> np.ndarray:
        calls.append(len(texts))
        return honest(self, texts, *others, **named)

    monkeypatch.setattr(Classifier, "predict_logits", counted)
    return calls


def test_a_checkpoints_logits_are_computed_once(
    toy: Corpus, learned: Classifier, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_classifier(learned, tmp_path / "teacher")
    calls = count_predictions(monkeypatch)
    first = teacher_of_checkpoint(tmp_path / "teacher", toy, tmp_path / "cache")
    assert calls == [len(toy.rows("all"))]
    again = teacher_of_checkpoint(tmp_path / "teacher", toy, tmp_path / "cache")
    assert len(calls) == 1
    assert again.predictions.logits.tobytes() == first.predictions.logits.tobytes()
    assert (again.threshold, first.threshold) == (0.45, 0.45)


def test_another_teacher_in_the_same_folder_is_computed_anew(
    toy: Corpus, learned: Classifier, classifier: Classifier, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_classifier(learned, tmp_path / "teacher")
    teacher_of_checkpoint(tmp_path / "teacher", toy, tmp_path / "cache")
    save_classifier(classifier, tmp_path / "teacher")
    calls = count_predictions(monkeypatch)
    teacher = teacher_of_checkpoint(tmp_path / "teacher", toy, tmp_path / "cache")
    assert len(calls) == 1
    np.testing.assert_array_equal(
        teacher.predictions.of(toy.rows("test")), classifier.predict_logits(toy.take(toy.rows("all")))[_places(toy)]
    )


def _places(toy: Corpus) -> np.ndarray:
    return np.searchsorted(toy.rows("all"), toy.rows("test"))


def test_other_rows_are_computed_anew(
    toy: Corpus, learned: Classifier, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_classifier(learned, tmp_path / "teacher")
    teacher_of_checkpoint(tmp_path / "teacher", toy, tmp_path / "cache")
    calls = count_predictions(monkeypatch)
    other = dataclasses.replace(toy, texts=[text.replace("made-up", "invented") for text in toy.texts])
    teacher_of_checkpoint(tmp_path / "teacher", other, tmp_path / "cache")
    assert len(calls) == 1


def test_a_cache_that_was_not_finished_is_not_read(
    toy: Corpus, learned: Classifier, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def dies(self: Predictions, file: Path, corpus: Corpus) -> None:
        file.write_text("row,split\n")
        raise KeyboardInterrupt

    save_classifier(learned, tmp_path / "teacher")
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Predictions, "save", dies)
        teacher_of_checkpoint(tmp_path / "teacher", toy, tmp_path / "cache")
    teacher = teacher_of_checkpoint(tmp_path / "teacher", toy, tmp_path / "cache")
    assert len(teacher.predictions.rows) == len(toy.rows("all"))


def test_a_teacher_without_a_threshold_gets_one_from_validation_rows(
    toy: Corpus, learned: Classifier, tmp_path: Path
) -> None:
    save_classifier(learned.with_threshold(None), tmp_path / "teacher")
    teacher = teacher_of_checkpoint(tmp_path / "teacher", toy, tmp_path / "cache")
    rows = toy.rows("validation")
    metrics = calculate_metrics_with_threshold_exploration(toy.labels[rows], softmax(teacher.predictions.of(rows)))
    assert teacher.threshold == metrics["best_threshold"]


@pytest.mark.parametrize("labels", [("sun", "sea"), ("sea", "moon"), ("sea", "sun", "moon")])
def test_a_teacher_of_other_labels_is_refused(
    toy: Corpus, learned: Classifier, tmp_path: Path, labels: tuple[str, ...]
) -> None:
    save_classifier(learned, tmp_path / "teacher")
    other = dataclasses.replace(toy, label_names=labels)
    with pytest.raises(InputError, match=r"its labels are sea, sun .* --label-names"):
        teacher_of_checkpoint(tmp_path / "teacher", other, tmp_path / "cache")
    assert not (tmp_path / "cache").exists()


def test_a_student_stage_keeps_what_it_says(toy: Corpus, stage: Path, tmp_path: Path) -> None:
    result = distil(teacher_of_stage(stage), toy, STUDENT, TINY, HOW, tmp_path / "2-distillation")
    folder = tmp_path / "2-distillation"
    assert StageResult.load(folder) == result
    made = load_classifier(folder)
    rows = np.concatenate([toy.rows("validation"), toy.rows("test")])
    predictions = Predictions.load(folder / result.predictions)
    np.testing.assert_array_equal(predictions.of(rows), made.predict_logits(toy.take(rows)))
    assert made.threshold == result.threshold == result.validation_metrics["best_threshold"]
    versus = result.details["versus_teacher"]
    assert versus["rows"] == len(toy.rows("test"))
    test = toy.rows("test")
    teacher = StageResult.load(stage)
    mine = apply_threshold(softmax(predictions.of(test)), result.threshold)
    theirs = apply_threshold(softmax(Predictions.load(stage / "predictions.csv").of(test)), teacher.threshold)
    assert versus["agreement"] == pytest.approx((mine == theirs).mean())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["2-distillation"]
    assert not (folder / "training").exists()


def test_a_baseline_is_found_in_a_run_and_in_itself(stage: Path, tmp_path: Path) -> None:
    assert baseline_stage(stage) == baseline_stage(stage.parent) == stage
    assert baseline_stage(tmp_path) is None
    shutil.copytree(stage, tmp_path / "1-baseline.partial", ignore=lambda *_: ["result.json"])
    assert baseline_stage(tmp_path) is None
