"""The distillation stage: train a student on the labels and on the logits of a teacher, which are computed once."""

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
from toolkit.training.learning_rate import RATE_FILE, find_learning_rate, with_learning_rate
from toolkit.training.ngram.search import NgramFit, fit_ngram
from toolkit.training.trainer import Loop, WatchEpoch, fit, paused_history, steps_of
from toolkit.utils import console
from toolkit.utils.files import PARTIAL, whole_folder
from toolkit.utils.scratch import remove_folder

TRAINING = "training"
"""Folder of the optimizer's checkpoints in the unfinished folder of the stage."""


def distil(data: DistillationData, out: Path, watch: WatchEpoch | None = None) -> StageResult:
    """Train the student named in the recipe of `data` and write the stage `out`.

    Raises: InputError if the student cannot be built or does not support the distillation method of the recipe.
    """
    started = time.monotonic()
    teacher, corpus, settings = data.teacher, data.corpus, data.recipe.distillation
    network = load_teacher(teacher.checkpoint.as_posix(), corpus) if not teacher.labels_alone else None
    with whole_folder(out) as partial:
        out_of_fold = None
        if is_ngram(settings.student):
            found = _fit_ngram(data, watch)
            student, details = found.student, found.details
            out_of_fold = found.out_of_fold(corpus.rows("train"))
        else:
            assert network is not None, "a network has a teacher"
            student, details = _fit_network(data, network, partial, watch)
        result, predictions = keep_trained(
            "distillation", "student", student, corpus, partial, started, teacher.rule, out_of_fold
        )
        teacher.predictions.save(partial / TEACHER_FILE, corpus)
        validation_metrics, test_metrics, slices = evaluate(corpus, teacher.predictions, teacher.rule)
        result = replace(
            result,
            details=result.details
            | {
                "student": settings.student,
                "kd_method": settings.kd_method,
                "teacher": teacher.source,
                "teacher_name": teacher.name,
                "teacher_checkpoint": teacher.checkpoint.as_posix(),
                "teacher_validation_metrics": validation_metrics,
                "teacher_metrics": test_metrics,
                "teacher_slices": slices,
                **_size_of(teacher.checkpoint, network),
                "floor_share": teacher.floor_share,
                "teacher_rule": teacher.rule.as_dict(),
                "versus_teacher": versus(
                    corpus,
                    Contender("student", predictions, result.rule),
                    Contender(teacher.name, teacher.predictions, teacher.rule),
                ).comparison.as_dict(),
            }
            | data.counts
            | details,
        )
        result.save(partial)
    return result


def distil_until(
    data: DistillationData, out: Path, epoch: int, watch: WatchEpoch | None = None
) -> list[dict[str, float]]:
    """Train a network student up to `epoch` and return the losses and metrics of its epochs; `distil` goes on from it.

    Raises: InputError as `distil`.
    """
    partial = out.with_name(out.name + PARTIAL)
    begun = paused_history(partial / TRAINING)
    if len(begun) >= epoch:
        return begun
    network = load_teacher(data.teacher.checkpoint.as_posix(), data.corpus)
    partial.mkdir(exist_ok=True)
    _, details = _fit_network(data, network, partial, watch, epoch)
    return details["history"]


def _fit_network(
    data: DistillationData,
    teacher: Classifier,
    partial: Path,
    watch: WatchEpoch | None,
    pause_after: int | None = None,
) -> tuple[Classifier, dict[str, Any]]:
    settings, corpus = data.recipe.distillation, data.corpus
    student_name = settings.student
    assert student_name is not None
    texts, seed = corpus.take(corpus.rows("train")), corpus.settings.seed

    def start() -> tuple[Classifier, DistillationLoss]:
        student = build_student(student_name, teacher, data.recipe.model, texts, seed)
        return student, distillation_loss_of(settings, teacher, student)

    training, search = with_learning_rate(
        data.training,
        partial / RATE_FILE,
        lambda: find_learning_rate(start, data.train, data.validation, data.training, seed),
    )
    student, distillation_loss = start()
    with console.bar("student", steps_of(len(data.train.texts), training)) as advance:
        found = fit(
            student,
            data.train,
            data.validation,
            training,
            seed,
            partial / TRAINING,
            distillation_loss,
            Loop(watch=watch, advance=advance, pause_after=pause_after),
        )
    if pause_after is None:
        remove_folder(partial / TRAINING)
    return student, search | {
        "learning_rate": training.learning_rate,
        "best_epoch": found.best_epoch,
        "history": found.history,
    }


def distillation_loss_of(settings: DistillationSettings, teacher: Classifier, student: Classifier) -> DistillationLoss:
    """Return the distillation loss of `student` for the method in `settings`.

    teacher: the network of the teacher whose features are distilled; not used for logit distillation.
    Raises: InputError if the method does not support this pair of networks.
    """
    refuse_unfit(settings.kd_method, teacher, student)
    if settings.kd_method == "logit":
        return DistillationLoss(settings.kd_alpha, settings.kd_temperature)
    features = FeatureTargets(teacher, settings.kd_method, settings.hidden_loss_weight, settings.attention_loss_weight)
    return DistillationLoss(settings.kd_alpha, settings.kd_temperature, features)


def _fit_ngram(data: DistillationData, watch: WatchEpoch | None) -> NgramFit:
    settings, labels = data.recipe.distillation, data.corpus.label_names
    assert settings.student is not None
    with console.working("student: fitting the n-gram table"):
        return fit_ngram(settings.student, data.train, data.validation, labels, settings.kd_alpha, data.folds, watch)


def _size_of(checkpoint: Path, network: Classifier | None) -> dict[str, int]:
    """Return number of parameters and bytes of the teacher; those of the linear baseline without a network."""
    if network is None:
        linear = StageResult.load(checkpoint)
        parameters, size = linear.parameters, linear.size_bytes
    else:
        file = checkpoint / WEIGHTS_FILE  # of a hub model there is none: in float32, a parameter has 4 bytes
        parameters = network.parameters
        size = file.stat().st_size if file.is_file() else 4 * parameters
    return {"teacher_parameters": parameters, "teacher_size_bytes": size}
