"""`hbt students`: a ladder of students of one teacher, so that people need not guess which one to ship.

Each student is a run of its own, distilled, exported and quantized; the teacher's logits are computed for the first
and taken from the cache by the others. The table shows validation rows alone: it is there to choose by.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from toolkit.config.recipe import SEARCHED_STUDENTS, Recipe
from toolkit.config.settings import PruningSettings
from toolkit.config.toml_file import recipe_from
from toolkit.modeling.ngram import is_ngram
from toolkit.package import read_manifest
from toolkit.stages.run_folder import DISTILLATION, LINEAR_BASELINE, RUNS, Run, export_stage, locate
from toolkit.utils.console import print_table, say
from toolkit.utils.errors import InputError, NothingPasses
from toolkit.utils.files import MB, file_part, without_nan
from toolkit.workflows.pipeline import run_pipeline, workable_run


@dataclass(frozen=True)
class StudentResult:
    """One student of the ladder, as it ships."""

    student: str
    macro_f1: float
    """On the validation rows, of the package."""
    p50_ms: float | None
    package_mb: float
    parameters: int
    within_budget: bool
    package: str


@dataclass(frozen=True)
class StudentSearch:
    """Students of one teacher, the best within budget first, then the others."""

    students: list[StudentResult]
    beside: dict[str, float]
    """Macro-F1 of teacher and linear baseline on the validation rows."""


def recipe_of_teacher(data: str, given: dict[str, Any]) -> Recipe:
    """The recipe that all students share: that of the first teacher, if it is a run, with what was typed over it.

    So the rows are split as the teacher's were, without which its folds could not label rows they never saw.
    Raises: InputError without a teacher.
    """
    teachers = given.get("teacher", ())
    if not teachers:
        raise InputError("--teacher: name a run, a checkpoint folder or a Hugging Face classifier to learn from")
    place = locate(Path(teachers[0]))
    known = {} if place is None else place.run.recipe.flat()
    left_out = {"student", "name", "pipeline", *(each.name for each in fields(PruningSettings))}
    typed = {name: value for name, value in known.items() if name not in left_out}
    student = {"student": SEARCHED_STUDENTS[0], "data": data, "pipeline": "baseline_kd_quant"}
    return recipe_from(None, typed | given | student)


def search_students(
    recipe: Recipe, specs: Sequence[str], budget_ms: float | None, budget_mb: float | None, force: bool = False
) -> StudentSearch:
    """Train, export and measure each of the students that `specs` name.

    Writes runs/NAME.json with the table. A student whose candidates all fail their gate is left out.
    Raises: InputError as a run does; NothingPasses if no student is left.
    """
    name = recipe.run.name or f"{file_part(Path(recipe.corpus.data).stem)}-students"
    runs = {student: _recipe_of(student, recipe, name) for student in specs}
    for own in runs.values():
        workable_run(own, force)  # or the last student may be refused after hours of training the first
    students: list[StudentResult] = []
    last_refusal: NothingPasses | None = None
    for student, own in runs.items():
        say(f"student {student}")
        try:
            outcome = run_pipeline(own, force)
        except NothingPasses as refused:
            say(f"student {student}: {refused}")
            last_refusal = refused
            continue
        assert outcome.package is not None
        run = Run.open(outcome.folder)
        students.append(_result_of(student, run, outcome.package, budget_ms, budget_mb))
    if not students:
        assert last_refusal is not None
        raise last_refusal
    students.sort(key=lambda student: (not student.within_budget, -student.macro_f1))
    found = StudentSearch(students, _beside(run))
    record = {"rungs": [asdict(student) for student in students], "beside": found.beside}
    text = json.dumps(without_nan(record), indent=2, ensure_ascii=False)
    (RUNS / f"{name}.json").write_text(text + "\n", "utf-8")
    return found


def render(search: StudentSearch) -> None:
    """Print the students as a table on stdout."""
    lines = [
        {
            "Student": student.student,
            "Macro F1": f"{student.macro_f1:.4f}",
            "Latency p50 ms": "–" if student.p50_ms is None else f"{student.p50_ms:.3f}",
            "Package MB": f"{student.package_mb:.2f}",
            "Parameters": f"{student.parameters:,}",
            "Within budget": "yes" if student.within_budget else "no",
            "Package": student.package,
        }
        for student in search.students
    ]
    lines += [
        dict.fromkeys(lines[0], "") | {"Student": name, "Macro F1": f"{value:.4f}"}
        for name, value in search.beside.items()
    ]
    title = "on the validation rows, which the students' epochs and thresholds were chosen on"
    print_table(lines, title, left=("Student", "Package", "Within budget"), dispensable=("Parameters",))


def _recipe_of(student: str, recipe: Recipe, name: str) -> Recipe:
    """The recipe of one student. Characters are not trimmed as pieces are, so an ngram student never is."""
    export = replace(recipe.export, trim_vocabulary=None) if is_ngram(student) else recipe.export
    how, run = replace(recipe.distillation, student=student), replace(recipe.run, name=f"{name}-{file_part(student)}")
    return replace(recipe, distillation=how, export=export, run=run)


def _result_of(
    student: str, run: Run, package: Path, budget_ms: float | None, budget_mb: float | None
) -> StudentResult:
    exported = run.results[export_stage(read_manifest(package)["target"], DISTILLATION)]
    p50_ms, package_mb = exported.details["p50_ms"], exported.details["package_size_bytes"] / MB
    fast = budget_ms is None or (p50_ms is not None and p50_ms <= budget_ms)
    small = budget_mb is None or package_mb <= budget_mb
    macro_f1 = exported.validation_metrics["macro_f1"]
    return StudentResult(student, macro_f1, p50_ms, package_mb, exported.parameters, fast and small, package.as_posix())


def _beside(run: Run) -> dict[str, float]:
    teacher = run.results[DISTILLATION].details["teacher_validation_metrics"]["macro_f1"]
    return {"teacher": teacher, "linear baseline": run.results[LINEAR_BASELINE].validation_metrics["macro_f1"]}
