"""Recovery: fine-tune a pruned network on the logits of the original teacher, at full length or as a short trial."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from toolkit.modeling.classifier import Classifier
from toolkit.stages.distillation_data import DistillationData
from toolkit.training.trainer import Loop, WatchEpoch, fit, steps_of
from toolkit.utils import console
from toolkit.utils.scratch import scratch_folder

TRIAL_TEXTS = 4096
"""Number of texts in a trial, the short recovery by which plans are compared."""


@dataclass
class Recovery:
    """Fine-tuning of a pruned classifier over one or several rounds of pruning."""

    data: DistillationData
    work: Path
    """Folder of plans and optimizer checkpoints."""
    watch: WatchEpoch | None = None
    epochs_before: int = 0
    """Epochs of earlier rounds; `watch` counts epochs over all rounds."""

    def __call__(
        self,
        classifier: Classifier,
        epochs: int,
        name: str,
        after_step: Callable[[int], None] | None = None,
        choose_from: int = 1,
    ) -> dict[str, Any]:
        """Fine-tune `classifier` in place; after_step and choose_from as in `toolkit.training.trainer.Loop`.

        name: subfolder for optimizer checkpoints; an interrupted recovery resumes under the same name.
        Returns: the best epoch and the history.
        """
        training = replace(self.data.further_training, epochs=epochs)
        before = self.epochs_before

        def watch(epoch: int, metrics: dict[str, float]) -> None:
            if self.watch is not None:
                self.watch(before + epoch, metrics)

        with console.bar("pruned: recovering", steps_of(len(self.data.train.texts), training)) as advance:
            found = fit(
                classifier,
                self.data.train,
                self.data.validation,
                training,
                self.data.corpus.settings.seed,
                self.work / name,
                self.data.distillation_loss,
                Loop(watch=watch, advance=advance, after_step=after_step, choose_from=choose_from),
            )
        self.epochs_before += epochs
        return {"best_epoch": found.best_epoch, "history": found.history}

    def trial(self, classifier: Classifier) -> float:
        """Train for one epoch on TRIAL_TEXTS texts; see `toolkit.pruning.plan.Trial`."""
        train, seed = self.data.train, self.data.corpus.settings.seed
        some = train.take(np.sort(np.random.default_rng(seed).permutation(len(train.texts))[:TRIAL_TEXTS]))
        training = replace(self.data.further_training, epochs=1)
        validation, loss = self.data.validation, self.data.distillation_loss
        with (
            scratch_folder() as work,
            console.bar("pruning: trial of a plan", steps_of(len(some.texts), training)) as advance,
        ):
            found = fit(classifier, some, validation, training, seed, work, loss, Loop(advance=advance))
            return found.history[0]["val_loss"]
