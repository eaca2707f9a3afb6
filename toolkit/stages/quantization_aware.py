"""Quantization-aware training: distillation with weights and activations quantized to int8 in the forward pass."""

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

from toolkit.modeling.classifier import Classifier, like_lengths, pad
from toolkit.modeling.tokenizer import encode
from toolkit.stages.distillation_data import DistillationData
from toolkit.training.fake_quantization import fake_quantized
from toolkit.training.trainer import Loop, WatchEpoch, fit, steps_of
from toolkit.utils import console

CALIBRATION_BATCH = 32
LEARNING_RATE_FACTOR = 0.25
"""Factor on the learning rate of the student: the weights only need small changes."""


def quantization_aware(
    classifier: Classifier, data: DistillationData, work: Path, watch: WatchEpoch | None = None
) -> tuple[Classifier, dict[str, Any]]:
    """Return a floating-point copy of `classifier` after quantization-aware training, and the training details.

    It trains for `fine_tune_epochs`, at LEARNING_RATE_FACTOR times the student's learning rate. The best epoch is the
    best one under fake quantization.
    work: folder for checkpoints of the optimizer; training under the same recipe resumes from there.
    Raises: InputError as `fake_quantized`.
    """
    recipe, seed = data.recipe, data.corpus.settings.seed
    encoded = encode(classifier.tokenizer, data.calibration().texts)
    groups = like_lengths(encoded, CALIBRATION_BATCH)
    batches = [pad([encoded[i] for i in chosen], classifier.pad_id) for chosen in groups]
    training = data.further_training
    assert training.learning_rate != "auto"
    rate = LEARNING_RATE_FACTOR * training.learning_rate
    training = replace(training, epochs=recipe.pruning.fine_tune_epochs, learning_rate=rate)
    trained = replace(classifier, network=copy.deepcopy(classifier.network))
    with (
        fake_quantized(trained.network, batches),
        console.bar("int8: fine-tuning", steps_of(len(data.train.texts), training)) as advance,
    ):
        found = fit(
            trained,
            data.train,
            data.validation,
            training,
            seed,
            work / recipe.sha256()[:16],  # a changed recipe must not resume from old checkpoints
            data.distillation_loss,
            Loop(watch=watch, advance=advance),
        )
    return trained, {"learning_rate": rate, "best_epoch": found.best_epoch, "history": found.history}
