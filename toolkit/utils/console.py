"""Progress messages on stderr and tables that fit the terminal."""

import io
import json
import sys
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING, Any

from toolkit.utils.errors import InputError

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
    return unicodedata.category(char) in ("Cc", "Cf", "Cs", "Zl", "Zp") and char not in "\t\u200c\u200d"


def _escaped(char: str) -> str:
    code = ord(char)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def use_utf8(arguments: Sequence[str]) -> None:
    """Write UTF-8 to stdout and stderr, whatever the locale: no other encoding has every letter of a text.

    Raises: InputError if one of the command-line `arguments` is not UTF-8.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(encoding="utf-8", errors="backslashreplace")
    for number, argument in enumerate(arguments, start=1):
        if any("\ud800" <= char <= "\udfff" for char in argument):
            shown = argument.encode("utf-8", "backslashreplace").decode()
            raise InputError(f"argument {number} ({shown}) is not UTF-8; give the text, or rename the file, in UTF-8")


@cache
def _stderr() -> "Console":
    """Return the shared console: lines printed while a progress bar is shown must use the console of the bar."""
    from rich.console import Console

    return Console(stderr=True, highlight=False, soft_wrap=True)


def say(line: str) -> None:
    """Print one line of progress on stderr."""
    _stderr().print(line, markup=False)


@contextmanager
def working(what: str) -> Iterator[None]:
    """Show a spinner while the block runs; without a terminal, print one line."""
    if not _stderr().is_terminal:
        say(what)
        yield
        return
    with _stderr().status(what):
        yield


@contextmanager
def bar(what: str, total: int) -> Iterator[Callable[[int], None]]:
    """Show a progress bar over `total` steps. Call the yielded function with the steps done since the last call."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=_stderr(), transient=True, disable=not _stderr().is_terminal) as progress:
        task = progress.add_task(what, total=total)
        yield lambda steps: progress.advance(task, steps)


FILE_WIDTH = 160
"""Width in characters of a table that goes to a file or a pipe."""


NARROW = 106
"""Terminal width in characters below which the dispensable columns are omitted."""


def console(stderr: bool = False) -> "Console":
    """Return a console for stdout or stderr: colored and as wide as the terminal, or plain and FILE_WIDTH wide."""
    from rich.console import Console

    terminal = Console(highlight=False, stderr=stderr)
    return terminal if terminal.is_terminal else Console(highlight=False, stderr=stderr, width=FILE_WIDTH)


def warn(line: str) -> None:
    """Print one line on stdout, in red on a terminal, without breaking it."""
    from rich.text import Text

    console().print(Text(line, style="bold red"), soft_wrap=True)


def print_table(
    lines: Sequence[dict[str, str]],
    title: str,
    left: Sequence[str] = (),
    dispensable: Sequence[str] = (),
    stderr: bool = False,
    red: Sequence[int] = (),
) -> None:
    """Print rows with the same columns.

    left: left-aligned columns.
    dispensable: columns that are omitted on a narrow terminal.
    red: rows that are printed in red on a terminal.
    """
    from rich import box
    from rich.table import Table
    from rich.text import Text

    out = console(stderr)
    headings = [h for h in lines[0] if out.width >= NARROW or h not in dispensable]
    out.print(Text(title, style="italic"))  # not as the title of the table, which is no wider than its columns
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for heading in headings:
        justify: Any = "left" if heading in left else "right"
        table.add_column(Text(_two_lines(heading)), justify=justify, no_wrap=heading not in left, overflow="fold")
    for i, line in enumerate(lines):
        # Text: a name may contain [markup]
        table.add_row(*(Text(line[heading]) for heading in headings), style="red" if i in red else None)
    out.print(table)


def _two_lines(heading: str) -> str:
    """Return `heading` broken at the space nearest to its middle, so that the column stays narrow."""
    spaces = [i for i, char in enumerate(heading) if char == " "]
    if not spaces:
        return heading
    middle = min(spaces, key=lambda i: abs(i - len(heading) / 2))
    return f"{heading[:middle]}\n{heading[middle + 1 :]}"
