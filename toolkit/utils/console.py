"""Tables on stdout that fit a terminal."""

import json
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console


def printable(text: str) -> str:
    r"""Return `text` with control, format and escape characters as \xNN, \uNNNN or \UNNNNNNNN.

    Printed raw, they can move the cursor, change colors or reverse the order of a line. The joiners of Indic and
    Persian words and of emoji stay as they are.
    """
    if text.isprintable():
        return text
    return "".join(_escaped(char) if _is_control(char) else char for char in text)


def json_line(value: Any) -> str:
    """Return `value` as one line of JSON, readable, with control and format characters as escapes of JSON."""
    text = json.dumps(value, ensure_ascii=False)
    if text.isprintable():
        return text
    return "".join(json.dumps(char)[1:-1] if _is_control(char) else char for char in text)


def _is_control(char: str) -> bool:
    return unicodedata.category(char) in ("Cc", "Cf", "Cs", "Zl", "Zp") and char not in "\u200c\u200d"


def _escaped(char: str) -> str:
    code = ord(char)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


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


FILE_WIDTH = 160
"""Columns of a table that goes to a file or a pipe, which have no width of their own."""


NARROW = 106
"""Columns of a terminal below which the dispensable columns are left out."""


def console(stderr: bool = False) -> "Console":
    """Stdout or stderr: colored and as wide as the terminal on a terminal, plain and wide elsewhere."""
    from rich.console import Console

    there = Console(highlight=False, stderr=stderr)
    return there if there.is_terminal else Console(highlight=False, stderr=stderr, width=FILE_WIDTH)


def print_table(
    lines: Sequence[dict[str, str]],
    title: str,
    left: Sequence[str] = (),
    dispensable: Sequence[str] = (),
    stderr: bool = False,
) -> None:
    """Print lines of equal columns. left: columns of words; dispensable: left out on a narrow terminal."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    out = console(stderr)
    headings = [h for h in lines[0] if out.width >= NARROW or h not in dispensable]
    table = Table(title=Text(title), title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for heading in headings:
        justify: Any = "left" if heading in left else "right"
        table.add_column(Text(_two_lines(heading)), justify=justify, no_wrap=heading not in left, overflow="fold")
    for line in lines:
        table.add_row(*(Text(line[heading]) for heading in headings))  # a name may hold [markup]
    out.print(table)


def _two_lines(heading: str) -> str:
    """A heading broken at the space nearest to its middle, so that it is about as narrow as the figures below it."""
    spaces = [i for i, char in enumerate(heading) if char == " "]
    if not spaces:
        return heading
    middle = min(spaces, key=lambda i: abs(i - len(heading) / 2))
    return f"{heading[:middle]}\n{heading[middle + 1 :]}"
