"""Run a plan of `hbt auto`: the n-gram student of the labels first, then teacher and students; the best one ships."""

import time
from dataclasses import replace
from pathlib import Path

from toolkit.config.recipe import Recipe
from toolkit.manifest import MANIFEST_FILE, read_manifest
from toolkit.stages.run_folder import BASELINE, LINEAR_BASELINE, MODELS, RUNS, Run, locate
from toolkit.utils.console import say
from toolkit.utils.errors import NothingPasses
from toolkit.utils.locks import locked
from toolkit.utils.overwrite import refuse_folder
from toolkit.utils.scratch import remove_folder
from toolkit.workflows.auto.outcome import Outcome, outcome_of
from toolkit.workflows.auto.plan import LABELS, TEACHER, Plan, Request, corpus_of, plan_file, save_plan, with_students
from toolkit.workflows.pipeline import run_pipeline, train_pipeline
from toolkit.workflows.student_search import (
    StudentResult,
    StudentSearch,
    recipe_of_teacher,
    result_of,
    search_students,
)
from toolkit.workflows.transfer.files import place_package

LABELS_ALONE = "ngram, labels alone"
OTHER = "give another --name"


def run_plan(plan: Plan, budget_ms: float, budget_mb: float, out: Path, started: float) -> Outcome:
    """Run a plan, or what is left of it, and copy the best package to `out`.

    The best one has the highest macro-F1 on the validation rows of those within the budget.
    started: `time.monotonic()` when the command began.
    Raises: NothingPasses if every package would be near chance or worse than the linear baseline.
    """
    alone, refused = _alone(plan, budget_ms, budget_mb)
    found, why = None, plan.why
    if plan.model is not None:
        found, why = _with_teacher(plan, budget_ms, budget_mb, started)
    candidates = [*(found.students if found is not None else []), *([alone] if alone is not None else [])]
    if not candidates:
        assert refused is not None
        raise refused
    best = max(candidates, key=lambda student: (student.within_budget, student.macro_f1))
    _ship(Path(best.package), out)
    return outcome_of(best, out, why, candidates, () if found is None else found.left_out)


def refuse_package(request: Request, out: Path, force: bool = False) -> None:
    """Raise InputError if `out` exists, unless it is the package of an earlier `hbt auto` of this name."""
    if (out / MANIFEST_FILE).is_file():
        origin = Path(str(read_manifest(out).get("lineage", {}).get("run", "")))
        force = force or (origin.parent == RUNS and origin.name.startswith(f"{request.name}-"))
    refuse_folder(out, force, "package")


def forget(plan: Plan) -> None:
    """Remove the runs and packages of an earlier `hbt auto` of this name, so that everything is made again."""
    name = plan.request.name
    runs = {RUNS / f"{name}-{part}" for part in (LABELS, TEACHER)}
    runs |= {folder for folder in RUNS.glob(f"{name}-*") if _is_student(folder, plan)}
    for run in sorted(runs):
        for package in MODELS.glob(f"{run.name}-*"):
            place = locate(package)
            if place is not None and place.run.folder == run:
                refuse_folder(package, True, "package")
                remove_folder(package)
        if run.is_dir():
            refuse_folder(run, True, "run", "--name")
            with locked(run, OTHER):
                remove_folder(run)
    plan_file(name).unlink(missing_ok=True)


def _is_student(folder: Path, plan: Plan) -> bool:
    """Return whether a run was made by the student search of a plan."""
    place = locate(folder)
    return place is not None and place.run.recipe.distillation.teacher == plan.search["teacher"]


def default_package(name: str) -> Path:
    """Return the folder of the package, unless the user names another."""
    return MODELS / name


def _alone(plan: Plan, budget_ms: float, budget_mb: float) -> tuple[StudentResult | None, NothingPasses | None]:
    """Make the package of the student that learns from the labels alone; return it, or why there is none."""
    recipe = plan.labels_alone
    try:
        made = run_pipeline(recipe)
    except NothingPasses as refused:
        say(f"{LABELS_ALONE}: {refused.why}")
        return None, refused
    assert made.package is not None
    return result_of(LABELS_ALONE, Run.open(made.folder), made.package, budget_ms, budget_mb), None


def _with_teacher(plan: Plan, budget_ms: float, budget_mb: float, started: float) -> tuple[StudentSearch | None, str]:
    """Train the teacher and, if it is better than the linear baseline, its students; else return why not."""
    teacher = plan.teacher
    run = Run.open(train_pipeline(teacher, relative=RUNS / (plan.labels_alone.run.name or "")).folder)
    problem = _not_better(run, teacher)
    if problem:
        say(problem)
        return None, problem
    if not plan.students_decided:
        left = 60 * plan.request.minutes - (time.monotonic() - started)
        plan = replace(with_students(plan, corpus_of(plan), left), students_decided=True)
        save_plan(plan)
    say(f"students: {', '.join(plan.students)}")
    recipe = recipe_of_teacher(plan.request.corpus.data, plan.search)
    try:
        return search_students(recipe, plan.students, budget_ms, budget_mb), ""
    except NothingPasses as refused:
        return None, f"no student of the teacher is good enough: {refused.why}"


def _not_better(run: Run, teacher: Recipe) -> str:
    """Return why students of this teacher would not be worth their training; empty if it beats the linear baseline."""
    own, linear = (run.results[stage].validation_metrics["macro_f1"] for stage in (BASELINE, LINEAR_BASELINE))
    if own > linear:
        return ""
    return (
        f"the teacher ({teacher.model.model}) is not better than the linear baseline: macro-F1 {own:.4f} against "
        f"{linear:.4f} on {len(run.corpus.rows('validation')):,} validation rows; more labeled rows, another --model "
        "or more --minutes may help"
    )


def _ship(package: Path, out: Path) -> None:
    """Copy a package to `out`, unless it is there."""
    with locked(out, "give another path with -o"):
        manifest = out / MANIFEST_FILE
        if manifest.is_file() and manifest.read_bytes() == (package / MANIFEST_FILE).read_bytes():
            return
        place_package(package, out)
