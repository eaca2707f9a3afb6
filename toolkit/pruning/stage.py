"""The pruning stage: a checkpoint in, a smaller or sparser one out, its accuracy won back from the teacher."""

import copy
import json
import shutil
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from toolkit import progress
from toolkit.baseline import predict_rows
from toolkit.classifier import WEIGHTS_FILE, Classifier, load_classifier, save_classifier
from toolkit.comparisons import Contender, versus
from toolkit.corpus import Corpus
from toolkit.errors import InputError
from toolkit.examples import Examples
from toolkit.imitation import Imitation
from toolkit.lessons import Lessons, lessons
from toolkit.pruning.anatomy import Sizes, summary_of
from toolkit.pruning.plan import Lesson
from toolkit.pruning.structured import budget_of, prune_structured
from toolkit.pruning.unstructured import counted, prune_unstructured
from toolkit.recipe import Recipe
from toolkit.stage import PREDICTIONS_FILE, Predictions, StageResult, evaluate, whole_folder
from toolkit.summary import MB
from toolkit.teachers import Teacher
from toolkit.training import fit, steps_of
from toolkit.vocabulary import trimmed

TRIAL_TEXTS = 4096
"""Lessons of the short recovery by which plans are compared."""
WatchEpoch = Callable[[int, dict[str, float]], None]


def prune_stage(
    checkpoint: Path,
    name: str,
    teacher: Teacher,
    corpus: Corpus,
    recipe: Recipe,
    out: Path,
    cache: Path,
    watch: WatchEpoch | None = None,
) -> StageResult:
    """Prune the classifier in the folder `checkpoint` as `recipe` says, and write it as the stage `out`.

    name: what the checkpoint is called in comparisons. cache: folder of logits and costs that were computed before.
    Raises: InputError if its parts are not known here or the budget is out of reach.
    """
    started = time.monotonic()
    source = load_classifier(checkpoint)
    with whole_folder(out) as partial:
        work = partial / "training"
        try:
            pruned, told = prune(source, teacher, corpus, recipe, work, cache, watch)
        except InputError:
            shutil.rmtree(partial)  # refused, so nothing is to be gone on with
            raise
        rows = np.concatenate([corpus.rows("validation"), corpus.rows("test")])
        predictions = predict_rows(pruned, corpus, rows, "pruned: predicting")
        predictions.save(partial / PREDICTIONS_FILE, corpus)
        validation_metrics, test_metrics, slices = evaluate(corpus, predictions)
        threshold = validation_metrics.get("best_threshold")
        save_classifier(pruned.with_threshold(threshold), partial)
        if recipe.pruning.prune_method != "structured":
            told |= counted(partial / WEIGHTS_FILE, checkpoint / WEIGHTS_FILE, pruned.network, recipe.pruning)
        shutil.rmtree(work, ignore_errors=True)
        own = Contender("pruned", predictions, threshold)
        before = Contender(name, Predictions.load(checkpoint / PREDICTIONS_FILE), source.threshold)
        result = StageResult(
            stage="pruning",
            checkpoint=".",
            metrics=test_metrics,
            validation_metrics=validation_metrics,
            threshold=threshold,
            parameters=pruned.parameters,
            size_bytes=(partial / WEIGHTS_FILE).stat().st_size,
            seconds=time.monotonic() - started,
            slices=slices,
            details={
                "settings": asdict(recipe.pruning),
                "source": checkpoint.as_posix(),
                "source_name": name,
                "teacher": teacher.source,
                "versus_source": versus(corpus, own, before).comparison.as_dict(),
            }
            | told,
        )
        result.save(partial)
    return result


@dataclass
class Recovery:
    """Training of a pruned classifier, over the epochs of all rounds."""

    taught: Lessons
    imitation: Imitation
    recipe: Recipe
    work: Path
    watch: WatchEpoch | None
    epochs_before: int = 0

    def __call__(
        self,
        classifier: Classifier,
        epochs: int,
        name: str,
        after_step: Callable[[int], None] | None = None,
        choose_from: int = 1,
    ) -> dict[str, Any]:
        """See `toolkit.pruning.structured.Recover`; the last two arguments as in `toolkit.training.fit`."""
        how = replace(self.recipe.student_training(), epochs=epochs)
        before = self.epochs_before

        def watch(epoch: int, metrics: dict[str, float]) -> None:
            if self.watch is not None:
                self.watch(before + epoch, metrics)

        with progress.bar("pruned: recovering", steps_of(len(self.taught.train.texts), how)) as advance:
            found = fit(
                classifier,
                self.taught.train,
                self.taught.validation,
                how,
                self.recipe.corpus.seed,
                self.work / name,
                self.imitation,
                watch,
                advance,
                after_step=after_step,
                choose_from=choose_from,
            )
        self.epochs_before += epochs
        return {"best_epoch": found.best_epoch, "history": found.history}

    def trial(self, classifier: Classifier) -> float:
        """See `toolkit.pruning.plan.Trial`: an epoch of TRIAL_TEXTS lessons."""
        train, seed = self.taught.train, self.recipe.corpus.seed
        assert train.teacher_logits is not None
        chosen = np.sort(np.random.default_rng(seed).permutation(len(train.texts))[:TRIAL_TEXTS])
        some = Examples([train.texts[i] for i in chosen], train.labels[chosen], train.teacher_logits[chosen])
        how = replace(self.recipe.student_training(), epochs=1)
        with (
            tempfile.TemporaryDirectory(prefix="hbt-trial-") as work,
            progress.bar("pruning: trying a plan", steps_of(len(some.texts), how)) as advance,
        ):
            arguments = (some, self.taught.validation, how, seed, Path(work), self.imitation, None, advance)
            return fit(classifier, *arguments).history[0]["val_loss"]


def prune(
    source: Classifier,
    teacher: Teacher,
    corpus: Corpus,
    recipe: Recipe,
    work: Path,
    cache: Path,
    watch: WatchEpoch | None = None,
) -> tuple[Classifier, dict[str, Any]]:
    """A pruned copy of `source`, and what was cut, measured and won back.

    work: folder for checkpoints of the optimiser; a pruning that was broken off goes on from there.
    """
    how, pruning = recipe.distillation, recipe.pruning
    _forget_other(work, recipe)
    taught = lessons(teacher, corpus, how, cache)
    imitation = Imitation(how.kd_alpha, how.kd_temperature)
    recover = Recovery(taught, imitation, recipe, work, watch)
    calibration = calibration_examples(taught, len(corpus.rows("train")), pruning.calib_samples, corpus.settings.seed)
    if pruning.prune_method == "structured":
        lesson = Lesson(calibration, recipe.student_training(), imitation)
        ships, _ = trimmed(source, recipe.export, corpus, how.unlabelled)  # without which megabytes are others
        budget = budget_of(ships, pruning, recipe.export.target, corpus.take(corpus.rows("validation")), cache)
        return prune_structured(source, lesson, pruning, budget, recover, recover.trial, work)
    copied = replace(source, network=copy.deepcopy(source.network))
    steps = steps_of(len(taught.train.texts), replace(recipe.student_training(), epochs=1))
    return copied, prune_unstructured(copied, calibration, pruning, steps, recover)


def _forget_other(work: Path, recipe: Recipe) -> None:
    """Empty `work` unless it is that of the very same settings, broken off."""
    file, own = work / "recipe.json", {"recipe": recipe.sha256()}
    if not file.is_file() or json.loads(file.read_text("utf-8")) != own:
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir(parents=True)
        file.write_text(json.dumps(own), "utf-8")


def pruning_in_words(result: StageResult) -> str:
    """What was pruned, for card and table."""
    told, settings = result.details, result.details["settings"]
    if settings["prune_method"] == "structured":
        left = summary_of([Sizes(**size) for size in told["left"]])
        return f"cut by {100 * told['sparsity']:.0f} % of the encoder's weights to {left}"
    return (
        f"{100 * told['sparsity']:.1f} % zeros in the {settings['prune_layers']} maps ({settings['prune_method']}): "
        f"neither faster nor smaller; the checkpoint would be {told['zstd_size_bytes'] / MB:.1f} MB compressed (zstd) "
        f"instead of {told['zstd_size_bytes_before'] / MB:.1f}"
    )


def calibration_examples(taught: Lessons, labelled: int, count: int, seed: int) -> Examples:
    """`count` of the training rows, which are the first `labelled` lessons, the same for the same seed."""
    train = taught.train
    assert train.teacher_logits is not None
    chosen = np.sort(np.random.default_rng(seed).permutation(labelled)[:count])
    return Examples([train.texts[i] for i in chosen], train.labels[chosen], train.teacher_logits[chosen])
