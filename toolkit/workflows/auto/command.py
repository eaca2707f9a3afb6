"""`hbt auto`, step by step: understand the file, plan by the time there is, run the plan, show what came out."""

import math
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from toolkit.config.export_settings import ExportSettings
from toolkit.config.settings import CorpusSettings, RunSettings
from toolkit.config.toml_file import recipe_text
from toolkit.data.unlabeled import read_unlabeled
from toolkit.export.stage import refuse_for_ngram, refuse_unready
from toolkit.modeling.classifier import CONFIG_FILE
from toolkit.modeling.encoders import parse_shape
from toolkit.stages.run_folder import RUNS
from toolkit.utils.console import print_table, say
from toolkit.utils.errors import require
from toolkit.utils.files import file_part
from toolkit.utils.locks import locked
from toolkit.workflows.auto.outcome import Outcome
from toolkit.workflows.auto.plan import Request, describe, known_plan, make_plan, save_plan
from toolkit.workflows.auto.run import OTHER, default_package, forget, refuse_package, run_plan
from toolkit.workflows.auto.understanding import Understood, understand

Confirm = Callable[[tuple[str, ...]], None]
"""Called with what is doubtful; raises InputError to stop."""


def request_of(
    corpus: CorpusSettings,
    model: str | None,
    minutes: float,
    name: str | None,
    unlabelled: str | None,
    target: str = ExportSettings.target,
) -> Request:
    """Return what the user asked for. Raises: InputError for an invalid name."""
    if name is None:
        name = "demo" if corpus.data == "demo" else file_part(Path(corpus.data).stem)
    return Request(corpus, model, minutes, RunSettings(name=name).name or "", unlabelled, target)


def auto(
    request: Request, budget_ms: float, budget_mb: float, output: Path | None, confirm: Confirm, force: bool
) -> Outcome:
    """Turn a labeled file into the best package within the budget; the same call resumes.

    Raises: InputError for a file that cannot be used, or if `confirm` does; NothingPasses if nothing is worth shipping.
    """
    started = time.monotonic()
    _check(request, budget_ms, budget_mb)
    out = output or default_package(request.name)
    refuse_package(request, out, force)
    with locked(RUNS / f"{request.name}-auto", OTHER):
        understood = understand(request.corpus)
        request = replace(request, corpus=understood.corpus.settings)
        known = None if force else known_plan(request)
        _show(understood)
        if known is None and understood.doubts:
            confirm(understood.doubts)
        plan = known or make_plan(request, understood, started)
        for line in describe(plan):
            say(line)
        if force:
            forget(plan)
        save_plan(plan)
        return run_plan(plan, budget_ms, budget_mb, out, started)


def explain(request: Request, budget_ms: float, budget_mb: float) -> str:
    """Return the commands that `auto` would run, what they are for, and the recipe of the teacher. Run nothing.

    Raises: InputError as `auto`.
    """
    started = time.monotonic()
    _check(request, budget_ms, budget_mb)
    understood = understand(request.corpus)
    request = replace(request, corpus=understood.corpus.settings)
    known = known_plan(request)
    _show(understood)
    for doubt in understood.doubts:
        say(f"in doubt: {doubt}")
    plan = known or make_plan(request, understood, started)
    recipe = plan.labels_alone if plan.model is None else plan.teacher
    parts = [*(f"# {line}" for line in describe(plan)), *plan.commands(budget_ms, budget_mb), ""]
    return "\n".join([*parts, f"# {RUNS / (recipe.run.name or '')}/recipe.toml", recipe_text(recipe)]).rstrip()


def _check(request: Request, budget_ms: float, budget_mb: float) -> None:
    """Raise InputError for what is wrong with the options, before anything is shown."""
    for option, value in (
        ("--budget-ms", budget_ms),
        ("--budget-mb", budget_mb),
        ("--minutes", request.minutes),
    ):
        require(math.isfinite(value), option, f"{value} is not a number; give one above 0")
    export = ExportSettings(target=request.target)
    refuse_unready(export)
    refuse_for_ngram(export)  # there is always one, which learns from the labels alone
    model = request.model
    if model is not None and parse_shape(model, "--model") is None:
        folder = Path(model)
        here = folder.exists() or folder.is_absolute() or model.startswith(".") or model.count("/") > 1 or not model
        fits = not here or (folder / CONFIG_FILE).is_file()
        require(
            fits, f"--model {model}", f"no {CONFIG_FILE} there; give the folder of an encoder, a hub id or shape:LxH"
        )
    if request.unlabelled is not None:
        read_unlabeled(Path(request.unlabelled))


def _show(understood: Understood) -> None:
    for line in understood.lines:
        say(line)


def render(made: Outcome) -> None:
    """Print the students that were compared and, last, three lines about the package."""
    lines = [
        {
            "Student": student["student"],
            "Macro F1": f"{student['macro_f1']:.4f}",
            "Package MB": f"{student['package_mb']:.2f}",
            "Within budget": "yes" if student["within_budget"] else "no",
        }
        for student in sorted(made.students, key=lambda each: (not each["within_budget"], -each["macro_f1"]))
    ]
    print_table(lines, "packages, on the validation rows that chose among them", left=("Student", "Within budget"))
    for each in made.left_out:
        print(f"left out: {each['student']}: {each['reason']}")
    print("\n".join(["", *notes_on(made), *made.lines]))


def notes_on(made: Outcome) -> list[str]:
    """Return what the reader has to know before the figures."""
    notes = [f"from the labels alone: {made.why}"] if made.why else []
    if not made.within_budget:
        notes.append("no package is within the budget; this is the best one")
    if made.problem:
        notes.append(f"warning: the package is {made.problem}")
    return notes
