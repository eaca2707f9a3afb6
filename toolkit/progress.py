"""What a person sees while they wait: a bar on a terminal, a line now and then elsewhere. All on stderr."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console


@cache
def _stderr() -> "Console":
    """One console for all: a line that is printed while a bar is shown must go through the bar's own."""
    from rich.console import Console

    return Console(stderr=True, highlight=False, soft_wrap=True)


def say(line: str) -> None:
    """One line of news on stderr."""
    _stderr().print(line, markup=False)


@contextmanager
def working(what: str) -> Iterator[None]:
    """A spinner while the block runs; one line where there is no terminal."""
    if not _stderr().is_terminal:
        say(what)
        yield
        return
    with _stderr().status(what):
        yield


@contextmanager
def bar(what: str, total: int) -> Iterator[Callable[[int], None]]:
    """A progress bar over `total` steps; call what it yields with the steps done since the last call."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=_stderr(), transient=True, disable=not _stderr().is_terminal) as progress:
        task = progress.add_task(what, total=total)
        yield lambda steps: progress.advance(task, steps)
