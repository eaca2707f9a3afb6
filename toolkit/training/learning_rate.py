"""Find the learning rate of a training by short trials, each of which has the whole schedule of warmup and decay."""

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from toolkit.config.settings import TrainingSettings
from toolkit.modeling.classifier import Classifier
from toolkit.training.dataset import Examples
from toolkit.training.feature_distillation import DistillationLoss
from toolkit.training.stopping import LOSS
from toolkit.training.trainer import Loop, fit, steps_of
from toolkit.utils import console
from toolkit.utils.files import read_json, write_text
from toolkit.utils.scratch import scratch_folder

RATES = (1e-5, 2e-5, 5e-5, 1e-4, 2e-4, 5e-4, 1e-3, 2e-3)
START = 1e-4
"""First rate to try; then its neighbors, as long as the validation loss falls."""
TEXTS = 4096
"""Most texts of a trial."""
EPOCHS = 2
GAIN = 0.01
"""A higher rate must lower the loss of its trial by this share: in few epochs, it is ahead of a lower one."""
RATE_FILE = "learning_rate.json"
"""File of a stage with the learning rate that was found and the losses of its trials."""

Start = Callable[[], tuple[Classifier, DistillationLoss | None]]
"""Return a new classifier with its initial weights, and its distillation loss if it is a student."""


@dataclass(frozen=True)
class RateSearch:
    """The learning rates that were tried, and the chosen one."""

    rate: float
    losses: dict[float, float]
    """Rate -> validation loss after its trial; that of a training that diverged is infinite."""

    def as_dict(self) -> dict[str, Any]:
        """Return the fields as values that JSON can hold."""
        losses = {f"{rate:g}": loss if np.isfinite(loss) else None for rate, loss in sorted(self.losses.items())}
        return {"learning_rate": self.rate, "trials": losses}


def find_learning_rate(
    start: Start, train: Examples, validation: Examples, settings: TrainingSettings, seed: int
) -> RateSearch:
    """Return the rate of RATES with the lowest validation loss, nearly, after EPOCHS epochs on at most TEXTS texts.

    The loss is a convex function of the logarithm of the rate, roughly, so rates are tried from START in the direction
    in which it falls.
    """
    some = np.sort(np.random.default_rng(seed).permutation(len(train.texts))[:TEXTS])
    texts, trial = train.take(some), replace(settings, epochs=EPOCHS, early_stopping_patience=EPOCHS)
    losses: dict[float, float] = {}

    def loss_at(i: int) -> float:
        rate = RATES[i]
        if rate not in losses:
            classifier, distillation_loss = start()
            rated = replace(trial, learning_rate=rate)
            with (
                scratch_folder() as work,
                console.bar(f"trial of learning rate {rate:g}", steps_of(len(some), rated)) as advance,
            ):
                found = fit(classifier, texts, validation, rated, seed, work, distillation_loss, Loop(advance=advance))
            loss = found.history[-1][LOSS]
            losses[rate] = loss if np.isfinite(loss) else np.inf
        return losses[rate]

    best = climb(loss_at, RATES.index(START), len(RATES))
    return RateSearch(RATES[best], losses)


def with_learning_rate(
    settings: TrainingSettings, file: Path, search: Callable[[], RateSearch]
) -> tuple[TrainingSettings, dict[str, Any]]:
    """Return `settings` with the rate that `search` finds if it is "auto", and the trials of that search.

    file: keeps the result, so that an interrupted training resumes without a new search.
    """
    if settings.learning_rate != "auto":
        return settings, {}
    found = read_json(file)
    if found is None:
        found = search().as_dict()
        write_text(file, json.dumps(found, indent=2) + "\n")
        console.say(f"learning rate {found['learning_rate']:g}, found by {len(found['trials'])} short trials")
    return replace(settings, learning_rate=found["learning_rate"]), {"learning_rate_search": found}


def climb(loss_at: Callable[[int], float], start: int, count: int) -> int:
    """Return the place of a local minimum of `loss_at` over 0 … count - 1, found step by step from `start`.

    A step up must lower the loss by GAIN at least, and a step down at all.
    """
    for step in (1, -1):
        best, enough = start, 1 - GAIN if step > 0 else 1
        while 0 <= best + step < count and loss_at(best + step) < enough * loss_at(best):
            best += step
        if best != start:
            return best
    return start
