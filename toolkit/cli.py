"""`hbt`: verbs, options and messages. No logic, and no heavy import before a verb runs."""

import json
import os
import sys
from pathlib import Path
from typing import Any

import click

from toolkit import __version__
from toolkit.config.cli_options import given, options_of
from toolkit.config.recipe import SEARCHED_STUDENTS
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
from toolkit.utils.console import json_line, printable
from toolkit.utils.errors import InputError, NothingPasses, refuse_existing

FOLDER = click.Path(path_type=Path)
TRAINING = (CorpusSettings, ModelSettings, TrainingSettings, DistillationSettings)
recipe_option = click.option(
    "--recipe", "recipe_file", type=FOLDER, help="TOML file with settings; options on the command line win."
)
force_option = click.option("--force", is_flag=True, help="Remove or write over what is in the way.")
ship_option = click.option(
    "--force", is_flag=True, help="Write over what is in the way, and ship even what fails its gate; the card says so."
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON for machines.")


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120})
@click.version_option(__version__, prog_name="hbt")
def verbs() -> None:
    """Labeled texts in, a small classifier for any CPU out, with proof of what was lost on the way.

    \b
    hbt train --data comments.csv --student layers:4     fine-tune on folds, then distil
    hbt compress runs/NAME --target onnx-int8            make a package of it
    hbt bench models/NAME                                measure it beside the linear baseline and its teacher
    """


@verbs.command()
@click.argument("file", default="demo")
@options_of(CorpusSettings, leave_out=("data", "data_fraction"))
@click.option("--model", help="Count tokens as this encoder does (hub id or folder); else as one trained on the file.")
@json_option
def data(file: str, model: str | None, as_json: bool, **options: Any) -> None:
    """Show what to know of FILE before training: labels, duplicates, lengths, leaks.

    Ends with exit code 2 and one line on stderr if a run would refuse the file.
    """
    from dataclasses import asdict

    from toolkit.data import profile_view
    from toolkit.utils.files import without_nan
    from toolkit.workflows.profile_file import profile_file

    found = profile_file(recipe_from(None, given(options) | {"data": file}).corpus, model)
    if as_json:
        click.echo(json.dumps(without_nan(asdict(found)), ensure_ascii=False))
    else:
        profile_view.render(found)
    if found.problem is not None:
        raise InputError(found.problem)


@verbs.command()
@options_of(*TRAINING, RunSettings, leave_out=("pipeline",))
@recipe_option
@force_option
def train(recipe_file: Path | None, force: bool, **options: Any) -> None:
    """Fine-tune on folds; with --student, distil the folds into a student.

    The same command goes on where a run was broken off.
    """
    from toolkit.workflows.pipeline import train_pipeline

    outcome = train_pipeline(recipe_from(recipe_file, given(options)), force)
    _outcome(outcome)
    click.echo(f"\nnext: hbt compress {outcome.folder} --target onnx-int8")


@verbs.command()
@options_of(RunSettings, *TRAINING, PruningSettings, ExportSettings)
@recipe_option
@click.option("-o", "--output", type=FOLDER, help="Folder of the package [default: models/NAME-TARGET].")
@force_option
def run(recipe_file: Path | None, output: Path | None, force: bool, **options: Any) -> None:
    """Do all stages of a --pipeline in one go: train, distil, prune, export, quantize.

    The same command goes on where a run was broken off.
    """
    from toolkit.workflows.pipeline import run_pipeline

    outcome = run_pipeline(recipe_from(recipe_file, given(options)), force, output)
    _outcome(outcome)
    if outcome.package is not None:
        _next(outcome.package)


@verbs.command()
@click.argument("data")
@click.option(
    "--students", "specs", help=f"Students to try, separated by spaces [default: {' '.join(SEARCHED_STUDENTS)}]."
)
@click.option("--budget-ms", type=click.FloatRange(0), help="Longest median time from text to label.")
@click.option("--budget-mb", type=click.FloatRange(0), help="Largest package in MB.")
@options_of(RunSettings, CorpusSettings, ModelSettings, TrainingSettings, leave_out=("pipeline", "data"))
@options_of(DistillationSettings, ExportSettings, leave_out=("student",))
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

    Settings that are not given are those of the teacher's run. Rerun the same command to resume.
    """
    from dataclasses import asdict

    from toolkit.workflows.student_search import recipe_of_teacher, render, search_students

    recipe = recipe_of_teacher(data, given(options))
    found = search_students(recipe, (specs or "").split() or SEARCHED_STUDENTS, budget_ms, budget_mb, force)
    if as_json:
        click.echo(json.dumps([asdict(student) for student in found.students], ensure_ascii=False))
    else:
        render(found)
        if not found.students[0].within_budget:
            click.echo("\nno student is within the budget: raise it, or try smaller --students")
        _next(Path(found.students[0].package))


@verbs.command()
@click.argument("source")
@options_of(ExportSettings, PruningSettings)
@click.option("-o", "--output", type=FOLDER, help="Folder of the package [default: models/NAME-TARGET].")
@options_of(CorpusSettings, leave_out=("data_fraction", "folds"))
@ship_option
def compress(source: str, output: Path | None, force: bool, **options: Any) -> None:
    """Make a package of SOURCE: a run, a checkpoint folder, or a Hugging Face classifier (folder or hub id).

    A run brings its own data; any other source needs --data, labeled rows to check it on. Any --prune option has it
    pruned first. The forms of the target are measured on validation rows, and the fastest that loses no more than
    --max-drop ships; if none passes, nothing ships but by --force, and the exit code is 3.
    """
    from toolkit.workflows.compress import compress_source

    outcome = compress_source(source, given(options), output, force)
    _table(outcome)
    assert outcome.package is not None
    _next(outcome.package)


@verbs.command("targets")
@json_option
def list_targets(as_json: bool) -> None:
    """List every target: whether it can be made here, and what to install if not."""
    from dataclasses import asdict

    from toolkit.export.targets import list_targets, render

    found = list_targets()
    if as_json:
        click.echo(json.dumps([asdict(each) for each in found], ensure_ascii=False))
    else:
        render(found)


@verbs.command()
@click.argument("a", type=FOLDER)
@click.argument("b", type=FOLDER)
@click.option(
    "--margin",
    type=click.FloatRange(0, 1, min_open=True),
    default=0.01,
    show_default=True,
    help="A smaller difference of macro-F1 does not matter.",
)
@json_option
def compare(a: Path, b: Path, margin: float, as_json: bool) -> None:
    """Say whether B is worse than A on the same test rows: each a run, a stage of one, or a package.

    No model is run: the labels that both gave are on the disk.
    """
    from dataclasses import asdict

    from toolkit.evaluation.comparison import render
    from toolkit.workflows.compare import compare_stages

    found = compare_stages(a, b, margin)
    if as_json:
        click.echo(json.dumps(asdict(found), ensure_ascii=False))
    else:
        render([found])


@verbs.command()
@click.argument("package", type=FOLDER)
@click.argument("texts", nargs=-1)
@click.option("--input", "source", type=FOLDER, help="Label the texts of this CSV, TSV, JSON Lines or Parquet file.")
@click.option("--output", type=FOLDER, help="Where the labeled file goes; its suffix says in which form.")
@click.option("--text-column", help="Column of the texts (default: found by name).")
@force_option
@json_option
def predict(
    package: Path,
    texts: tuple[str, ...],
    source: Path | None,
    output: Path | None,
    text_column: str | None,
    force: bool,
    as_json: bool,
) -> None:
    """Label TEXTS, or the texts of a file, with a PACKAGE."""
    from toolkit import package as packages

    if bool(texts) == bool(source):
        raise InputError("give either texts or --input FILE with --output FILE")
    if source is not None and output is None:
        raise InputError("--output: name the file to write")
    if source is not None and output is not None:
        from toolkit.workflows.predict_file import label_file

        refuse_existing(output, force, "--output")
        rows = label_file(packages.load(package), source, output, text_column)
        click.echo(json.dumps({"rows": rows, "output": str(output)}) if as_json else f"{rows} rows labeled: {output}")
        return
    for text, (label, probability) in zip(texts, packages.predict(packages.load(package), texts), strict=True):
        if as_json:
            line = {"text": text, "label": label, "probability": round(probability, 6)}
            click.echo(json_line(line))
        else:
            click.echo(f"{printable(label)}\t{probability:.4f}\t{printable(text)}")


@verbs.command()
@click.argument("package", type=FOLDER)
@json_option
def verify(package: Path, as_json: bool) -> None:
    """Check every file of a PACKAGE and its golden scores."""
    from dataclasses import asdict

    from toolkit import package as packages
    from toolkit.utils.files import without_nan

    found = packages.verify(package)
    if as_json:
        click.echo(json.dumps(without_nan(asdict(found))))
        sys.exit(2 if found.problems else 0)
    if found.problems:
        raise InputError(f"{package}: {'; '.join(found.problems)}")
    click.echo(
        f"{package}: {found.files} files as shipped, {found.golden_texts} golden texts, "
        f"largest difference of a score {found.largest_score_gap:.1e}"
    )


@verbs.command()
@click.argument("packages", type=FOLDER, nargs=-1, required=True)
@click.option("--data", help="Where the data of the package lie now [default: where they lay].")
@click.option("--teacher", type=FOLDER, help="Checkpoint to compare with [default: that of the package's run].")
@click.option("--threads", type=click.IntRange(1), default=1, show_default=True, help="Threads of each model.")
@click.option(
    "-o", "--output", type=FOLDER, default=Path("bench"), show_default=True, help="Folder for JSON, CSV, SVG."
)
@json_option
def bench(
    packages: tuple[Path, ...], data: str | None, teacher: Path | None, threads: int, output: Path, as_json: bool
) -> None:
    """Measure PACKAGES beside the linear baseline and the fp32 teacher: latency, throughput, memory, size, macro-F1.

    On the test rows of the corpus they were made from; all packages must come from the same one.
    """
    from benchmarks.bench import bench_packages

    file = bench_packages(list(packages), data, teacher, threads, output, quiet=as_json)
    if as_json:
        click.echo(file.read_text("utf-8"), nl=False)


@verbs.command()
@click.option("--port", type=click.IntRange(1, 65535), default=5000, show_default=True)
def ui(port: int) -> None:
    """Open MLflow on the runs of this folder (or of MLFLOW_TRACKING_URI)."""
    from toolkit.workflows import tracking

    tracking.serve(port)


def _outcome(outcome: Any) -> None:
    _table(outcome)
    click.echo(f"\n{outcome.description}: {outcome.folder}")


def _table(outcome: Any) -> None:
    from toolkit.evaluation import comparison
    from toolkit.stages import results_table

    lone = outcome.folder == outcome.package
    known = "whether the classifier once learned from them is not known" if lone else "which no choice has seen"
    results_table.render(outcome.rows, outcome.labels, f"on the test rows, {known}")
    comparison.render(outcome.comparisons)


def _next(package: Path) -> None:
    click.echo(f'\npackage: {package}\nnext: hbt predict {package} "text"  ·  hbt bench {package}')


def main() -> None:
    """Run a verb; a user's mistake is one line on stderr and exit code 2, a gate that nothing passes exit code 3."""
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    try:
        verbs(prog_name="hbt", standalone_mode=False)
    except InputError as error:
        _stop(str(error), 2)
    except click.ClickException as error:
        _stop(error.format_message(), 2)
    except NothingPasses as refused:
        _stop(str(refused), 3)
    except (KeyboardInterrupt, click.Abort):
        _stop("stopped; the same command goes on from here", 130)


def _stop(message: str, code: int) -> None:
    click.echo(f"hbt: {printable(' '.join(message.split()))}", err=True)
    sys.exit(code)


if __name__ == "__main__":
    main()
