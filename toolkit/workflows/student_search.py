"""`hbt students`: train several students of one teacher and choose the best within a latency and size budget.

Each student is a run of its own: distilled, exported and quantized. The teacher logits are computed for the first
student and cached for the others. The table has only validation metrics, since it is used for model selection.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields, replace
from functools import partial
from pathlib import Path
from typing import Any

from exporters.loaders.compose import CASCADE
from toolkit.config.export_settings import CASCADE_TARGETS, ExportSettings
from toolkit.config.recipe import CASCADE_SETTINGS, SEARCHED_STUDENTS, Recipe
from toolkit.config.settings import PruningSettings
from toolkit.config.toml_file import recipe_from
from toolkit.evaluation.standing import Standing
from toolkit.modeling.ngram import is_ngram
from toolkit.stages.distillation_data import prepare_distillation
from toolkit.stages.inputs import contents_of_inputs
from toolkit.stages.run_folder import (
    DISTILLATION,
    LINEAR_BASELINE,
    RUNS,
    Run,
    locate,
    package_folder,
    run_folder,
)
from toolkit.training.processes import spread
from toolkit.utils.console import print_table, say
from toolkit.utils.errors import InputError, NothingPasses, require
from toolkit.utils.files import MB, file_part, without_nan, write_text
from toolkit.utils.locks import locked
from toolkit.utils.overwrite import refuse_folder
from toolkit.utils.scratch import remove_folder
from toolkit.workflows.compress import compress_run
from toolkit.workflows.halving import LeftOut, best_of, losses_after, within_budget
from toolkit.workflows.pipeline import default_package, run_pipeline, workable_run
from toolkit.workflows.run_summary import RunSummary, export_of, summary_of


@dataclass(frozen=True)
class StudentResult:
    """Accuracy, latency and size of the package of one student."""

    student: str
    macro_f1: float
    """Macro-F1 of the package on the validation rows."""
    p50_ms: float | None
    package_mb: float
    parameters: int
    within_budget: bool
    package: str
    mean_ms: float | None = None
    """Mean latency of a cascade, to which the budget applies, since its median hides the deferred texts."""


@dataclass(frozen=True)
class StudentSearch:
    """The students of one teacher: those within the budget first, each group by decreasing macro-F1."""

    students: list[StudentResult]
    references: dict[str, float]
    """Macro-F1 of teacher and linear baseline on the validation rows."""
    standing: Standing | None = None
    """What the first student is worth on the test rows."""
    left_out: Sequence[LeftOut] = ()


def recipe_of_teacher(data: str, given: dict[str, Any]) -> Recipe:
    """Return the recipe shared by all students: the settings of the first teacher's run, if any, updated by `given`.

    Thus the rows are split as for the teacher, whose fold ensemble then gives out-of-fold logits.
    Raises: InputError if `given` names no teacher.
    """
    teachers = given.get("teacher", ())
    if not teachers:
        raise InputError("--teacher: name a run, a checkpoint folder or a Hugging Face classifier")
    place = locate(Path(teachers[0]))
    known = {} if place is None else place.run.recipe.flat()
    left_out = {"student", "name", "pipeline", *CASCADE_SETTINGS, *(each.name for each in fields(PruningSettings))}
    defaults = {name: value for name, value in known.items() if name not in left_out}
    student = {"student": SEARCHED_STUDENTS[0], "data": data, "pipeline": "baseline_kd_quant"}
    return recipe_from(None, defaults | given | student)


def search_students(
    recipe: Recipe, specs: Sequence[str], budget_ms: float | None, budget_mb: float | None, force: bool = False
) -> StudentSearch:
    """Train, export and measure the students in `specs`, and write the table to runs/NAME.json.

    Without a budget, every student is trained. With one, transformers that are too slow or too large are not, and of
    the others only the best is trained to its end (`best_of`). "cascade" is a cascade with the best transformer of the
    search, "cascade:X" one with the student X.

    budget_ms: longest latency: p50, of a cascade the mean. budget_mb: largest package.
    A student is left out if none of its candidates passes the quality gate, or if its package would be near chance or
    worse than the linear baseline.
    Raises: InputError as `run_pipeline`; NothingPasses if no student is left.
    """
    for option, budget in (("--budget-ms", budget_ms), ("--budget-mb", budget_mb)):
        require(budget is None or budget >= 0, option, f"{budget} is not a number of 0 or more")
    name = recipe.run.name or f"{file_part(Path(recipe.corpus.data).stem)}-students"
    named = [spec.removeprefix(f"{CASCADE}:") for spec in specs if spec != CASCADE]
    networks = [student for student in named if not is_ngram(student)]
    problem = "has no transformer to take; name one, such as cascade:layers:2"
    require(bool(networks) or CASCADE not in specs, f"--students {CASCADE}", problem)
    if CASCADE in specs and recipe.export.target not in CASCADE_TARGETS:
        specs = [spec for spec in specs if spec != CASCADE]
        say(f"no cascade: it is made for {' and '.join(CASCADE_TARGETS)} only")
    runs = {student: _recipe_of(student, recipe, name) for student in named}
    # Check all of them first, since training one student may take hours.
    begun = {student: workable_run(student_recipe, force) for student, student_recipe in runs.items()}
    with_cascade = networks if any(spec.partition(":")[0] == CASCADE for spec in specs) else []
    cascades = {student: _cascade_package(runs[student], budget_ms)[1] for student in with_cascade}
    if force:  # replace all of them now, so that the command without --force resumes every one
        for student, run in begun.items():
            with locked(run.folder, "give another --name"):
                if student in cascades:
                    refuse_folder(cascades[student], force, "package")
                    remove_folder(cascades[student])
                run.begin(default_package(runs[student]), contents_of_inputs(runs[student]))
    left_out: list[LeftOut] = []
    if spread.is_spread():  # else every worker would compute the logits of the teacher
        first = next(iter(runs.values()))
        prepare_distillation(first, Run.of_recipe(first).corpus, None)
    if budget_ms is not None or budget_mb is not None:
        free = [student for student in networks if f"{CASCADE}:{student}" not in specs]
        fitting = within_budget({student: runs[student] for student in free}, budget_ms, budget_mb, left_out)
        if not fitting and free and len(free) == len(runs):  # something has to be trained
            fitting = [left_out.pop().student]
        best = best_of({student: runs[student] for student in fitting}, left_out)
        runs = {student: each for student, each in runs.items() if student not in free or student == best}
    elif spread.is_spread():
        losses_after({student: (runs[student], runs[student].student_training().epochs) for student in networks})
    found = _packages(runs, specs, budget_ms, budget_mb, left_out)
    record = {
        "rungs": [asdict(student) for student in found.students],
        "beside": found.references,
        "left_out": [asdict(each) for each in left_out],
    }
    text = json.dumps(without_nan(record), indent=2, ensure_ascii=False)
    write_text(RUNS / f"{name}.json", text + "\n")
    return found


def _packages(
    runs: dict[str, Recipe],
    specs: Sequence[str],
    budget_ms: float | None,
    budget_mb: float | None,
    left_out: list[LeftOut],
) -> StudentSearch:
    """Train and export the students of `runs` and make the cascades in `specs`. Raises: NothingPasses if none is left.

    left_out: gets the students without a package.
    """
    students: list[StudentResult] = []
    standings: dict[str, Standing | None] = {}
    refusals: list[NothingPasses] = []

    def add(student: str, make: Callable[[], RunSummary]) -> None:
        say(f"student {student}")
        try:
            outcome = make()
        except NothingPasses as refused:
            say(f"student {student}: {refused}")
            left_out.append(LeftOut(student, refused.why or str(refused)))
            refusals.append(refused)
            return
        assert outcome.package is not None
        students.append(result_of(student, Run.open(outcome.folder), outcome.package, budget_ms, budget_mb))
        standings[student] = outcome.standing

    for student, recipe in runs.items():
        add(student, partial(run_pipeline, recipe))
    for spec in specs:
        parts = _parts_of_cascade(spec, runs, students)
        if parts is not None:
            add(f"{CASCADE}:{parts}", partial(_cascade, runs[parts], budget_ms))
    if not students:
        raise refusals[-1]
    students.sort(key=lambda student: (not student.within_budget, -student.macro_f1))
    references = _references(Run.open(run_folder(next(iter(runs.values())))))
    return StudentSearch(students, references, standings[students[0].student], left_out)


def _parts_of_cascade(spec: str, runs: dict[str, Recipe], students: Sequence[StudentResult]) -> str | None:
    """Return the transformer of the cascade `spec`; None if it is no cascade, or no transformer was trained."""
    kind, _, transformer = spec.partition(":")
    if kind != CASCADE:
        return None
    made = {student.student: student.macro_f1 for student in students if not is_ngram(student.student)}
    return transformer or max((student for student in runs if student in made), key=made.__getitem__, default=None)


def _cascade(recipe: Recipe, budget_ms: float | None) -> RunSummary:
    """Make a cascade of a finished run, unless it is there. Raises: as `compress_run`."""
    run = Run.open(run_folder(recipe))
    export, package = _cascade_package(recipe, budget_ms)
    if package.is_dir() and export_of(run, package) is not None:
        return summary_of(run, package)
    return compress_run(run.folder, export, package, force=False)


def _cascade_package(recipe: Recipe, budget_ms: float | None) -> tuple[ExportSettings, Path]:
    """Return the export settings and the package folder of the cascade with the student of a recipe."""
    export = replace(recipe.export, cascade=True, cascade_ms=budget_ms)
    package = package_folder(run_folder(recipe).name, export, "")
    return export, package if budget_ms is None else package.with_name(f"{package.name}-{budget_ms:g}ms")


def render(search: StudentSearch) -> None:
    """Print the students as a table on stdout."""
    lines = [
        {
            "Student": student.student,
            "Macro F1": f"{student.macro_f1:.4f}",
            "Latency ms": _latency(student),
            "Package MB": f"{student.package_mb:.2f}",
            "Parameters": f"{student.parameters:,}",
            "Within budget": "yes" if student.within_budget else "no",
            "Package": student.package,
        }
        for student in search.students
    ]
    lines += [
        dict.fromkeys(lines[0], "") | {"Student": name, "Macro F1": f"{value:.4f}"}
        for name, value in search.references.items()
    ]
    title = "on the validation rows, on which the students' epochs and decision rules were chosen"
    least = search.references["linear baseline"]
    red = [i for i, student in enumerate(search.students) if student.macro_f1 < least]
    for i in red:
        lines[i]["Student"] += " (below linear baseline)"
    for each in search.left_out:
        lines.append(dict.fromkeys(lines[0], "") | {"Student": each.student, "Package": each.reason})
    print_table(lines, title, left=("Student", "Package", "Within budget"), dispensable=("Parameters",), red=red)


def _recipe_of(student: str, recipe: Recipe, name: str) -> Recipe:
    """Return the recipe of one student. An ngram student has no vocabulary of pieces, so it is not trimmed."""
    export = replace(recipe.export, trim_vocabulary=None) if is_ngram(student) else recipe.export
    distillation = replace(recipe.distillation, student=student)
    run = replace(recipe.run, name=f"{name}-{file_part(student)}")
    return replace(recipe, distillation=distillation, export=export, run=run)


def result_of(student: str, run: Run, package: Path, budget_ms: float | None, budget_mb: float | None) -> StudentResult:
    """Return the figures of a package that a run has made."""
    stage = export_of(run, package)
    assert stage is not None, "the package was made now"
    exported = run.results[stage]
    p50_ms, package_mb = exported.details["p50_ms"], exported.details["package_size_bytes"] / MB
    cascade = exported.details.get("cascade")
    mean_ms = None if cascade is None else cascade["test"]["mean_ms"]
    latency = p50_ms if mean_ms is None else mean_ms
    fast = budget_ms is None or (latency is not None and latency <= budget_ms)
    small = budget_mb is None or package_mb <= budget_mb
    macro_f1 = exported.validation_metrics["macro_f1"]
    parameters, place = exported.parameters, package.as_posix()
    return StudentResult(student, macro_f1, p50_ms, package_mb, parameters, fast and small, place, mean_ms)


def _latency(student: StudentResult) -> str:
    if student.mean_ms is not None:
        return f"mean {student.mean_ms:.3f}"
    return "–" if student.p50_ms is None else f"p50 {student.p50_ms:.3f}"


def _references(run: Run) -> dict[str, float]:
    teacher = run.results[DISTILLATION].details["teacher_validation_metrics"]["macro_f1"]
    return {"teacher": teacher, "linear baseline": run.results[LINEAR_BASELINE].validation_metrics["macro_f1"]}
