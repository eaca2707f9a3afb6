"""`hbt students`: a ladder of students of one teacher, so that people need not guess which one to ship.

Each rung is a run of its own, distilled, exported and quantized; the teacher's logits are computed for the first
and taken from the cache by the others. The table shows validation rows alone: it is there to choose by.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from toolkit.config.settings import RUNGS, PruningSettings, Recipe
from toolkit.config.toml_file import recipe_from
from toolkit.modeling.ngram import is_ngram
from toolkit.package import read_manifest
from toolkit.stages.run_folder import DISTILLATION, LINEAR_BASELINE, RUNS, Run, export_stage, locate
from toolkit.utils.console import print_table, say
from toolkit.utils.errors import InputError, NothingPasses
from toolkit.utils.files import MB, file_part, without_nan
from toolkit.workflows.pipeline import run_pipeline, workable_run


@dataclass(frozen=True)
class Rung:
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
class Ladder:
    """Students of one teacher, the best within budget first, then the others."""

    rungs: list[Rung]
    beside: dict[str, float]
    """Macro-F1 of teacher and linear baseline on the validation rows."""


def recipe_of_teacher(data: str, given: dict[str, Any]) -> Recipe:
    """The recipe that all rungs share: that of the first teacher, if it is a run, with what was typed over it.

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
    student = {"student": RUNGS[0], "data": data, "pipeline": "baseline_kd_quant"}
    return recipe_from(None, typed | given | student)


def climb(
    recipe: Recipe, students: Sequence[str], budget_ms: float | None, budget_mb: float | None, force: bool = False
) -> Ladder:
    """Train, export and measure each of `students`.

    Writes runs/NAME.json with the table. A student whose forms all fail their gate is left out.
    Raises: InputError as a run does; NothingPasses if no student is left.
    """
    name = recipe.run.name or f"{file_part(Path(recipe.corpus.data).stem)}-students"
    runs = {student: _recipe_of(student, recipe, name) for student in students}
    for own in runs.values():
        workable_run(own, force)  # or the last student may be refused after hours of training the first
    rungs: list[Rung] = []
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
        rungs.append(_rung(student, run, outcome.package, budget_ms, budget_mb))
    if not rungs:
        assert last_refusal is not None
        raise last_refusal
    rungs.sort(key=lambda rung: (not rung.within_budget, -rung.macro_f1))
    found = Ladder(rungs, _beside(run))
    text = json.dumps(without_nan(asdict(found)), indent=2, ensure_ascii=False)
    (RUNS / f"{name}.json").write_text(text + "\n", "utf-8")
    return found


def render(ladder: Ladder) -> None:
    """Print the ladder on stdout."""
    lines = [
        {
            "Student": rung.student,
            "Macro F1": f"{rung.macro_f1:.4f}",
            "Latency p50 ms": "–" if rung.p50_ms is None else f"{rung.p50_ms:.3f}",
            "Package MB": f"{rung.package_mb:.2f}",
            "Parameters": f"{rung.parameters:,}",
            "Within budget": "yes" if rung.within_budget else "no",
            "Package": rung.package,
        }
        for rung in ladder.rungs
    ]
    lines += [
        dict.fromkeys(lines[0], "") | {"Student": name, "Macro F1": f"{value:.4f}"}
        for name, value in ladder.beside.items()
    ]
    title = "on the validation rows, which the students' epochs and thresholds were chosen on"
    print_table(lines, title, left=("Student", "Package", "Within budget"), dispensable=("Parameters",))


def _recipe_of(student: str, recipe: Recipe, name: str) -> Recipe:
    """The recipe of one rung. Characters are not trimmed as pieces are, so an ngram student never is."""
    export = replace(recipe.export, trim_vocabulary=None) if is_ngram(student) else recipe.export
    how, run = replace(recipe.distillation, student=student), replace(recipe.run, name=f"{name}-{file_part(student)}")
    return replace(recipe, distillation=how, export=export, run=run)


def _rung(student: str, run: Run, package: Path, budget_ms: float | None, budget_mb: float | None) -> Rung:
    exported = run.results[export_stage(read_manifest(package)["target"], DISTILLATION)]
    p50_ms, package_mb = exported.details["p50_ms"], exported.details["package_size_bytes"] / MB
    fast = budget_ms is None or (p50_ms is not None and p50_ms <= budget_ms)
    small = budget_mb is None or package_mb <= budget_mb
    macro_f1 = exported.validation_metrics["macro_f1"]
    return Rung(student, macro_f1, p50_ms, package_mb, exported.parameters, fast and small, package.as_posix())


def _beside(run: Run) -> dict[str, float]:
    teacher = run.results[DISTILLATION].details["teacher_validation_metrics"]["macro_f1"]
    return {"teacher": teacher, "linear baseline": run.results[LINEAR_BASELINE].validation_metrics["macro_f1"]}
