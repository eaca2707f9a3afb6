"""Progress messages on stderr and tables that fit the terminal."""

import io
import json
import sys
import time
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
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


Advance = Callable[..., None]
"""Takes the steps done since the last call and, for a bar with a rate, the units."""


@contextmanager
def bar(what: str, total: int, rate_of: str | None = None) -> Iterator[Advance]:
    """Show a progress bar over `total` steps. Call the yielded function with the steps done since the last call.

    In a log file or a notebook it is a line at most every ten percent and every LINE_SECONDS.

    rate_of: also show how many of these units are done per second, such as rows; steps are shown as a percentage.
    """
    if not _stderr().is_terminal:
        yield _plain_progress(what, total, rate_of)
        return
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TaskProgressColumn,
        TextColumn,
        TimeRemainingColumn,
    )

    start, done = time.monotonic(), 0
    shown = (MofNCompleteColumn(),) if rate_of is None else (TaskProgressColumn(), TextColumn("{task.fields[rate]}"))
    columns = (TextColumn("{task.description}"), BarColumn(), *shown, TimeRemainingColumn())
    with Progress(*columns, console=_stderr(), transient=True) as progress:
        task = progress.add_task(what, total=total, rate="")

        def advance(steps: int, units: int = 0) -> None:
            nonlocal done
            done += units
            progress.update(task, advance=steps, rate=_rate(done, start, rate_of))

        yield advance


LINE_SECONDS = 30.0


def _rate(done: int, start: float, unit: str | None) -> str:
    return f"{done / max(time.monotonic() - start, 1e-9):,.0f} {unit}/s" if unit else ""


def _plain_progress(what: str, total: int, rate_of: str | None) -> Advance:
    done, counted, shown, last = 0, 0, 0, time.monotonic()
    start = last

    def advance(steps: int, units: int = 0) -> None:
        nonlocal done, counted, shown, last
        done, counted = done + steps, counted + units
        tenths, now = 10 * done // max(total, 1), time.monotonic()
        if shown < tenths < 10 and now - last >= LINE_SECONDS:
            shown, last = tenths, now
            left = (now - start) * (total - done) / done
            more = f", {_rate(counted, start, rate_of)}, {left:,.0f} s left" if rate_of else ""
            say(f"{what}: {10 * tenths} %{more}")

    return advance


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
    """Print rows with the same columns. On a narrow terminal, texts that would need many lines are listed below.

    left: left-aligned columns.
    dispensable: columns that are omitted on a narrow terminal.
    red: rows that are printed in red on a terminal.
    """
    from rich import box
    from rich.table import Table
    from rich.text import Text

    out = console(stderr)
    headings = [h for h in lines[0] if out.width >= NARROW or h not in dispensable]
    fitted = _fit([{h: line[h] for h in headings} for line in lines], left, out.width)
    out.print(Text(title, style="italic"))  # not as the title of the table, which is no wider than its columns
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for heading in fitted.lines[0]:
        justify: Any = "left" if heading in left else "right"
        width = fitted.wraps.get(heading)
        no_wrap = heading not in left
        table.add_column(Text(_two_lines(heading)), justify=justify, no_wrap=no_wrap, overflow="fold", width=width)
    for i, line in enumerate(fitted.lines):
        # Text: a name may contain [markup]
        table.add_row(*(Text(cell) for cell in line.values()), style="red" if i in red else None)
    out.print(table)
    for note in fitted.notes:
        out.print(Text(note), soft_wrap=True)


@dataclass(frozen=True)
class _Fitted:
    """A table that fits the terminal."""

    lines: list[dict[str, str]]
    wraps: dict[str, int]
    """Width of each column whose texts are wrapped."""
    notes: list[str]
    """Texts that did not fit, by the number of their row."""


NUMBER = "#"


def _fit(lines: list[dict[str, str]], left: Sequence[str], width: int) -> _Fitted:
    """Return a table of at most `width` characters: its text columns are wrapped between words into a few lines or, if
    that is not enough, the widest of them is moved to notes below the table.
    """
    moved: list[list[str]] = [[] for _ in lines]
    while True:
        widths = {heading: _width(heading, [line[heading] for line in lines]) for heading in lines[0]}
        over = sum(widths.values()) + 2 * len(widths) + 2 - width
        texts = sorted((heading for heading in widths if heading in left), key=widths.__getitem__, reverse=True)
        wraps = {}
        for heading in texts:
            least = _least_width(heading, [line[heading] for line in lines])
            if over > 0 and least < widths[heading]:
                wraps[heading] = max(least, widths[heading] - over)
                over -= widths[heading] - wraps[heading]
        if over <= 0 or not texts:
            return _Fitted(lines, wraps, _notes(moved))
        for cells, line in zip(moved, lines, strict=True):
            cells.append(line[texts[0]])
        first = NUMBER not in lines[0]
        lines = [
            ({NUMBER: str(i)} if first else {}) | {h: cell for h, cell in line.items() if h != texts[0]}
            for i, line in enumerate(lines, start=1)
        ]


MOST_LINES = 3
"""Most lines into which a text is wrapped."""


def _width(heading: str, cells: Sequence[str]) -> int:
    from rich.cells import cell_len

    return max(cell_len(text) for text in [*_two_lines(heading).split("\n"), *cells])


def _least_width(heading: str, cells: Sequence[str]) -> int:
    """Return the width in which no word is broken and no text needs more than MOST_LINES."""
    words = [word for text in (*_two_lines(heading).split("\n"), *cells) for word in text.split()]
    longest = _width("", [*words, ""])
    return max(longest, _width("", cells) // MOST_LINES + longest // 2)


def _notes(moved: Sequence[Sequence[str]]) -> list[str]:
    return [f"{i:>2}  {'; '.join(filter(None, cells))}" for i, cells in enumerate(moved, start=1) if any(cells)]


def _two_lines(heading: str) -> str:
    """Return `heading` broken at the space nearest to its middle, so that the column stays narrow."""
    spaces = [i for i, char in enumerate(heading) if char == " "]
    if not spaces:
        return heading
    middle = min(spaces, key=lambda i: abs(i - len(heading) / 2))
    return f"{heading[:middle]}\n{heading[middle + 1 :]}"
