"""`hbt compare`, `bench`, `sync` and `ui`: what a run or a package is worth."""

from dataclasses import asdict
from pathlib import Path

import click

from toolkit.commands.completion import packages as complete_packages, runs, runs_and_packages
from toolkit.commands.shared import FOLDER, json_option, print_json
from toolkit.config.grouped_help import Verb


@click.command(
    cls=Verb,
    examples=("hbt compare runs/NAME/0-floor models/NAME-onnx-int8", "hbt compare runs/NAME models/NAME --slices"),
)
@click.argument("a", type=FOLDER, shell_complete=runs_and_packages)
@click.argument("b", type=FOLDER, shell_complete=runs_and_packages)
@click.option(
    "--margin",
    type=click.FloatRange(0, 1, min_open=True),
    default=0.01,
    show_default=True,
    help="Smallest difference of macro-F1 that matters.",
)
@click.option("--data", help="Data file of the runs, if it was moved [default: as recorded, or beside A].")
@click.option("--slices", is_flag=True, help="Compare by label, length, script, rare words, duplicates and more.")
@json_option
def compare(a: Path, b: Path, margin: float, data: str | None, slices: bool, as_json: bool) -> None:
    """Test whether B is worse than A on the same test rows. Each is a run, a stage of a run, or a package.

    Uses the stored predictions; no model is run.
    """
    from toolkit.evaluation.comparison import render
    from toolkit.evaluation.slices import render_slices
    from toolkit.workflows.compare import compare_stages, compare_stages_on_slices

    found = compare_stages(a, b, margin, data)
    parts = compare_stages_on_slices(a, b, data) if slices else None
    if as_json:
        print_json(asdict(found) | ({} if parts is None else {"slices": parts.as_dict()}))
        return
    render([found])
    if parts is not None:
        render_slices(parts)


@click.command(cls=Verb, examples=("hbt bench models/NAME-onnx-int8",))
@click.argument("packages", type=FOLDER, nargs=-1, required=True, shell_complete=complete_packages)
@click.option("--data", help="Data file of the packages, if it was moved [default: as recorded, or beside them].")
@click.option("--teacher", type=FOLDER, help="Checkpoint to compare with [default: that of the run of the package].")
@click.option("--threads", type=click.IntRange(1), default=1, show_default=True, help="Threads per model.")
@click.option(
    "--from",
    "devices",
    type=FOLDER,
    multiple=True,
    help="Add the figures of another machine: JSON that `python how_to_load.py --bench` of a PACKAGE printed there.",
)
@click.option(
    "-o", "--output", type=FOLDER, default=Path("bench"), show_default=True, help="Folder for JSON, CSV, SVG and PNG."
)
@json_option
def bench(
    packages: tuple[Path, ...],
    data: str | None,
    teacher: Path | None,
    threads: int,
    devices: tuple[Path, ...],
    output: Path,
    as_json: bool,
) -> None:
    """Compare PACKAGES with the linear baseline and the fp32 teacher: latency, throughput, memory, size, macro-F1.

    Uses the test rows of the corpus that the packages were made from; it must be the same for all of them.
    """
    from benchmarks.bench import bench_packages

    file = bench_packages(list(packages), data, teacher, threads, output, quiet=as_json, devices=devices)
    if as_json:
        click.echo(file.read_text("utf-8"), nl=False)


@click.command(cls=Verb, examples=("hbt sync runs/NAME",))
@click.argument("run", type=FOLDER, shell_complete=runs)
@json_option
def sync(run: Path, as_json: bool) -> None:
    """Log to MLflow what it does not have yet of RUN, such as after a failure of the server or a killed command."""
    from toolkit.tracking import mlflow_store
    from toolkit.workflows.pipeline import sync_run

    sync_run(run)
    if as_json:
        print_json({"run": run, "store": mlflow_store.store()})
        return
    click.echo(f"{run}: logged to {mlflow_store.store()}")


@click.command(cls=Verb, examples=("hbt ui",))
@click.option("--port", type=click.IntRange(1, 65535), default=5000, show_default=True, help="Port of the server.")
def ui(port: int) -> None:
    """Open the MLflow UI with the runs of this folder (or of MLFLOW_TRACKING_URI)."""
    from toolkit.tracking import mlflow_store

    mlflow_store.serve(port)
