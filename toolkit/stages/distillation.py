"""The distillation stage: a student learns a teacher's logits, computed once, and the labels."""

import shutil
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from toolkit.config.settings import DistillationSettings
from toolkit.evaluation.comparison import Contender, versus
from toolkit.evaluation.predictions import evaluate
from toolkit.modeling.classifier import WEIGHTS_FILE, Classifier
from toolkit.modeling.ngram import is_ngram
from toolkit.modeling.students import build_student
from toolkit.stages.distillation_data import DistillationData
from toolkit.stages.result import StageResult, keep_trained
from toolkit.stages.teachers import TEACHER_FILE, load_teacher
from toolkit.training.feature_distillation import DistillationLoss, FeatureTargets, refuse_unfit
from toolkit.training.ngram_regression import fit_ngram
from toolkit.training.trainer import Loop, WatchEpoch, fit, steps_of
from toolkit.utils import console
from toolkit.utils.files import whole_folder


def distil(data: DistillationData, out: Path, watch: WatchEpoch | None = None) -> StageResult:
    """Train the student that the recipe of `data` names, and write it as the stage `out`.

    Raises: InputError if the student cannot be made or cannot learn by the method that the recipe names.
    """
    started = time.monotonic()
    teacher, corpus, how = data.teacher, data.corpus, data.recipe.distillation
    network = load_teacher(teacher.checkpoint.as_posix(), corpus)
    with whole_folder(out) as partial:
        if is_ngram(how.student):
            student, learned = _fit_ngram(data, watch)
        else:
            student, learned = _fit_network(data, network, partial, watch)
        result, predictions = keep_trained("distillation", "student", student, corpus, partial, started)
        teacher.predictions.save(partial / TEACHER_FILE, corpus)
        validation_metrics, test_metrics, slices = evaluate(corpus, teacher.predictions, teacher.threshold)
        result = replace(
            result,
            details={
                "student": how.student,
                "kd_method": how.kd_method,
                "teacher": teacher.source,
                "teacher_name": teacher.name,
                "teacher_checkpoint": teacher.checkpoint.as_posix(),
                "teacher_validation_metrics": validation_metrics,
                "teacher_metrics": test_metrics,
                "teacher_slices": slices,
                "teacher_parameters": network.parameters,
                "teacher_size_bytes": _size_of(teacher.checkpoint, network),
                "floor_share": teacher.floor_share,
                "teacher_threshold": teacher.threshold,
                "versus_teacher": versus(
                    corpus,
                    Contender("student", predictions, result.threshold),
                    Contender(teacher.name, teacher.predictions, teacher.threshold),
                ).comparison.as_dict(),
            }
            | data.counts
            | learned,
        )
        result.save(partial)
    return result


def _fit_network(
    data: DistillationData, teaching: Classifier, partial: Path, watch: WatchEpoch | None
) -> tuple[Classifier, dict[str, Any]]:
    how, corpus, training = data.recipe.distillation, data.corpus, data.training
    assert how.student is not None
    texts, seed = corpus.take(corpus.rows("train")), corpus.settings.seed
    student = build_student(how.student, teaching, data.recipe.model, texts, seed)
    distillation_loss = distillation_loss_of(how, teaching, student)
    with console.bar("student", steps_of(len(data.train.texts), training)) as advance:
        found = fit(
            student,
            data.train,
            data.validation,
            training,
            seed,
            partial / "training",
            distillation_loss,
            Loop(watch=watch, advance=advance),
        )
    shutil.rmtree(partial / "training")
    return student, {"best_epoch": found.best_epoch, "history": found.history}


def distillation_loss_of(how: DistillationSettings, teaching: Classifier, student: Classifier) -> DistillationLoss:
    """What `student` imitates of its teacher, one network of which is `teaching`.

    Raises: InputError if the two are too unlike for the method.
    """
    refuse_unfit(how.kd_method, teaching, student)
    if how.kd_method == "logit":
        return DistillationLoss(how.kd_alpha, how.kd_temperature)
    features = FeatureTargets(teaching, how.kd_method, how.hidden_loss_weight, how.attention_loss_weight)
    return DistillationLoss(how.kd_alpha, how.kd_temperature, features)


def _fit_ngram(data: DistillationData, watch: WatchEpoch | None) -> tuple[Classifier, dict[str, Any]]:
    how = data.recipe.distillation
    assert how.student is not None
    with console.working("student: fitting n-grams"):
        return fit_ngram(how.student, data.train, data.validation, data.corpus.label_names, how.kd_alpha, watch)


def _size_of(checkpoint: Path, classifier: Classifier) -> int:
    """Bytes of the weights, as they lie on the disk or, of a hub model, as they would."""
    file = checkpoint / WEIGHTS_FILE
    return file.stat().st_size if file.is_file() else 4 * classifier.parameters
