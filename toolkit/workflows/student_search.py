"""`hbt students`: train several students of one teacher and choose the best within a latency and size budget.

Each student is a run of its own: distilled, exported and quantized. The teacher logits are computed for the first
student and cached for the others. The table has only validation metrics, since it is used for model selection.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from toolkit.config.recipe import CASCADE_SETTINGS, SEARCHED_STUDENTS, Recipe
from toolkit.config.settings import PruningSettings
from toolkit.config.toml_file import recipe_from
from toolkit.evaluation.standing import Standing
from toolkit.manifest import read_manifest
from toolkit.modeling.ngram import is_ngram
from toolkit.stages.inputs import contents_of_inputs
from toolkit.stages.run_folder import DISTILLATION, LINEAR_BASELINE, RUNS, Run, export_stage, locate
from toolkit.utils.console import print_table, say
from toolkit.utils.errors import InputError, NothingPasses, require
from toolkit.utils.files import MB, file_part, without_nan, write_text
from toolkit.utils.locks import locked
from toolkit.workflows.pipeline import default_package, run_pipeline, workable_run


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
    """Train, export and measure each of the students in `specs`, and write the table to runs/NAME.json.

    budget_ms: longest p50 latency. budget_mb: largest package.
    A student is left out if none of its candidates passes the quality gate, or if its package would be near chance or
    worse than the linear baseline.
    Raises: InputError as `run_pipeline`; NothingPasses if no student is left.
    """
    for option, budget in (("--budget-ms", budget_ms), ("--budget-mb", budget_mb)):
        require(budget is None or budget >= 0, option, f"{budget} is not a number of 0 or more")
    name = recipe.run.name or f"{file_part(Path(recipe.corpus.data).stem)}-students"
    runs = {student: _recipe_of(student, recipe, name) for student in specs}
    # Check all of them first, since training one student may take hours.
    begun = {student: workable_run(student_recipe, force) for student, student_recipe in runs.items()}
    if force:  # replace all of them now, so that the command without --force resumes every one
        for student, run in begun.items():
            with locked(run.folder, "give another --name"):
                run.begin(default_package(runs[student]), contents_of_inputs(runs[student]))
    students: list[StudentResult] = []
    standings: dict[str, Standing | None] = {}
    last_refusal: NothingPasses | None = None
    for student, student_recipe in runs.items():
        say(f"student {student}")
        try:
            outcome = run_pipeline(student_recipe)
        except NothingPasses as refused:
            say(f"student {student}: {refused}")
            last_refusal = refused
            continue
        assert outcome.package is not None
        run = Run.open(outcome.folder)
        students.append(_result_of(student, run, outcome.package, budget_ms, budget_mb))
        standings[student] = outcome.standing
    if not students:
        assert last_refusal is not None
        raise last_refusal
    students.sort(key=lambda student: (not student.within_budget, -student.macro_f1))
    found = StudentSearch(students, _references(run), standings[students[0].student])
    record = {"rungs": [asdict(student) for student in students], "beside": found.references}
    text = json.dumps(without_nan(record), indent=2, ensure_ascii=False)
    write_text(RUNS / f"{name}.json", text + "\n")
    return found


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
    print_table(lines, title, left=("Student", "Package", "Within budget"), dispensable=("Parameters",), red=red)


def _recipe_of(student: str, recipe: Recipe, name: str) -> Recipe:
    """Return the recipe of one student. An ngram student has no vocabulary of pieces, so it is not trimmed."""
    export = replace(recipe.export, trim_vocabulary=None) if is_ngram(student) else recipe.export
    distillation = replace(recipe.distillation, student=student)
    run = replace(recipe.run, name=f"{name}-{file_part(student)}")
    return replace(recipe, distillation=distillation, export=export, run=run)


def _result_of(
    student: str, run: Run, package: Path, budget_ms: float | None, budget_mb: float | None
) -> StudentResult:
    suffix = run.recipe.export.suffix
    exported = run.results[export_stage(read_manifest(package)["target"], DISTILLATION, suffix)]
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
