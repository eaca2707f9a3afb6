"""What `hbt auto` made, in three lines that a person can act on, and as JSON."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from toolkit.evaluation.comparison import versus
from toolkit.evaluation.significance import INCONCLUSIVE, Comparison
from toolkit.stages.linear_baseline import NAME as LINEAR_BASELINE_NAME
from toolkit.stages.run_folder import DISTILLATION, LINEAR_BASELINE, locate
from toolkit.stages.teachers import TEACHER
from toolkit.workflows.compare import contender, teacher_of
from toolkit.workflows.halving import LeftOut
from toolkit.workflows.run_summary import summary_of
from toolkit.workflows.student_search import StudentResult

SMALL = 0.0005
"""Differences of macro-F1 below this are printed as none."""


@dataclass(frozen=True)
class Outcome:
    """The package of `hbt auto` and its figures; macro-F1 and comparisons on the test rows."""

    package: str
    run: str
    student: str
    within_budget: bool
    package_mb: float
    latency_ms: float | None
    """p50 or, of a cascade, mean."""
    linear_ms: float | None
    """p50 of the linear baseline."""
    macro_f1: float
    versus_linear: dict[str, Any]
    versus_teacher: dict[str, Any] | None
    """None if it has no teacher."""
    problem: str
    """What is wrong with it beside the linear baseline; empty if nothing is."""
    why: str
    """Why it has no teacher; empty if it has one."""
    students: list[dict[str, Any]] = field(default_factory=list)
    """All packages that were made, with macro-F1 on the validation rows."""
    left_out: list[dict[str, Any]] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)
    """Size and speed; accuracy; what to do next."""


def outcome_of(
    best: StudentResult, out: Path, why: str, students: Sequence[StudentResult], left_out: Sequence[LeftOut]
) -> Outcome:
    """Return the outcome with the package `best`, which was copied to `out`."""
    place = locate(Path(best.package))
    assert place is not None and place.stage is not None, "its run has made it"
    run, stage = place.run, place.stage
    summary = summary_of(run, Path(best.package))
    linear_ms = summary.rows[0].p50_ms
    artifact = contender(run, stage, best.student)
    to_linear = versus(run.corpus, artifact, contender(run, LINEAR_BASELINE, LINEAR_BASELINE_NAME)).comparison
    teacher = teacher_of(run) if DISTILLATION in run.results else None
    taught = teacher is not None and teacher.name != LINEAR_BASELINE_NAME
    to_teacher = versus(run.corpus, artifact, teacher).comparison if teacher is not None and taught else None
    macro_f1 = run.results[stage].metrics["macro_f1"]
    latency = best.p50_ms if best.mean_ms is None else best.mean_ms
    lines = [
        _speed(best, latency, linear_ms),
        ", ".join([f"macro-F1 {macro_f1:.3f}", *_beside(to_teacher, to_linear)]),
        f'copy {out.as_posix()} to the device and run python how_to_load.py "text" (once before: pip install -r '
        "requirements.txt)",
    ]
    return Outcome(
        package=out.as_posix(),
        run=run.folder.as_posix(),
        student=best.student,
        within_budget=best.within_budget,
        package_mb=best.package_mb,
        latency_ms=latency,
        linear_ms=linear_ms,
        macro_f1=macro_f1,
        versus_linear=to_linear.as_dict(),
        versus_teacher=None if to_teacher is None else to_teacher.as_dict(),
        problem="" if summary.standing is None else summary.standing.problem,
        why=why,
        students=[asdict(student) for student in students],
        left_out=[asdict(each) for each in left_out],
        lines=lines,
    )


def _speed(best: StudentResult, latency: float | None, linear_ms: float | None) -> str:
    """Return size, latency and how much faster than the linear baseline that is."""
    parts = [f"{best.package_mb:.1f} MB"]
    if latency is not None:
        parts.append(f"{latency:.2f} ms" + (" on average" if best.mean_ms is not None else ""))
    if latency and linear_ms:
        ratio = max(latency, linear_ms) / min(latency, linear_ms)
        times = f"{ratio:.0f}" if ratio >= 9.5 else f"{ratio:.1f}"
        faster = "faster" if latency <= linear_ms else "slower"
        parts.append(
            f"as fast as the {LINEAR_BASELINE_NAME}"
            if times == "1.0"
            else f"{times} times {faster} than the {LINEAR_BASELINE_NAME}"
        )
    return ", ".join(parts)


def _beside(to_teacher: Comparison | None, to_linear: Comparison) -> list[str]:
    if to_teacher is None:
        return [_difference(to_linear, f"the {LINEAR_BASELINE_NAME}", " points")]
    return [
        _difference(to_teacher, f"its {TEACHER}", " points"),
        _difference(to_linear, f"the {LINEAR_BASELINE_NAME}", ""),
    ]


def _difference(found: Comparison, other: str, unit: str) -> str:
    """Return how far macro-F1 is above or below that of another model, and whether the rows can tell."""
    difference = found.macro_f1_difference
    far = f"{abs(100 * difference):.1f}{unit} {'above' if difference > 0 else 'below'} {other}"
    shown = f"equal to {other}" if abs(difference) < SMALL else far
    return shown + (" (too few rows to tell)" if found.verdict == INCONCLUSIVE else "")
