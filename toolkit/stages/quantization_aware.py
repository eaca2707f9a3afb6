"""Quantization-aware training: a classifier learns from its teacher with weights and inputs rounded to eight bits."""

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

from toolkit.config.settings import Recipe
from toolkit.data.corpus import Corpus
from toolkit.modeling.classifier import Classifier, like_lengths, pad
from toolkit.modeling.tokenizer import encode
from toolkit.stages.distillation_data import calibration_examples, lessons
from toolkit.stages.teachers import Teacher
from toolkit.training.fake_quantization import _parts, fake_quantized
from toolkit.training.feature_distillation import Imitation
from toolkit.training.trainer import WatchEpoch, fit, steps_of
from toolkit.utils import console

CALIBRATION_BATCH = 32
SLOWER = 0.25
"""Times the learning rate of the student: little is to be learned, and large steps would undo what is known."""


def quantization_aware(
    classifier: Classifier,
    teacher: Teacher,
    corpus: Corpus,
    recipe: Recipe,
    work: Path,
    cache: Path,
    watch: WatchEpoch | None = None,
) -> tuple[Classifier, dict[str, Any]]:
    """A copy of `classifier`, in floating point, that learned from `teacher` again while fake-quantized, and how.

    It trains as long as a pruned network recovers, SLOWER; the best epoch is the best one fake-quantized.
    work: folder for checkpoints of the optimiser; training under the same recipe goes on from there.
    Raises: InputError as `fake_quantized`.
    """
    _parts(classifier.network)  # or it would be refused after the teacher has labelled for minutes
    taught = lessons(teacher, corpus, recipe.distillation, cache)
    count, seed = recipe.pruning.calib_samples, corpus.settings.seed
    encoded = encode(classifier.tokenizer, calibration_examples(taught, len(corpus.rows("train")), count, seed).texts)
    batches = [
        pad([encoded[i] for i in chosen], classifier.pad_id) for chosen in like_lengths(encoded, CALIBRATION_BATCH)
    ]
    as_student = recipe.student_training()
    rate = SLOWER * as_student.learning_rate
    how = replace(as_student, epochs=recipe.pruning.fine_tune_epochs, learning_rate=rate)
    made = replace(classifier, network=copy.deepcopy(classifier.network))
    with (
        fake_quantized(made.network, batches),
        console.bar("int8: fine-tuning", steps_of(len(taught.train.texts), how)) as advance,
    ):
        found = fit(
            made,
            taught.train,
            taught.validation,
            how,
            seed,
            work / recipe.sha256()[:16],  # never on from what was broken off under other settings
            Imitation(recipe.distillation.kd_alpha, recipe.distillation.kd_temperature),
            watch,
            advance,
        )
    return made, {"learning_rate": rate, "best_epoch": found.best_epoch, "history": found.history}
