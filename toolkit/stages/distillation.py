"""The distillation stage: a student learns a teacher's logits, computed once, and the labels."""

import shutil
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from toolkit.config.settings import DistillationSettings, ModelSettings, TrainingSettings
from toolkit.data.corpus import Corpus
from toolkit.evaluation.comparison import Contender, versus
from toolkit.evaluation.predictions import evaluate
from toolkit.modeling.classifier import WEIGHTS_FILE, Classifier
from toolkit.modeling.ngram import is_ngram
from toolkit.modeling.students import build_student
from toolkit.stages.distillation_data import Lessons, lessons
from toolkit.stages.result import StageResult, keep_trained
from toolkit.stages.teachers import TEACHER_FILE, Teacher, load_teacher
from toolkit.training.feature_distillation import Imitation, Inside, refuse_unfit
from toolkit.training.ngram_regression import fit_ngram
from toolkit.training.trainer import WatchEpoch, fit, steps_of
from toolkit.utils import console
from toolkit.utils.files import whole_folder


def distil(
    teacher: Teacher,
    corpus: Corpus,
    how: DistillationSettings,
    model: ModelSettings,
    training: TrainingSettings,
    out: Path,
    cache: Path,
    watch: WatchEpoch | None = None,
) -> StageResult:
    """Train the student that `how` names to imitate `teacher` on the training rows of `corpus`.

    cache: folder of the logits that were computed before.
    Raises: InputError if the student cannot be made or cannot imitate what `how` says.
    """
    started = time.monotonic()
    teaching = load_teacher(teacher.checkpoint.as_posix(), corpus)
    taught = lessons(teacher, corpus, how, cache)
    with whole_folder(out) as partial:
        if is_ngram(how.student):
            student, learned = _fit_ngram(taught, corpus, how, watch)
        else:
            student, learned = _fit_network(teaching, taught, corpus, how, model, training, partial, watch)
        result, predictions = keep_trained("distillation", "student", student, corpus, partial, started)
        teacher.predictions.save(partial / TEACHER_FILE, corpus)
        taught_by = evaluate(corpus, teacher.predictions, teacher.threshold)
        result = replace(
            result,
            details={
                "student": how.student,
                "kd_method": how.kd_method,
                "teacher": teacher.source,
                "teacher_name": teacher.name,
                "teacher_checkpoint": teacher.checkpoint.as_posix(),
                "teacher_validation_metrics": taught_by[0],
                "teacher_metrics": taught_by[1],
                "teacher_slices": taught_by[2],
                "teacher_parameters": teaching.parameters,
                "teacher_size_bytes": _size_of(teacher.checkpoint, teaching),
                "floor_share": teacher.floor_share,
                "teacher_threshold": teacher.threshold,
                "versus_teacher": versus(
                    corpus,
                    Contender("student", predictions, result.threshold),
                    Contender(teacher.name, teacher.predictions, teacher.threshold),
                ).comparison.as_dict(),
            }
            | taught.further
            | learned,
        )
        result.save(partial)
    return result


def _fit_network(
    teaching: Classifier,
    taught: Lessons,
    corpus: Corpus,
    how: DistillationSettings,
    model: ModelSettings,
    training: TrainingSettings,
    partial: Path,
    watch: WatchEpoch | None,
) -> tuple[Classifier, dict[str, Any]]:
    assert how.student is not None
    student = build_student(how.student, teaching, model, corpus.take(corpus.rows("train")), corpus.settings.seed)
    imitation = imitation_of(how, teaching, student)
    with console.bar("student", steps_of(len(taught.train.texts), training)) as advance:
        found = fit(
            student,
            taught.train,
            taught.validation,
            training,
            corpus.settings.seed,
            partial / "training",
            imitation,
            watch,
            advance,
        )
    shutil.rmtree(partial / "training")
    return student, {"best_epoch": found.best_epoch, "history": found.history}


def imitation_of(how: DistillationSettings, teaching: Classifier, student: Classifier) -> Imitation:
    """What `student` imitates of its teacher, one network of which is `teaching`.

    Raises: InputError if the two are too unlike for the method.
    """
    refuse_unfit(how.kd_method, teaching, student)
    if how.kd_method == "logit":
        return Imitation(how.kd_alpha, how.kd_temperature)
    inside = Inside(teaching, how.kd_method, how.hidden_loss_weight, how.attention_loss_weight)
    return Imitation(how.kd_alpha, how.kd_temperature, inside)


def _fit_ngram(
    taught: Lessons, corpus: Corpus, how: DistillationSettings, watch: WatchEpoch | None
) -> tuple[Classifier, dict[str, Any]]:
    assert how.student is not None
    with console.working("student: fitting n-grams"):
        return fit_ngram(how.student, taught.train, taught.validation, corpus.label_names, how.kd_alpha, watch)


def _size_of(checkpoint: Path, classifier: Classifier) -> int:
    """Bytes of the weights, as they lie on the disk or, of a hub model, as they would."""
    file = checkpoint / WEIGHTS_FILE
    return file.stat().st_size if file.is_file() else 4 * classifier.parameters
