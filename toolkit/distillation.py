"""The distillation stage: a student learns a teacher's logits, computed once, and the labels."""

import hashlib
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from toolkit import progress
from toolkit.baseline import predict_rows
from toolkit.classifier import WEIGHTS_FILE, Classifier, load_classifier, save_classifier
from toolkit.comparisons import Contender, versus
from toolkit.corpus import Corpus
from toolkit.errors import InputError
from toolkit.recipe import DistillationSettings, ModelSettings, TrainingSettings
from toolkit.stage import PREDICTIONS_FILE, Predictions, StageResult, evaluate, whole_folder
from toolkit.students import build_student
from toolkit.training import Examples, Imitation, fit, steps_of


@dataclass(frozen=True)
class Teacher:
    """What a student learns from."""

    checkpoint: Path
    """The one network whose layers, tokenizer and size count."""
    predictions: Predictions
    """Logits on all rows; on training rows from classifiers that did not learn from them, where there are such."""
    threshold: float | None
    source: str
    """In words, for the card."""


def teacher_of_stage(stage: Path) -> Teacher:
    """The fold ensemble of a finished baseline stage."""
    result = StageResult.load(stage)
    return Teacher(
        stage / result.checkpoint,
        Predictions.load(stage / result.predictions),
        result.threshold,
        "fold ensemble, out-of-fold on training rows",
    )


def load_teacher(folder: Path, corpus: Corpus) -> Classifier:
    """The classifier in `folder`. Raises InputError if it does not load or its labels are not those of the corpus."""
    classifier = load_classifier(folder)
    if classifier.labels != corpus.label_names:
        raise InputError(
            f"--teacher {folder}: its labels are {', '.join(classifier.labels)} and those of the corpus "
            f"{', '.join(corpus.label_names)}; name them alike with --label-names"
        )
    return classifier


def teacher_of_checkpoint(folder: Path, corpus: Corpus, cache: Path) -> Teacher:
    """One checkpoint as the teacher; its logits are computed once and kept in `cache`.

    Raises: InputError if it does not load or its labels are not those of the corpus.
    """
    classifier = load_teacher(folder, corpus)
    key = hashlib.sha256((folder / WEIGHTS_FILE).read_bytes() + corpus.fingerprint.encode()).hexdigest()[:16]
    file = cache / f"teacher-{key}.csv"
    if not file.exists():
        cache.mkdir(parents=True, exist_ok=True)
        rows = corpus.rows("all")
        unfinished = file.with_suffix(".partial")
        predict_rows(classifier, corpus, rows, "teacher").save(unfinished, corpus)
        unfinished.rename(file)
    predictions = Predictions.load(file)
    threshold = classifier.threshold
    if threshold is None:
        threshold = evaluate(corpus, predictions)[0].get("best_threshold")
    return Teacher(folder, predictions, threshold, "one checkpoint, which may have learned from any of these rows")


def distil(
    teacher: Teacher,
    corpus: Corpus,
    how: DistillationSettings,
    model: ModelSettings,
    training: TrainingSettings,
    out: Path,
    watch: Callable[[int, dict[str, float]], None] | None = None,
) -> StageResult:
    """Train the student that `how` names to imitate `teacher` on the training rows of `corpus`.

    Raises: InputError if the student cannot be made.
    """
    started = time.monotonic()
    assert how.student is not None
    train, validation = corpus.rows("train"), corpus.rows("validation")
    teaching = load_classifier(teacher.checkpoint)
    student = build_student(how.student, teaching, model, corpus.take(train), corpus.settings.seed)
    with whole_folder(out) as partial:
        with progress.bar("student", steps_of(len(train), training)) as advance:
            found = fit(
                student,
                Examples(corpus.take(train), corpus.labels[train], teacher.predictions.of(train)),
                Examples(corpus.take(validation), corpus.labels[validation]),
                training,
                corpus.settings.seed,
                partial / "training",
                Imitation(how.kd_alpha, how.kd_temperature),
                watch,
                advance,
            )
        rows = np.concatenate([validation, corpus.rows("test")])
        predictions = predict_rows(student, corpus, rows, "student: predicting")
        predictions.save(partial / PREDICTIONS_FILE, corpus)
        validation_metrics, test_metrics, slices = evaluate(corpus, predictions)
        threshold = validation_metrics.get("best_threshold")
        save_classifier(student.with_threshold(threshold), partial)
        shutil.rmtree(partial / "training")
        result = StageResult(
            stage="distillation",
            checkpoint=".",
            metrics=test_metrics,
            validation_metrics=validation_metrics,
            threshold=threshold,
            parameters=student.parameters,
            size_bytes=(partial / WEIGHTS_FILE).stat().st_size,
            seconds=time.monotonic() - started,
            slices=slices,
            details={
                "student": how.student,
                "teacher": teacher.source,
                "teacher_parameters": teaching.parameters,
                "teacher_size_bytes": (teacher.checkpoint / WEIGHTS_FILE).stat().st_size,
                "best_epoch": found.best_epoch,
                "history": found.history,
                "versus_teacher": versus(
                    corpus,
                    Contender("student", predictions, threshold),
                    Contender("teacher", teacher.predictions, teacher.threshold),
                ).comparison.as_dict(),
            },
        )
        result.save(partial)
    return result
