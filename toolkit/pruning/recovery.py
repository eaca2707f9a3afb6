"""A cut network learns from the original teacher again, and for how a plan promises to do, a little of that."""

import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from toolkit.modeling.classifier import Classifier
from toolkit.stages.distillation_data import DistillationData
from toolkit.training.trainer import Loop, WatchEpoch, fit, steps_of
from toolkit.utils import console

TRIAL_TEXTS = 4096
"""Lessons of the short recovery by which plans are compared."""


@dataclass
class Recovery:
    """Training of a pruned classifier, over the epochs of all rounds."""

    data: DistillationData
    work: Path
    """Folder of plans and of checkpoints of the optimizer."""
    watch: WatchEpoch | None = None
    epochs_before: int = 0

    def __call__(
        self,
        classifier: Classifier,
        epochs: int,
        name: str,
        after_step: Callable[[int], None] | None = None,
        choose_from: int = 1,
    ) -> dict[str, Any]:
        """Let `classifier` learn again, in place; the last two arguments as in `toolkit.training.trainer.Loop`.

        name: of the work, which goes on under it if it was broken off.
        Returns: the best epoch and the history.
        """
        how = replace(self.data.training, epochs=epochs)
        before = self.epochs_before

        def watch(epoch: int, metrics: dict[str, float]) -> None:
            if self.watch is not None:
                self.watch(before + epoch, metrics)

        with console.bar("pruned: recovering", steps_of(len(self.data.train.texts), how)) as advance:
            found = fit(
                classifier,
                self.data.train,
                self.data.validation,
                how,
                self.data.corpus.settings.seed,
                self.work / name,
                self.data.distillation_loss,
                Loop(watch=watch, advance=advance, after_step=after_step, choose_from=choose_from),
            )
        self.epochs_before += epochs
        return {"best_epoch": found.best_epoch, "history": found.history}

    def trial(self, classifier: Classifier) -> float:
        """See `toolkit.pruning.plan.Trial`: an epoch of TRIAL_TEXTS lessons."""
        train, seed = self.data.train, self.data.corpus.settings.seed
        some = train.take(np.sort(np.random.default_rng(seed).permutation(len(train.texts))[:TRIAL_TEXTS]))
        how = replace(self.data.training, epochs=1)
        with (
            tempfile.TemporaryDirectory(prefix="hbt-trial-") as work,
            console.bar("pruning: trying a plan", steps_of(len(some.texts), how)) as advance,
        ):
            loss, loop = self.data.distillation_loss, Loop(advance=advance)
            found = fit(classifier, some, self.data.validation, how, seed, Path(work), loss, loop)
            return found.history[0]["val_loss"]
