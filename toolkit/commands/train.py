"""`hbt data`, `train`, `run` and `students`: from a labeled file to a run."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from toolkit.commands.completion import COMPLETE
from toolkit.commands.shared import (
    FOLDER,
    TRAINING,
    force_option,
    json_option,
    on_option,
    print_json,
    recipe_option,
    ship_option,
    show_next,
    show_outcome,
    show_standing,
)
from toolkit.config.cli_options import given, options_of
from toolkit.config.grouped_help import Verb
from toolkit.config.recipe import CASCADE_SETTINGS, SEARCHED_STUDENTS, Recipe
from toolkit.config.settings import (
    CorpusSettings,
    DistillationSettings,
    ExportSettings,
    ModelSettings,
    PruningSettings,
    RunSettings,
    TrainingSettings,
)
from toolkit.config.toml_file import recipe_from
from toolkit.utils.errors import InputError


@click.command(cls=Verb, examples=("hbt data comments.csv",))
@click.argument("file", default="demo")
@options_of(CorpusSettings, leave_out=("data", "data_fraction"), complete=COMPLETE)
@click.option("--model", help="Encoder whose tokens to count: hub id or folder [default: a tokenizer trained on FILE].")
@options_of(ModelSettings, leave_out=("model", "pooling", "dropout", "freeze_base"), complete=COMPLETE)
@json_option
def data(file: str, model: str | None, as_json: bool, **options: Any) -> None:
    """Check FILE before training: labels, duplicates, lengths, leaks.

    Exits with code 2 and one line on stderr if a run would reject the file.
    """
    from toolkit.data import profile_view
    from toolkit.workflows.profile_file import profile_file

    recipe = recipe_from(None, given(options) | {"data": file})
    found = profile_file(recipe.corpus, model, recipe.model.max_length)
    if as_json:
        print_json(asdict(found))
    else:
        profile_view.render(found)
    if found.problem is not None:
        raise InputError(found.problem)


@click.command(cls=Verb, examples=("hbt train --data comments.csv --model ./encoder --student layers:4",))
@options_of(*TRAINING, RunSettings, leave_out=("pipeline",), complete=COMPLETE)
@click.option(
    "--outer-folds", type=int, metavar="N", help="Train N times, each time with another part of the rows as test rows."
)
@recipe_option
@on_option
@force_option
@json_option
def train(recipe_file: Path | None, outer_folds: int | None, force: bool, as_json: bool, **options: Any) -> None:
    """Fine-tune on folds; with --student, distill the folds into a student.

    Rerun the same command to resume.
    """
    recipe = recipe_from(recipe_file, given(options))
    if outer_folds is not None:
        _train_outer_folds(recipe, outer_folds, force, as_json)
        return
    from toolkit.workflows.pipeline import train_pipeline

    outcome = train_pipeline(recipe, force)
    if as_json:
        print_json(asdict(outcome))
        return
    show_outcome(outcome)
    cascade = " --cascade" * recipe.export.cascade
    if outcome.standing is not None and outcome.standing.problem:
        click.echo("\nnext: --learning-rate auto, more --epochs or another --model, with another --name")
    else:
        click.echo(f"\nnext: hbt compress {outcome.folder} --target onnx-int8{cascade}")
    show_standing("the model", outcome.standing)


def _train_outer_folds(recipe: Recipe, count: int, force: bool, as_json: bool) -> None:
    from toolkit.evaluation import comparison
    from toolkit.workflows.outer_folds import render, train_outer_folds

    found = train_outer_folds(recipe, count, force)
    if as_json:
        print_json(asdict(found))
        return
    render(found)
    comparison.render(found.comparisons)
    click.echo(f"\nruns: {found.folders[0]} … {found.folders[-1]}")


@click.command(
    cls=Verb, examples=("hbt run --data comments.csv --pipeline baseline_kd_quant --student ngram --no-teacher",)
)
@options_of(RunSettings, *TRAINING, PruningSettings, ExportSettings, complete=COMPLETE)
@recipe_option
@click.option("-o", "--output", type=FOLDER, help="Folder of the package [default: models/NAME-TARGET].")
@on_option
@ship_option
@json_option
def run(recipe_file: Path | None, output: Path | None, force: bool, as_json: bool, **options: Any) -> None:
    """Run all stages of a --pipeline: train, distill, prune, export, quantize.

    Rerun the same command to resume. If the model is not good enough for a package, the exit code is 3; hbt compress
    RUN --force makes one of the finished run.
    """
    from toolkit.workflows.pipeline import run_pipeline

    recipe = recipe_from(recipe_file, given(options), unused=("pruning", "distillation"))
    outcome = run_pipeline(recipe, force, output)
    if as_json:
        print_json(asdict(outcome))
        return
    show_outcome(outcome)
    if outcome.package is not None:
        show_next(outcome.package)
    show_standing("the model" if outcome.package is None else "the package", outcome.standing)


@click.command(cls=Verb, examples=("hbt students comments.csv --teacher runs/NAME --budget-ms 1 --budget-mb 5",))
@click.argument("data")
@click.option(
    "--students", "specs", help=f"Students to train, separated by spaces [default: {' '.join(SEARCHED_STUDENTS)}]."
)
@click.option("--budget-ms", type=click.FloatRange(0), help="Maximum median end-to-end latency in milliseconds.")
@click.option("--budget-mb", type=click.FloatRange(0), help="Maximum size of the package in MB.")
@options_of(
    RunSettings, CorpusSettings, ModelSettings, TrainingSettings, leave_out=("pipeline", "data"), complete=COMPLETE
)
@options_of(
    DistillationSettings, ExportSettings, leave_out=("student", "no_teacher", *CASCADE_SETTINGS), complete=COMPLETE
)
@on_option
@force_option
@json_option
def students(
    data: str,
    specs: str | None,
    budget_ms: float | None,
    budget_mb: float | None,
    force: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Train several students of one --teacher on DATA and show which is best within the budget.

    Settings that are not given are taken from the run of the teacher. Rerun the same command to resume.
    """
    from toolkit.workflows.student_search import recipe_of_teacher, render, search_students

    recipe = recipe_of_teacher(data, given(options))
    found = search_students(recipe, (specs or "").split() or SEARCHED_STUDENTS, budget_ms, budget_mb, force)
    if as_json:
        print_json([asdict(student) for student in found.students])
    else:
        render(found)
        if not found.students[0].within_budget:
            click.echo("\nno student is within the budget; raise it or try smaller --students")
        show_next(Path(found.students[0].package))
        show_standing("the package", found.standing)
