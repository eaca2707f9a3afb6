"""The stages of a pipeline as data: how each is made, where it is written and what is logged to MLflow.

Resuming, progress messages and nested MLflow runs are implemented once, in `run_step`, for all stages.
"""

import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from pathlib import Path

import numpy as np

from toolkit.config.recipe import Recipe
from toolkit.evaluation.metrics import cross_entropy, softmax
from toolkit.evaluation.predictions import Predictions
from toolkit.modeling.ngram import MODEL_TYPE as NGRAM
from toolkit.pruning.stage import describe_pruning, prune_stage
from toolkit.stages.cross_validation import fold_results, train_baseline
from toolkit.stages.distillation import distil
from toolkit.stages.distillation_data import DistillationData, prepare_distillation
from toolkit.stages.linear_baseline import known_settings, train_linear_baseline
from toolkit.stages.result import RESULT_FILE, StageResult
from toolkit.stages.results_table import write_fold_summaries
from toolkit.stages.run_folder import (
    BASELINE,
    CASCADE_NGRAM,
    DISTILLATION,
    LINEAR_BASELINE,
    Run,
    locate,
    pruning_stage,
    tag_of,
)
from toolkit.tracking.mlflow_runs import Tracked
from toolkit.tracking.tracked_metrics import track_baseline, track_distillation, track_epoch, track_pruning
from toolkit.training.stopping import ToBeat
from toolkit.utils.console import say
from toolkit.utils.files import whole_folder

Watch = Callable[[str, int, dict[str, float]], None]
"""Called with the name of the nested MLflow run, the epoch (from 1) and the metrics of that epoch."""


@dataclass(frozen=True)
class Step:
    """One stage of a pipeline; the export is not among them, since it also writes a package."""

    stage: Callable[[Recipe], str]
    """Return the folder name of the stage."""
    children: Callable[[Run, str], list[str]]
    """Return the names of the nested MLflow runs of the stage with this folder name."""
    make: Callable[[Run, Path, Watch], StageResult]
    """Train the model of the stage and write the stage to a folder."""
    track: Callable[[Tracked, Run, StageResult], None]
    """Log the metrics of the finished stage."""


def run_step(step: Step, run: Run, tracked: Tracked) -> StageResult:
    """Run a stage unless it is finished, and add its result to `run`."""
    stage = step.stage(run.recipe)
    folder = run.folder / stage
    if stage in run.results:
        say(f"{folder}: already finished, skipped")
        track_stage(step, stage, run, tracked)
        return run.results[stage]
    say(f"{folder}")
    for name in step.children(run, stage):
        tracked.child(name)
    result = step.make(run, folder, partial(watch_epoch, tracked))
    run.results[stage] = result
    track_stage(step, stage, run, tracked)
    say(f"{folder}: macro-F1 {result.metrics['macro_f1']:.4f} on the test rows, {result.seconds:.0f} s")
    return result


def track_stage(step: Step, stage: str, run: Run, tracked: Tracked) -> None:
    """Log a finished stage unless it was logged before, and write the tables of the folds of a baseline."""
    with tracked.part(run.version_of(stage)) as owed:
        if owed:
            step.track(tracked, run, run.results[stage])
            for name in step.children(run, stage):
                tracked.child(name).finish()
    if stage == BASELINE:
        _write_folds(run, tracked)
    tracked.send()


def step_of(stage: str) -> Step | None:
    """Return the step that makes the stage with this folder name; None for the export."""
    names = {
        LINEAR_BASELINE: "linear_baseline",
        BASELINE: "baseline",
        DISTILLATION: "distillation",
        CASCADE_NGRAM: "cascade_ngram",
    }
    kind = "pruning" if tag_of(stage) else names.get(stage)
    return None if kind is None else STEPS[kind]


def watch_epoch(tracked: Tracked, child: str, epoch: int, metrics: dict[str, float]) -> None:
    """Print and log one epoch of training."""
    say(f"{child}, epoch {epoch}: validation macro-F1 {metrics['val_macro_f1']:.4f}")
    track_epoch(tracked, child, epoch, metrics)
    tracked.send()


def distillation_of(run: Run) -> DistillationData:
    """Return the distillation data of a run."""
    linear = known_settings(run.results[LINEAR_BASELINE])
    data = prepare_distillation(run.located, run.corpus, run.baseline_folder, linear=linear)
    rates = [
        run.results[stage].details.get("learning_rate") for stage in (DISTILLATION, BASELINE) if stage in run.results
    ]
    return replace(data, found_rate=next((rate for rate in rates if rate is not None), None))


def _linear_baseline(run: Run, out: Path, watch: Watch) -> StageResult:
    """Fit the linear baseline, or copy that of the teacher's run or of a relative with the same rows and slices."""
    for given in (*map(Path, run.recipe.distillation.teacher), run.relative):
        place = None if given is None else locate(given)
        if place is None or place.run.recipe.corpus.slice != run.recipe.corpus.slice:
            continue
        found = place.run.results.get(LINEAR_BASELINE)
        if found is None or known_settings(found) is None:
            continue
        relative = given == run.relative
        if place.run.fingerprint == run.corpus.fingerprint or (relative and _same_splits(place.run, run)):
            with whole_folder(out) as partial_folder:
                shutil.copytree(place.run.folder / LINEAR_BASELINE, partial_folder, dirs_exist_ok=True)
            say(f"{out}: copied from {place.run.folder}")
            return found
    return train_linear_baseline(run.corpus, out)


def _same_splits(a: Run, b: Run) -> bool:
    """Return whether two runs have the same rows in each split; the folds of the training rows may differ."""
    same = a.corpus.texts == b.corpus.texts and np.array_equal(a.corpus.labels, b.corpus.labels)
    return same and np.array_equal(np.minimum(a.corpus.fold, 0), np.minimum(b.corpus.fold, 0))


def _baseline(run: Run, out: Path, watch: Watch) -> StageResult:
    def watch_fold(fold: int, epoch: int, metrics: dict[str, float]) -> None:
        watch(f"fold-{fold + 1}", epoch, metrics)

    return train_baseline(run.corpus, run.recipe.model, run.recipe.training, out, watch_fold, _to_beat(run))


def _to_beat(run: Run) -> ToBeat:
    rows, result = run.corpus.rows("validation"), run.results[LINEAR_BASELINE]
    logits = Predictions.load(run.folder / LINEAR_BASELINE / result.predictions).of(rows)
    loss = cross_entropy(run.corpus.labels[rows], softmax(logits))
    return ToBeat(loss, result.validation_metrics["macro_f1"])


def _distillation(run: Run, out: Path, watch: Watch) -> StageResult:
    return distil(distillation_of(run), out, partial(watch, "distillation"))


def _cascade_ngram(run: Run, out: Path, watch: Watch) -> StageResult:
    distillation = replace(run.recipe.distillation, student=NGRAM, kd_method="logit")
    run = replace(run, recipe=replace(run.recipe, distillation=distillation))
    return distil(distillation_of(run), out, partial(watch, CASCADE_NGRAM))


def _pruning(run: Run, out: Path, watch: Watch) -> StageResult:
    name = "student" if run.recipe.distillation.student is not None else "best fold"
    checkpoint = run.checkpoint(run.last_trained)
    result = prune_stage(checkpoint, name, distillation_of(run), out, partial(watch, f"pruning {tag_of(out.name)}"))
    say(describe_pruning(result.details, result.details["settings"]))
    return result


def _track_folds(tracked: Tracked, run: Run, result: StageResult) -> None:
    track_baseline(tracked, fold_results(run.folder / BASELINE, run.corpus.folds), result)


def _write_folds(run: Run, tracked: Tracked) -> None:
    """Write and log the tables of the folds. They have the time of the baseline, so they are the same when resumed."""
    folds = fold_results(run.folder / BASELINE, run.corpus.folds)
    finished = datetime.fromtimestamp((run.folder / BASELINE / RESULT_FILE).stat().st_mtime)
    rate = run.results[BASELINE].details.get("learning_rate", run.recipe.training.learning_rate)
    recipe = replace(run.recipe, training=replace(run.recipe.training, learning_rate=rate))
    for file in write_fold_summaries(recipe, run.corpus.label_names, folds, run.folder / "outputs", finished):
        tracked.artifact(file, "outputs")


STEPS = {
    "linear_baseline": Step(
        lambda recipe: LINEAR_BASELINE, lambda run, stage: [], _linear_baseline, lambda tracked, run, result: None
    ),
    "baseline": Step(
        lambda recipe: BASELINE,
        lambda run, stage: [f"fold-{fold + 1}" for fold in range(run.corpus.folds)],
        _baseline,
        _track_folds,
    ),
    "distillation": Step(
        lambda recipe: DISTILLATION,
        lambda run, stage: ["distillation"],
        _distillation,
        lambda tracked, run, result: track_distillation(tracked, result, run.corpus.label_names),
    ),
    "cascade_ngram": Step(
        lambda recipe: CASCADE_NGRAM,
        lambda run, stage: [CASCADE_NGRAM],
        _cascade_ngram,
        lambda tracked, run, result: tracked.child(CASCADE_NGRAM).metrics(result.metrics),
    ),
    "pruning": Step(
        lambda recipe: pruning_stage(recipe.pruning),
        lambda run, stage: [f"pruning {tag_of(stage)}"],
        _pruning,
        lambda tracked, run, result: track_pruning(tracked, result, run.corpus.label_names),
    ),
}
