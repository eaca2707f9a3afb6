"""`hbt compare`, `bench`, `sync` and `ui`: what a run or a package is worth."""

import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from toolkit.commands.completion import packages as complete_packages, runs, runs_and_packages
from toolkit.commands.shared import FOLDER, json_option, print_json
from toolkit.config.grouped_help import Verb


class _Percent(click.ParamType):
    name = "percent"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        try:
            found = float(str(value).removesuffix("%"))
        except ValueError:
            found = -1.0
        if not 0 <= found < 1000:
            self.fail(f"{value!r} is not a percentage from 0 to 1000, such as 10%", param, ctx)
        return found


PERCENT = _Percent()


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
@click.option("--threads", type=click.IntRange(1), help="Threads per model [default: 1, or those of the CPU target].")
@click.option(
    "--scenario",
    type=click.Choice(["single-stream", "offline", "server"]),
    default="single-stream",
    show_default=True,
    help="One text after the other, all at once, or random arrivals: the highest rate that holds --p99-ms.",
)
@click.option(
    "--p99-ms", type=float, default=10.0, show_default=True, help="Server: bound of the 99th percentile of latency."
)
@click.option(
    "--cpu-target",
    metavar="NAME|FILE",
    help="Imitate another machine: its threads, memory and instructions. NAME of benchmarks/targets, or a TOML file.",
)
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
@click.option("--html", is_flag=True, help="Also write one HTML page with figures, a table that sorts and the machine.")
@click.option("--roofline", is_flag=True, help="Only say how far packages are from the limit of this machine, and why.")
@click.option("--against", type=FOLDER, help="JSON of an earlier bench: show what became slower beyond noise.")
@click.option(
    "--fail-slower",
    type=PERCENT,
    metavar="PERCENT",
    help="With --against, exit with code 5 if a package became slower by more than this, such as 10%.",
)
@json_option
def bench(
    packages: tuple[Path, ...],
    data: str | None,
    teacher: Path | None,
    threads: int | None,
    devices: tuple[Path, ...],
    as_json: bool,
    **more: Any,
) -> None:
    """Compare PACKAGES with the linear baseline and the fp32 teacher: latency, throughput, memory, size, macro-F1.

    Uses the test rows of the corpus that the packages were made from; it must be the same for all of them. Other models
    can stand beside them: onnx:FOLDER, as optimum writes it, and python:MODULE.FUNCTION, from texts to labels.
    """
    from benchmarks.against import slower_than
    from benchmarks.bench import Conditions, Output, bench_packages
    from benchmarks.targets.read import read_target
    from toolkit.latency.scenarios import Scenario
    from toolkit.utils.console import say
    from toolkit.utils.errors import require

    if more["roofline"]:
        from benchmarks.limit.report import report_rooflines

        found = report_rooflines(list(packages), data, threads or 1, quiet=as_json)
        if as_json:
            print_json(found)
        return
    against, fail_slower = more["against"], more["fail_slower"]
    require(fail_slower is None or against is not None, "--fail-slower", "needs an earlier bench; give --against FILE")
    where = Output(more["output"], quiet=as_json, page=more["html"], earlier=against)
    target = None if more["cpu_target"] is None else read_target(more["cpu_target"], threads)
    threads = threads or (1 if target is None else target.threads)
    conditions = Conditions(Scenario(more["scenario"], more["p99_ms"]), target)
    file, changes = bench_packages(list(packages), data, teacher, threads, where, devices, conditions)
    if as_json:
        click.echo(file.read_text("utf-8"), nl=False)
    slower = [] if fail_slower is None else slower_than(changes, fail_slower)
    for each in slower:
        say(f"{each.name}: {100 * (each.ratio - 1):.1f} % slower than in {against}, more than {fail_slower:g} %")
    if slower:
        sys.exit(5)


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
