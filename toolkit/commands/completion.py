"""Shell completion of runs, packages and targets; everything else is completed as a path."""

from collections.abc import Callable
from pathlib import Path

import click
from click.shell_completion import CompletionItem

Complete = Callable[[click.Context, click.Parameter, str], list[CompletionItem]]
RUN_FILE, PACKAGE_FILE = "recipe.toml", "manifest.json"
"""Files by which a run and a package are known."""


def runs(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Complete a run, or any path."""
    return _folders(f"runs/*/{RUN_FILE}", incomplete)


def packages(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Complete a package, or any path."""
    return _folders(f"models/*/{PACKAGE_FILE}", incomplete)


def runs_and_packages(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Complete a run, a package, or any path."""
    found = [*runs(ctx, param, incomplete), *packages(ctx, param, incomplete)]
    named = [item for item in found if item.type == "plain"]
    return named or found[:1]


def targets(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Complete a target, of this or of another distribution."""
    from exporters.registry import targets

    return [CompletionItem(name) for name in targets() if name.startswith(incomplete)]


COMPLETE: dict[str, Complete] = {"target": targets, "teacher": runs}
"""Name of a setting to the completion of its option."""


def _folders(pattern: str, incomplete: str) -> list[CompletionItem]:
    found = sorted(file.parent.as_posix() for file in Path().glob(pattern))
    named = [CompletionItem(name) for name in found if name.startswith(incomplete)]
    return named or [CompletionItem(incomplete, type="dir")]
