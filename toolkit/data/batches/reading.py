"""Read a file of texts as Arrow record batches, a few thousand rows at a time."""

import json
from collections.abc import Iterator
from typing import Any

import pyarrow
from pyarrow import parquet

from toolkit.data.batches.layout import Layout
from toolkit.data.decoding import text_lines
from toolkit.data.tables import delimited_rows, read_spreadsheet
from toolkit.utils.errors import InputError

ROWS, CHARACTERS = 2048, 4 * 2**20
"""A batch ends after so many rows, or so many characters, whichever is first."""
LINE = "line"
"""The only column of the batches of a JSON Lines file: an object a line, whose values may have any type."""
_BUFFER = 2**20


def read_batches(layout: Layout) -> Iterator[pyarrow.RecordBatch]:
    """Yield the rows of a file in order.

    Raises: InputError if the file has changed since its survey, or a part of a Parquet file is damaged.
    """
    rows = 0
    try:
        for batch in _READERS[layout.kind](layout):
            rows += batch.num_rows
            yield batch
    except (OSError, UnicodeDecodeError, pyarrow.ArrowException) as error:
        raise InputError(f"{layout.file}: cannot be read after row {rows} ({str(error).splitlines()[0]})") from None
    if rows != layout.rows:
        raise InputError(f"{layout.file}: has changed while it was read ({layout.rows} rows, now {rows}); try again")


def texts_of(batch: pyarrow.RecordBatch, layout: Layout) -> list[str]:
    """Return the texts of a batch, "" where there is none."""
    return [value if isinstance(value, str) else "" for value in columns_of(batch, layout, layout.text_column)]


def columns_of(batch: pyarrow.RecordBatch, layout: Layout, only: str) -> list[Any]:
    """Return the values of one column."""
    return all_columns(batch, layout, (only,))[only]


def all_columns(
    batch: pyarrow.RecordBatch, layout: Layout, names: tuple[str, ...] | None = None
) -> dict[str, list[Any]]:
    """Return the values of each column, or of those in `names`, as Python values."""
    names = layout.columns if names is None else names
    if layout.kind != "json":
        return {name: batch.column(layout.columns.index(name)).to_pylist() for name in names}
    rows = [json.loads(line) for line in batch.column(0).to_pylist()]
    return {name: [row.get(name) for row in rows] for name in names}


def first_texts(layout: Layout, count: int) -> list[str]:
    """Return the first `count` texts of a file that are not empty."""
    found: list[str] = []
    for batch in read_batches(layout):
        found += [text for text in texts_of(batch, layout) if text.strip()]
        if len(found) >= count:
            break
    return found[:count]


def _delimited(layout: Layout) -> Iterator[pyarrow.RecordBatch]:
    with layout.file.open(encoding=layout.dialect.encoding, newline="", buffering=_BUFFER) as stream:
        found = delimited_rows(stream, layout.file, layout.dialect.separator)
        if tuple(next(found)) != layout.columns:
            raise InputError(f"{layout.file}: has changed while it was read (another header); try again")
        for rows in _grouped(found):
            yield _of_text(layout.columns, list(zip(*rows, strict=True)))


def _json(layout: Layout) -> Iterator[pyarrow.RecordBatch]:
    lines = (line for line in text_lines(layout.file, layout.dialect.encoding) if line.strip())
    for rows in _grouped([line] for line in lines):
        yield _of_text((LINE,), [[line for (line,) in rows]])


def _lines(layout: Layout) -> Iterator[pyarrow.RecordBatch]:
    lines = text_lines(layout.file, layout.dialect.encoding)
    for rows in _grouped([line.rstrip("\r")] for line in lines):
        yield _of_text(layout.columns, [[line for (line,) in rows]])


def _parquet(layout: Layout) -> Iterator[pyarrow.RecordBatch]:
    with parquet.ParquetFile(layout.file, buffer_size=_BUFFER) as opened:
        if opened.schema_arrow.remove_metadata() != layout.schema:
            raise InputError(f"{layout.file}: has changed while it was read (other columns); try again")
        for batch in opened.iter_batches(ROWS):
            parts = max(1, min(batch.num_rows, -(-batch.nbytes // (2 * CHARACTERS))))
            size = -(-batch.num_rows // parts)
            yield from (batch.slice(start, size) for start in range(0, batch.num_rows, size))


def _spreadsheet(layout: Layout) -> Iterator[pyarrow.RecordBatch]:
    columns = read_spreadsheet(layout.file)
    for start in range(0, layout.rows, ROWS):
        yield _of_text(layout.columns, [values[start : start + ROWS] for values in columns.values()])


_READERS = {
    "delimited": _delimited,
    "json": _json,
    "lines": _lines,
    "parquet": _parquet,
    "spreadsheet": _spreadsheet,
}


def _grouped(rows: Iterator[list[str]]) -> Iterator[list[list[str]]]:
    """Yield lists of rows that are no longer than a batch."""
    group: list[list[str]] = []
    size = 0
    for row in rows:
        group.append(row)
        size += sum(map(len, row))
        if len(group) == ROWS or size >= CHARACTERS:
            yield group
            group, size = [], 0
    if group:
        yield group


def _of_text(names: tuple[str, ...], columns: list[Any]) -> pyarrow.RecordBatch:
    return pyarrow.RecordBatch.from_arrays([pyarrow.array(each, pyarrow.string()) for each in columns], list(names))
