"""What a person sees while they wait: a bar on a terminal, a line now and then elsewhere. All on stderr."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console


FILE_WIDTH = 160
"""Columns of a table that goes to a file or a pipe, which have no width of their own."""


def console() -> "Console":
    """Stdout, for tables: coloured and as wide as the terminal on a terminal, plain and wide elsewhere."""
    from rich.console import Console

    there = Console(highlight=False)
    return there if there.is_terminal else Console(highlight=False, width=FILE_WIDTH)


def say(line: str) -> None:
    """One line of news on stderr."""
    from rich.console import Console

    Console(stderr=True, highlight=False, soft_wrap=True).print(line, markup=False)


@contextmanager
def working(what: str) -> Iterator[None]:
    """A spinner while the block runs; one line where there is no terminal."""
    from rich.console import Console

    console = Console(stderr=True, highlight=False)
    if not console.is_terminal:
        say(what)
        yield
        return
    with console.status(what):
        yield


@contextmanager
def bar(what: str, total: int) -> Iterator[Callable[[int], None]]:
    """A progress bar over `total` steps; call what it yields with the steps done since the last call."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task(what, total=total)
        yield lambda steps: progress.advance(task, steps)
