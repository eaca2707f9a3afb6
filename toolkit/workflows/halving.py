"""Choose among students before they are trained to the end: by what they cost, then by successive halving."""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from toolkit.config.recipe import Recipe
from toolkit.modeling.classifier import Classifier
from toolkit.modeling.students import build_student
from toolkit.modeling.vocabulary_trimming import trimmed
from toolkit.pruning.cost_model import costs_key, latency_and_size
from toolkit.stages.distillation import distil_until
from toolkit.stages.inputs import contents_of_inputs
from toolkit.stages.run_folder import CACHE, DISTILLATION, Run, checkpoint_of, run_folder
from toolkit.stages.teachers import load_teacher
from toolkit.tracking import mlflow_runs as tracking
from toolkit.tracking.tracked_metrics import track_settings
from toolkit.training.processes import spread
from toolkit.training.stopping import LOSS
from toolkit.utils.console import say
from toolkit.utils.errors import CannotExport
from toolkit.utils.files import read_json, write_text
from toolkit.utils.locks import locked
from toolkit.workflows.pipeline import workable_run
from toolkit.workflows.steps import STEPS, distillation_of, run_step, watch_epoch

HALVINGS = (0.25, 0.5)
"""Shares of its epochs after which a student may be left out."""
ABOVE = 1.1
"""A student that costs so many times the budget before it is trained is not: the package is measured again."""


@dataclass(frozen=True)
class LeftOut:
    """A student without a package, and why."""

    student: str
    reason: str


def within_budget(
    runs: dict[str, Recipe], budget_ms: float | None, budget_mb: float | None, left_out: list[LeftOut]
) -> list[str]:
    """Return the transformers that can meet the budget, which is measured before they are trained.

    left_out: gets the others, the fastest last.
    """
    if not runs:
        return []
    first = next(iter(runs.values()))
    corpus = Run.of_recipe(first).corpus
    teacher = load_teacher(checkpoint_of(Path(first.distillation.teacher[0])).as_posix(), corpus)
    texts = corpus.take(corpus.rows("train"))

    def build(student: str, recipe: Recipe) -> Classifier:
        made = build_student(student, teacher, recipe.model, texts, corpus.settings.seed)
        return trimmed(made, recipe.export, corpus, recipe.distillation.unlabelled)[0]

    builders = {student: partial(build, student, recipe) for student, recipe in runs.items()}
    try:
        costs = _costs(builders, first.export.target, corpus.take(corpus.rows("validation")))
    except CannotExport:  # the fallback target has other costs; those of the packages are measured in any case
        return list(runs)
    fitting, over = [], []
    for student, (ms, mb) in costs.items():
        slow, large = ms > ABOVE * (budget_ms or ms), mb > ABOVE * (budget_mb or mb)
        if slow or large:
            over.append((ms, LeftOut(student, f"not trained: {ms:.2f} ms, {mb:.1f} MB")))
            say(f"student {student}: over the budget, {over[-1][1].reason}")
        else:
            fitting.append(student)
    left_out += [each for _, each in sorted(over, key=lambda pair: -pair[0])]
    return fitting


def _costs(
    builders: Mapping[str, Callable[[], Classifier]], target: str, texts: Sequence[str]
) -> dict[str, tuple[float, float]]:
    """Return milliseconds and megabytes of each student, measured once, so that a resumed search decides the same."""
    files = {student: CACHE / f"cost-{costs_key(build(), target, texts)}.json" for student, build in builders.items()}
    unknown = [student for student, file in files.items() if read_json(file) is None]
    measured = latency_and_size([builders[student] for student in unknown], target, texts) if unknown else []
    for student, cost in zip(unknown, measured, strict=True):
        files[student].parent.mkdir(parents=True, exist_ok=True)
        write_text(files[student], json.dumps(cost) + "\n")
    return {student: tuple(read_json(file)) for student, file in files.items()}


def best_of(runs: dict[str, Recipe], left_out: list[LeftOut]) -> str | None:
    """Return the student with the lowest validation loss; None of none.

    Found by successive halving (Jamieson and Talwalkar 2016): all are trained for a quarter of their epochs, the better
    half of them for another quarter, and the best is left. The losses are comparable: those on the same rows against
    the same teacher and labels.

    left_out: gets the others.
    """
    remaining = list(runs)
    for share in HALVINGS:
        if len(remaining) < 2:
            break
        last = share == HALVINGS[-1]
        keep = 1 if last else max(2, -(-len(remaining) // 2))
        if keep == len(remaining):
            continue
        epochs = {student: math.ceil(share * runs[student].student_training().epochs) for student in remaining}
        losses = losses_after({student: (runs[student], epochs[student]) for student in remaining})
        remaining.sort(key=lambda student: losses[student])
        for student in remaining[keep:]:
            reason = f"validation loss {losses[student]:.4f} after {epochs[student]} epochs"
            left_out.append(LeftOut(student, f"{reason}, and {losses[remaining[0]]:.4f} of {remaining[0]}"))
            say(f"student {student}: left out, {left_out[-1].reason}")
        remaining = remaining[:keep]
    return remaining[0] if remaining else None


def losses_after(trainings: Mapping[str, tuple[Recipe, int]]) -> dict[str, float]:
    """Return the loss of each student after so many epochs, trained one after the other or spread over a cluster."""
    if not spread.is_spread():
        return {student: _loss_after(*training) for student, training in trainings.items()}
    return dict(zip(trainings, spread.each_of("students", _loss_after, list(trainings.values())), strict=True))


def _loss_after(recipe: Recipe, epochs: int) -> float:
    """Train the student of a recipe for its first `epochs` epochs and return its lowest validation loss until then."""
    say(f"student {recipe.distillation.student}: up to epoch {epochs}")
    with locked(run_folder(recipe), "give another --name"):
        run = workable_run(recipe)
        run.begin(inputs=contents_of_inputs(recipe) if run.fingerprint is None else {})
        if DISTILLATION in run.results:
            history = run.results[DISTILLATION].details["history"]
        else:
            with tracking.tracked_run(run.folder, recipe.run) as tracked:
                track_settings(tracked, run)
                run_step(STEPS["linear_baseline"], run, tracked)
                watch = partial(watch_epoch, tracked, "distillation")
                tracked.child("distillation")
                history = distil_until(distillation_of(run), run.folder / DISTILLATION, epochs, watch)
    return min(epoch[LOSS] for epoch in history[:epochs])
