"""Write batches of a file with two more columns, in the order in which they come."""

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow
from pyarrow import parquet

from toolkit.data.batches.layout import Layout
from toolkit.data.batches.reading import all_columns
from toolkit.data.tables import delimited_text
from toolkit.utils.errors import InputError

Chunk = Any
"""Rows as they are written: a piece of a text file (str), or of a Parquet file (pyarrow.RecordBatch)."""
_GROUP = 32 * 2**20
"""Bytes of a row group of a Parquet file; its rows are in memory together."""
DELIMITED, JSON, PARQUET = (".csv", ".tsv"), (".jsonl", ".ndjson"), ".parquet"


def chunk_of(
    batch: pyarrow.RecordBatch,
    layout: Layout,
    suffix: str,
    added: dict[str, pyarrow.Array],
    safe: Callable[[Any], Any] = lambda cell: cell,
) -> Chunk:
    """Return the rows of a batch and the `added` columns as they are written to a file with this suffix.

    safe: what is written to a CSV or TSV file for a cell.
    """
    if suffix == PARQUET:
        return _arrow(batch, layout, added)
    columns = all_columns(batch, layout) | {name: values.to_pylist() for name, values in added.items()}
    rows = zip(*columns.values(), strict=True)
    if suffix in DELIMITED:
        return delimited_text(([safe(cell) for cell in row] for row in rows), separator_for(layout, suffix))
    # What only Parquet has, such as a date, is written as text.
    lines = (json.dumps(dict(zip(columns, row, strict=True)), ensure_ascii=False, default=str) for row in rows)
    return "".join(f"{line}\n" for line in lines)


def header_of(layout: Layout, suffix: str, added: Sequence[str], safe: Callable[[Any], Any] = lambda cell: cell) -> str:
    """Return the first line of a file with this suffix: empty if the format has no header."""
    if suffix not in DELIMITED:
        return ""
    return delimited_text([[safe(name) for name in (*layout.columns, *added)]], separator_for(layout, suffix))


def separator_for(layout: Layout, suffix: str) -> str:
    """Return the separator of the CSV or TSV file that is written."""
    return "\t" if suffix == ".tsv" else layout.dialect.separator


@contextmanager
def writer(file: Path, suffix: str, encoding: str) -> Iterator[Callable[[Any], Any]]:
    """Yield a function that writes the next chunk. encoding: of a text file.

    Raises: UnicodeEncodeError for a character that the encoding lacks.
    """
    if suffix != PARQUET:
        with file.open("w", encoding=encoding, newline="") as stream:
            yield stream.write
        return
    rows = _RowGroups(file)
    try:
        yield rows.add
        rows.flush()
    finally:
        rows.close()


class _RowGroups:
    """Collect batches into row groups, since one of a few rows each is slow to read."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.waiting: list[pyarrow.RecordBatch] = []
        self.size = 0
        self.opened: parquet.ParquetWriter | None = None

    def add(self, batch: Any) -> None:
        self.waiting.append(batch)
        self.size += batch.nbytes
        if self.size >= _GROUP:
            self.flush()

    def flush(self) -> None:
        if self.waiting:
            if self.opened is None:
                self.opened = parquet.ParquetWriter(self.file, self.waiting[0].schema)
            self.opened.write_table(pyarrow.Table.from_batches(self.waiting))
            self.waiting, self.size = [], 0

    def close(self) -> None:
        if self.opened is not None:
            self.opened.close()


def _arrow(batch: pyarrow.RecordBatch, layout: Layout, added: dict[str, pyarrow.Array]) -> pyarrow.RecordBatch:
    arrays = list(batch.columns)
    if layout.kind == "json":
        values = all_columns(batch, layout)
        try:
            arrays = [pyarrow.array(values[field.name], field.type) for field in layout.schema]
        except (pyarrow.ArrowException, OverflowError):
            raise InputError(
                f"{layout.file}: a column has values that Parquet cannot hold in one column; write .jsonl instead"
            ) from None
    return pyarrow.RecordBatch.from_arrays([*arrays, *added.values()], [*layout.columns, *added])
