"""`hbt drift`: are new texts like those that a package was measured on?"""

from pathlib import Path

import click

from toolkit.commands.completion import packages
from toolkit.commands.shared import FOLDER, json_option, print_json
from toolkit.config.grouped_help import Verb


@click.command(cls=Verb, examples=("hbt drift models/NAME new.csv", "hbt drift models/NAME new.csv --json"))
@click.argument("package", type=FOLDER, shell_complete=packages)
@click.argument("file", type=FOLDER)
@click.option("--text-column", help="Column with the texts (default: found by name).")
@click.option("--encoding", help="Encoding of a CSV, TSV or text file, such as cp1252 (default: recognized).")
@click.option("--separator", help="Character between the fields of a CSV file, or tab (default: recognized).")
@click.option(
    "--rows",
    type=click.IntRange(1),
    default=20_000,
    show_default=True,
    help="Compare at most so many texts, drawn at random.",
)
@json_option
def drift(
    package: Path,
    file: Path,
    text_column: str | None,
    encoding: str | None,
    separator: str | None,
    rows: int,
    as_json: bool,
) -> None:
    """Compare the texts of FILE, without labels, with the held-out rows of a PACKAGE.

    One line each for probability, predicted label, unknown n-grams and characters, length, script and `unsure`. A line
    says `retrain` only if held-out rows that are weighted to have the same shift have a lower macro-F1.
    """
    from toolkit.config.settings import CorpusSettings
    from toolkit.workflows.monitoring.drift import drift_of, render
    from toolkit.workflows.scoring.labeler import TableOptions

    checked = CorpusSettings(separator=separator).separator
    found = drift_of(package, file, TableOptions(text_column, encoding, checked), rows)
    if as_json:
        print_json(found.as_dict())
    else:
        render(found)
