"""`hbt runs` and `hbt show`: what there is, from stored results."""

from dataclasses import asdict
from pathlib import Path

import click

from toolkit.commands.completion import runs_and_packages
from toolkit.commands.shared import FOLDER, json_option, print_json
from toolkit.config.grouped_help import Verb


@click.command("runs", cls=Verb, examples=("hbt runs", "hbt runs --json"))
@json_option
def list_runs(as_json: bool) -> None:
    """List the runs and packages of this folder (runs/ and models/) with their figures."""
    from toolkit.workflows import list_runs as listing

    runs, packages = listing.list_runs(), listing.list_packages()
    if as_json:
        print_json({"runs": [asdict(run) for run in runs], "packages": [asdict(each) for each in packages]})
    else:
        listing.render_list(runs, packages)


@click.command(cls=Verb, examples=("hbt show runs/NAME",))
@click.argument("run", type=FOLDER, shell_complete=runs_and_packages)
@json_option
def show(run: Path, as_json: bool) -> None:
    """Print the tables of RUN, or of the run that made a package, and where its files are.

    Everything is read from its folder; no model runs and no data file is needed.
    """
    from toolkit.workflows.list_runs import render_run, stored_run

    found = stored_run(run)
    if as_json:
        print_json(asdict(found))
    else:
        render_run(found)
