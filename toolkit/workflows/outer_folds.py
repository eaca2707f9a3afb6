"""`hbt train --outer-folds N`: repeat a training pipeline with another part of the rows as the test split each time.

Every row of the file is tested once, by models that never saw it, so the paired comparisons have all rows and decide
smaller differences than one test split can (nested cross-validation, Varma and Simon 2006). Each part is a run of its
own, NAME-outer-I, with folds, decision rules and settings chosen anew.
"""

import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from toolkit.config.recipe import Recipe
from toolkit.config.settings import require
from toolkit.evaluation.comparison import Contender, Versus
from toolkit.evaluation.metrics import macro_f1, softmax
from toolkit.evaluation.significance import compare, macro_f1_interval
from toolkit.stages.linear_baseline import NAME as LINEAR_BASELINE_NAME
from toolkit.stages.run_folder import BASELINE, DISTILLATION, LINEAR_BASELINE, RUNS, Run, is_run, run_folder
from toolkit.stages.teachers import ENSEMBLE
from toolkit.utils.console import print_table, say
from toolkit.utils.errors import InputError
from toolkit.utils.files import write_text
from toolkit.workflows.compare import contender, teacher_of
from toolkit.workflows.pipeline import run_pipeline, training_recipe, workable_run

STUDENT = "student"


@dataclass(frozen=True)
class PooledModel:
    """One kind of model over all outer folds."""

    name: str
    macro_f1: float
    """Over the test rows of all folds together."""
    interval: tuple[float, float]
    """95 % bootstrap interval."""
    by_fold: list[float]
    """Macro-F1 on the test rows of each fold."""


@dataclass(frozen=True)
class OuterFolds:
    """The models of all outer folds on all rows."""

    folders: list[Path]
    models: list[PooledModel]
    comparisons: list[Versus]


def train_outer_folds(recipe: Recipe, count: int, force: bool = False) -> OuterFolds:
    """Run the training pipeline of a recipe for each of `count` outer folds, and write runs/NAME-outer.json.

    A teacher that is named by the `name` of runs with as many outer folds is the run of the same fold.
    Raises: InputError as `run_pipeline`, before anything is trained, and for a teacher that is a single run.
    """
    require(count >= 2, "--outer-folds", f"{count} is too few; give 2 or more")
    given = recipe.corpus.outer_fold
    require(given is None, "--outer-fold", "contradicts --outer-folds, which runs every part; leave one of them out")
    name = run_folder(recipe).name
    recipes = [_recipe_of(training_recipe(recipe), name, fold, count) for fold in range(1, count + 1)]
    for each in recipes:  # check all of them first, since training one may take hours
        workable_run(each, force)
    folders = []
    for fold, each in enumerate(recipes, 1):
        say(f"outer fold {fold} of {count}")
        folders.append(run_pipeline(each, force).folder)
    found = pooled([Run.open(folder) for folder in folders])
    text = json.dumps(asdict(found), indent=2, ensure_ascii=False, default=str)
    write_text(RUNS / f"{name}-outer.json", text + "\n")
    return found


def pooled(runs: Sequence[Run]) -> OuterFolds:
    """Pool the test rows of the runs of all outer folds, and compare their models on them."""
    labels = np.concatenate([run.corpus.labels[run.corpus.rows("test")] for run in runs])
    count = len(runs[0].corpus.label_names)
    predicted: dict[str, list[np.ndarray]] = defaultdict(list)
    by_fold: dict[str, list[float]] = defaultdict(list)
    for run in runs:
        test = run.corpus.rows("test")
        for model in _contenders(run):
            own = model.rule.predict(softmax(model.predictions.of(test).astype(np.float64)))
            predicted[model.name].append(own)
            by_fold[model.name].append(macro_f1(run.corpus.labels[test], own, count))
    joined = {name: np.concatenate(parts) for name, parts in predicted.items()}
    models = [
        PooledModel(name, macro_f1(labels, own, count), macro_f1_interval(labels, own, count), by_fold[name])
        for name, own in joined.items()
    ]
    names = list(joined)
    pairs = [(b, a) for i, a in enumerate(names) for b in names[i + 1 :]]
    comparisons = [Versus(b, a, compare(labels, joined[a], joined[b], count)) for b, a in pairs]
    return OuterFolds([run.folder for run in runs], models, comparisons)


def render(found: OuterFolds) -> None:
    """Print one line per model on stdout; the comparisons have a table of their own."""
    rows = found.comparisons[0].comparison.rows
    lines = [
        {
            "Model": model.name,
            "Macro F1": f"{model.macro_f1:.4f}",
            "95 % interval": f"{model.interval[0]:.4f} … {model.interval[1]:.4f}",
            "lowest and highest fold": f"{min(model.by_fold):.4f}, {max(model.by_fold):.4f}",
        }
        for model in found.models
    ]
    print_table(lines, f"{rows:,} rows, each tested once by models that were not trained on it", left=("Model",))


def _contenders(run: Run) -> list[Contender]:
    """Return linear baseline, teacher and student of a run, as far as it has them."""
    found = [contender(run, LINEAR_BASELINE, LINEAR_BASELINE_NAME)]
    if DISTILLATION not in run.results:
        return [*found, contender(run, BASELINE, ENSEMBLE)]
    teacher = teacher_of(run)
    if teacher.name != LINEAR_BASELINE_NAME:  # with --no-teacher, the linear baseline stands in for it
        found.append(teacher)
    return [*found, contender(run, DISTILLATION, STUDENT)]


def _recipe_of(recipe: Recipe, name: str, fold: int, count: int) -> Recipe:
    """Return the recipe of one outer fold, counted from 1."""
    teachers = tuple(_teacher_of_fold(given, fold, count) for given in recipe.distillation.teacher)
    return replace(
        recipe,
        corpus=replace(recipe.corpus, outer_fold=f"{fold}/{count}"),
        distillation=replace(recipe.distillation, teacher=teachers),
        run=replace(recipe.run, name=f"{name}-outer-{fold}"),
    )


def _teacher_of_fold(given: str, fold: int, count: int) -> str:
    """Return the run of the same outer fold for a teacher that was itself trained with --outer-folds."""
    own = Path(f"{given.rstrip('/')}-outer-{fold}")
    if is_run(own) and Run.open(own).recipe.corpus.outer_fold == f"{fold}/{count}":
        return own.as_posix()
    if is_run(own) or is_run(Path(given)):
        fix = f"train the teacher with --outer-folds {count}, too, and give its --name as --teacher runs/NAME"
        raise InputError(f"--teacher {given}: was trained on rows that other outer folds test; {fix}")
    return given
