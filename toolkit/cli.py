"""The commands of `hbt`: options and messages only. Heavy modules are imported when a command runs."""

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
from toolkit.utils.console import json_line, printable, use_utf8
from toolkit.utils.errors import InputError, NothingPasses
from toolkit.utils.overwrite import refuse_file

FOLDER = click.Path(path_type=Path)
TRAINING = (CorpusSettings, ModelSettings, TrainingSettings, DistillationSettings)
recipe_option = click.option(
    "--recipe", "recipe_file", type=FOLDER, help="TOML file with settings; command-line options override it."
)
force_option = click.option("--force", is_flag=True, help="Overwrite existing files and folders.")
ship_option = click.option(
    "--force", is_flag=True, help="Overwrite existing files, and make a package even if no candidate passes."
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120})
@click.version_option(__version__, prog_name="hbt")
def verbs() -> None:
    """Turn labeled texts into a small classifier for any CPU, and measure what each step loses.

    \b
    hbt train --data comments.csv --student layers:4     fine-tune on folds, then distill
    hbt compress runs/NAME --target onnx-int8            make a package from the run
    hbt bench models/NAME                                compare it with the linear baseline and its teacher
    """


@verbs.command()
@click.argument("file", default="demo")
@options_of(CorpusSettings, leave_out=("data", "data_fraction"))
@click.option("--model", help="Encoder whose tokens to count: hub id or folder [default: a tokenizer trained on FILE].")
@json_option
def data(file: str, model: str | None, as_json: bool, **options: Any) -> None:
    """Check FILE before training: labels, duplicates, lengths, leaks.

    Exits with code 2 and one line on stderr if a run would reject the file.
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
    """Fine-tune on folds; with --student, distill the folds into a student.

    Rerun the same command to resume.
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
    """Run all stages of a --pipeline: train, distill, prune, export, quantize.

    Rerun the same command to resume.
    """
    from toolkit.workflows.pipeline import run_pipeline

    outcome = run_pipeline(recipe_from(recipe_file, given(options)), force, output)
    _outcome(outcome)
    if outcome.package is not None:
        _next(outcome.package)


@verbs.command()
@click.argument("data")
@click.option(
    "--students", "specs", help=f"Students to train, separated by spaces [default: {' '.join(SEARCHED_STUDENTS)}]."
)
@click.option("--budget-ms", type=click.FloatRange(0), help="Maximum median end-to-end latency in milliseconds.")
@click.option("--budget-mb", type=click.FloatRange(0), help="Maximum size of the package in MB.")
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

    Settings that are not given are taken from the run of the teacher. Rerun the same command to resume.
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
            click.echo("\nno student is within the budget; raise it or try smaller --students")
        _next(Path(found.students[0].package))


@verbs.command()
@click.argument("source")
@options_of(ExportSettings, PruningSettings)
@click.option("-o", "--output", type=FOLDER, help="Folder of the package [default: models/NAME-TARGET].")
@options_of(CorpusSettings, leave_out=("data_fraction", "folds"))
@ship_option
def compress(source: str, output: Path | None, force: bool, **options: Any) -> None:
    """Make a package from SOURCE: a run, a checkpoint folder, or a Hugging Face classifier (folder or hub id).

    A run has its own data. Any other source needs --data: labeled rows to evaluate it on. With any --prune option, the
    classifier is pruned first. The candidates of the target are evaluated on validation rows, and the fastest that
    loses at most --max-drop is selected. If none passes, the exit code is 3 and no package is made without --force.
    """
    from toolkit.workflows.compress import compress_source

    outcome = compress_source(source, given(options), output, force)
    _table(outcome)
    assert outcome.package is not None
    _next(outcome.package)


@verbs.command("targets")
@json_option
def list_targets(as_json: bool) -> None:
    """List every target, whether it is available on this machine, and what to install if not."""
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
    help="Smallest difference of macro-F1 that matters.",
)
@json_option
def compare(a: Path, b: Path, margin: float, as_json: bool) -> None:
    """Test whether B is worse than A on the same test rows. Each is a run, a stage of a run, or a package.

    Uses the stored predictions; no model is run.
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
@click.option("--input", "source", type=FOLDER, help="CSV, TSV, JSON Lines or Parquet file with the texts to label.")
@click.option("--output", type=FOLDER, help="Labeled file to write; its suffix selects the format.")
@click.option("--text-column", help="Column with the texts (default: found by name).")
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
    from toolkit.workflows.predict_file import label_file, refuse_blank

    if bool(texts) == bool(source):
        raise InputError("give either texts or --input FILE with --output FILE")
    if source is not None and output is None:
        raise InputError("--output: name the file to write")
    refuse_blank(texts)
    if source is not None and output is not None:
        refuse_file(output, force, "--output")
        rows = label_file(packages.load(package), source, output, text_column)
        click.echo(json.dumps({"rows": rows, "output": str(output)}) if as_json else f"{rows} rows labeled: {output}")
        return
    for text, (label, probability) in zip(texts, packages.predict(packages.load(package), texts), strict=True):
        line = {"text": text, "label": label, "probability": round(probability, 6)}
        plain = f"{printable(label)}\t{probability:.4f}\t{printable(text)}"
        click.echo(json_line(line) if as_json else plain)


@verbs.command()
@click.argument("package", type=FOLDER)
@json_option
def verify(package: Path, as_json: bool) -> None:
    """Check that the files of a PACKAGE are unchanged and that it reproduces its golden scores."""
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
        f"{package}: {found.files} files unchanged, {found.golden_texts} golden texts, "
        f"largest score difference {found.largest_score_gap:.1e}"
    )


@verbs.command()
@click.argument("packages", type=FOLDER, nargs=-1, required=True)
@click.option("--data", help="Data file of the packages, if it was moved [default: as recorded].")
@click.option("--teacher", type=FOLDER, help="Checkpoint to compare with [default: that of the run of the package].")
@click.option("--threads", type=click.IntRange(1), default=1, show_default=True, help="Threads per model.")
@click.option(
    "-o", "--output", type=FOLDER, default=Path("bench"), show_default=True, help="Folder for JSON, CSV, SVG and PNG."
)
@json_option
def bench(
    packages: tuple[Path, ...], data: str | None, teacher: Path | None, threads: int, output: Path, as_json: bool
) -> None:
    """Compare PACKAGES with the linear baseline and the fp32 teacher: latency, throughput, memory, size, macro-F1.

    Uses the test rows of the corpus that the packages were made from; it must be the same for all of them.
    """
    from benchmarks.bench import bench_packages

    file = bench_packages(list(packages), data, teacher, threads, output, quiet=as_json)
    if as_json:
        click.echo(file.read_text("utf-8"), nl=False)


@verbs.command()
@click.option("--port", type=click.IntRange(1, 65535), default=5000, show_default=True, help="Port of the server.")
def ui(port: int) -> None:
    """Open the MLflow UI with the runs of this folder (or of MLFLOW_TRACKING_URI)."""
    from toolkit.workflows import tracking

    tracking.serve(port)


def _outcome(outcome: Any) -> None:
    _table(outcome)
    click.echo(f"\n{outcome.description}: {outcome.folder}")


def _table(outcome: Any) -> None:
    from toolkit.evaluation import comparison
    from toolkit.stages import results_table

    without_run = outcome.folder == outcome.package
    unknown = "whether the classifier was trained on them is not known"
    status = unknown if without_run else "held out: never used for model selection"
    results_table.render(outcome.rows, outcome.labels, f"test rows ({status})")
    comparison.render(outcome.comparisons)


def _next(package: Path) -> None:
    click.echo(f'\npackage: {package}\nnext: hbt predict {package} "text"  ·  hbt bench {package}')


def main() -> None:
    """Run a command. Errors are one line on stderr, with exit code 2 (wrong input) or 3 (no candidate passes)."""
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    try:
        use_utf8(sys.argv[1:])
        verbs(prog_name="hbt", standalone_mode=False)
    except InputError as error:
        _stop(str(error), 2)
    except click.ClickException as error:
        _stop(error.format_message(), 2)
    except NothingPasses as error:
        _stop(str(error), 3)
    except (KeyboardInterrupt, click.Abort):
        restarts = "--force" in sys.argv[1:] and sys.argv[1] in ("train", "run", "students")
        _stop(f"interrupted; rerun the same command{' without --force' * restarts} to resume", 130)


def _stop(message: str, code: int) -> None:
    click.echo(f"hbt: {printable(' '.join(message.split()))}", err=True)
    sys.exit(code)


if __name__ == "__main__":
    main()
