"""Options and closing lines that several commands share."""

import json
from pathlib import Path
from typing import Any

import click

from toolkit.config.settings import CorpusSettings, DistillationSettings, ModelSettings, TrainingSettings

FOLDER = click.Path(path_type=Path)
TRAINING = (CorpusSettings, ModelSettings, TrainingSettings, DistillationSettings)
recipe_option = click.option(
    "--recipe", "recipe_file", type=FOLDER, help="TOML file with settings; command-line options override it."
)
force_option = click.option("--force", is_flag=True, help="Overwrite existing files and folders.")
ship_option = click.option(
    "--force",
    is_flag=True,
    help="Overwrite existing files, and make a package even if no candidate passes, or if it is worse than the linear "
    "baseline or near chance.",
)


def _spread(context: click.Context, _: click.Parameter, on: str | None) -> None:
    if on is not None:
        from toolkit.training.processes.spread import spread_over

        context.with_resource(spread_over(on))


on_option = click.option(
    "--on",
    metavar="ray[://HOST:PORT]",
    callback=_spread,
    expose_value=False,
    help="Spread folds or students over a Ray cluster whose machines share this folder, or processes of this machine.",
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


def print_json(value: Any) -> None:
    """Print a value as one line of JSON, with paths as text and None for what is not a finite number."""
    from toolkit.utils.files import without_nan

    click.echo(json.dumps(without_nan(value), ensure_ascii=False, default=str))


def show_outcome(outcome: Any) -> None:
    show_table(outcome)
    click.echo(f"\n{outcome.description}: {outcome.folder}")


def show_table(outcome: Any) -> None:
    from toolkit.evaluation import comparison
    from toolkit.stages import results_table

    without_run = outcome.folder == outcome.package
    unknown = "whether the classifier was trained on them is not known"
    status = unknown if without_run else "held out: never used for model selection"
    results_table.render(outcome.rows, outcome.labels, f"test rows ({status})")
    if outcome.truncation is not None:
        click.echo(outcome.truncation.line)
    if outcome.cascade:
        click.echo(outcome.cascade)
    comparison.render(outcome.comparisons)


def show_next(package: Path) -> None:
    click.echo(f'\npackage: {package}\nnext: hbt predict {package} "text"  ·  hbt bench {package}')


def show_standing(what: str, standing: Any) -> None:
    """Print in red why `what` is not worth shipping, as the last line; nothing if it is or if that is not known."""
    from toolkit.utils.console import warn

    if standing is not None and standing.problem:
        warn(f"warning: {what} is {standing.problem}")
