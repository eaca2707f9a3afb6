"""`hbt auto`: from a labeled file to a package in one command."""

import sys
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import click

from toolkit.commands.completion import targets
from toolkit.commands.shared import FOLDER, force_option, json_option, print_json
from toolkit.config.cli_options import given, options_of
from toolkit.config.export_settings import ExportSettings
from toolkit.config.grouped_help import Verb
from toolkit.config.settings import CorpusSettings
from toolkit.config.toml_file import recipe_from
from toolkit.utils.errors import InputError

CORPUS = ("encoding", "separator", "text_column", "label_column", "label_names", "missing_label", "seed")
LEFT_OUT = tuple(field.name for field in fields(CorpusSettings) if field.name not in CORPUS)


@click.command(
    cls=Verb,
    examples=(
        "hbt auto comments.csv",
        "hbt auto comments.csv --model ./encoder --budget-ms 1 --minutes 30 --yes",
    ),
)
@click.argument("file")
@click.option(
    "--budget-ms", type=click.FloatRange(0, min_open=True), default=1.0, show_default=True,
    help="Longest latency of a text in milliseconds on this machine.",
)  # fmt: skip
@click.option(
    "--budget-mb", type=click.FloatRange(0, min_open=True), default=5.0, show_default=True,
    help="Largest size of the package in MB.",
)  # fmt: skip
@click.option(
    "--minutes", type=click.FloatRange(0, min_open=True), default=60.0, show_default=True,
    help="About how long it may take.",
)  # fmt: skip
@click.option(
    "--model", help="Encoder of the teacher: folder, hub id or shape:LxH [default: by the script of the texts]."
)
@click.option(
    "--target", default=ExportSettings.target, show_default=True, shell_complete=targets,
    help="Target to export, one that supports ngram students; `hbt targets` lists them.",
)  # fmt: skip
@click.option("--unlabelled", "--unlabeled", "unlabelled", help="File with additional texts, labeled by the teacher.")
@options_of(CorpusSettings, leave_out=LEFT_OUT)
@click.option("--name", help="Name of the package under models/ and of the runs [default: that of FILE].")
@click.option("-o", "--output", type=FOLDER, help="Folder of the package [default: models/NAME].")
@click.option("--yes", is_flag=True, help="Do not ask if something is in doubt.")
@click.option("--explain-plan", is_flag=True, help="Print the commands and the recipe that would be run; run nothing.")
@force_option
@json_option
def auto(
    file: str,
    budget_ms: float,
    budget_mb: float,
    output: Path | None,
    yes: bool,
    explain_plan: bool,
    force: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Turn FILE, a table of labeled texts, into a small package, with no other option.

    It shows what it understood, and asks if something is in doubt. A short timed trial decides what fits into the
    --minutes: at least an n-gram student from the labels alone, else also a fine-tuned teacher and its students. The
    best student within the budget becomes the package. Rerun the same command to resume.
    """
    from toolkit.workflows.auto import command

    corpus = {name: options.pop(name) for name in CORPUS}
    request = command.request_of(recipe_from(None, given(corpus) | {"data": file}).corpus, **options)
    if explain_plan:
        click.echo(command.explain(request, budget_ms, budget_mb))
        return
    made = command.auto(request, budget_ms, budget_mb, output, _go_on if yes else _ask, force)
    if as_json:
        print_json(asdict(made))
    else:
        command.render(made)


def _go_on(doubts: tuple[str, ...]) -> None:
    for doubt in doubts:
        click.echo(f"in doubt: {doubt}", err=True)


def _ask(doubts: tuple[str, ...]) -> None:
    """Ask once on a terminal. Raises: InputError without one, or for another answer than yes."""
    if sys.stdin is None or not sys.stdin.isatty():
        raise InputError(f"in doubt: {'; '.join(doubts)}; give --yes to go on, or the options")
    _go_on(doubts)
    if not click.confirm("Is that right?", default=True, err=True):
        raise InputError("stopped; give the options that are named above")
