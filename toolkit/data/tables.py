"""Read and write tables of texts as CSV, TSV, JSON Lines or Parquet; errors name the broken line."""

import csv
import io
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from toolkit.utils.errors import InputError
from toolkit.utils.files import whole_file

FIELD_LIMIT = 10_000_000  # characters in one CSV field


@dataclass(frozen=True)
class Table:
    """Columns of equal length, in file order."""

    source: str
    columns: dict[str, list[Any]]
    """Name to values: strings for CSV and TSV, any JSON value for the other formats, None for missing values."""

    def __len__(self) -> int:
        return len(next(iter(self.columns.values()), []))


def read_table(file: Path) -> Table:
    """Return the table in `file`; its suffix determines the format.

    Raises: InputError for a missing file, an unknown suffix, a wrong encoding, a malformed row or no rows.
    """
    readers: dict[str, Callable[[Path], dict[str, list[Any]]]] = {
        ".csv": lambda f: _read_delimited(f, ","),
        ".tsv": lambda f: _read_delimited(f, "\t"),
        ".jsonl": _read_json_lines,
        ".ndjson": _read_json_lines,
        ".parquet": _read_parquet,
    }
    if not file.is_file():
        raise InputError(f"{file}: no such file; give the path of a CSV, TSV, JSON Lines or Parquet file")
    if file.suffix.lower() not in readers:
        raise InputError(f"{file}: unknown file type; give a file that ends in {', '.join(readers)}")
    columns = readers[file.suffix.lower()](file)
    table = Table(str(file), columns)
    if len(table) == 0:
        raise InputError(f"{file}: no rows; give a file with a header and labeled texts")
    return table


def read_lines(file: Path) -> list[str]:
    """Return the lines of a text file. Raises InputError if it is not UTF-8."""
    return _read_text(file).split("\n")


def _read_text(file: Path) -> str:
    raw = file.read_bytes()
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        raise InputError(f"{file}: line {line} is not UTF-8; save the file as UTF-8") from None


def _read_delimited(file: Path, delimiter: str) -> dict[str, list[Any]]:
    csv.field_size_limit(FIELD_LIMIT)
    reader = csv.reader(io.StringIO(_read_text(file), newline=""), delimiter=delimiter, strict=True)
    header: list[str] = []
    rows: list[list[str]] = []
    try:
        header = next(reader, [])
        for row in reader:
            if not row:
                continue
            if len(row) != len(header):
                raise InputError(
                    f"{file}: line {reader.line_num} has {len(row)} fields and the header {len(header)}; "
                    "quote texts that contain the separator"
                )
            rows.append(row)
    except csv.Error as error:
        raise InputError(f"{file}: line {reader.line_num} is malformed ({error}); fix its quotes") from None
    if len(set(header)) != len(header):
        raise InputError(f"{file}: two columns have the same name; rename one")
    return {name: [row[i] for row in rows] for i, name in enumerate(header)}


def _read_json_lines(file: Path) -> dict[str, list[Any]]:
    rows: list[dict[str, Any]] = []
    for number, line in enumerate(_read_text(file).split("\n"), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except RecursionError:
            raise InputError(f"{file}: line {number} is nested too deep; fix or remove it") from None
        except ValueError as error:  # not JSON, or an integer of thousands of digits
            reason = str(error).split(":")[0].split(";")[0]
            raise InputError(f"{file}: line {number} is not JSON ({reason}); fix or remove it") from None
        if not isinstance(row, dict):
            raise InputError(f"{file}: line {number} is not a JSON object; write one object per line")
        if _has_surrogate(row):
            raise InputError(f"{file}: line {number} contains a lone surrogate (half a character); fix or remove it")
        rows.append(row)
    names = list(dict.fromkeys(name for row in rows for name in row))
    return {name: [row.get(name) for row in rows] for name in names}


def _has_surrogate(value: Any) -> bool:
    """Return whether `value` contains a lone surrogate at any depth, which JSON can represent and UTF-8 cannot."""
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return True
    return False


def _read_parquet(file: Path) -> dict[str, list[Any]]:
    import pyarrow
    from pyarrow import parquet

    try:
        table = parquet.read_table(file)
        return {name: column.to_pylist() for name, column in zip(table.column_names, table.columns, strict=True)}
    except (pyarrow.ArrowInvalid, OSError) as error:
        raise InputError(f"{file}: not a Parquet file ({str(error).splitlines()[0]})") from None


def refuse_mixed_columns(table: Table, file: Path) -> None:
    """Raise InputError if the format of `file` cannot hold a column of `table`: Parquet has one type per column."""
    if file.suffix.lower() != ".parquet":
        return
    import pyarrow
    from pyarrow import parquet

    for name, values in table.columns.items():
        try:
            parquet.write_table(pyarrow.table({name: values}), pyarrow.BufferOutputStream())
        except (pyarrow.ArrowException, OverflowError):
            raise InputError(
                f"{file}: column {name!r} has values that Parquet cannot hold in one column; write .jsonl instead"
            ) from None


def write_table(table: Table, file: Path) -> None:
    """Write `table` to `file` atomically; the suffix determines the format.

    Raises: InputError if the file cannot be written, or its format cannot hold the values of a column.
    """
    refuse_mixed_columns(table, file)
    try:
        with whole_file(file) as partial:
            WRITERS[file.suffix.lower()](table, partial)
    except OSError as error:
        raise InputError(f"{file}: cannot be written ({error.strerror}); give another path") from None


def _write_delimited(table: Table, file: Path, delimiter: str) -> None:
    with file.open("w", newline="", encoding="utf-8") as out:
        plain = csv.writer(out, delimiter=delimiter, lineterminator="\n")
        quoted = csv.writer(out, delimiter=delimiter, lineterminator="\n", quoting=csv.QUOTE_ALL)
        for row in (table.columns, *zip(*table.columns.values(), strict=True)):
            cells = ["" if value is None else value for value in row]
            # The plain writer does not quote a carriage return, at which every reader ends the row.
            (quoted if any(isinstance(cell, str) and "\r" in cell for cell in cells) else plain).writerow(cells)


def _write_json_lines(table: Table, file: Path) -> None:
    with file.open("w", encoding="utf-8") as out:
        for row in zip(*table.columns.values(), strict=True):
            out.write(json.dumps(dict(zip(table.columns, row, strict=True)), ensure_ascii=False) + "\n")


def _write_parquet(table: Table, file: Path) -> None:
    import pyarrow
    from pyarrow import parquet

    parquet.write_table(pyarrow.table(table.columns), file)


WRITERS: dict[str, Callable[[Table, Path], None]] = {
    ".csv": lambda table, file: _write_delimited(table, file, ","),
    ".tsv": lambda table, file: _write_delimited(table, file, "\t"),
    ".jsonl": _write_json_lines,
    ".ndjson": _write_json_lines,
    ".parquet": _write_parquet,
}
"""Suffix to writer, for every suffix that `read_table` accepts."""
