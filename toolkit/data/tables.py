"""Read and write tables of texts as CSV, TSV, JSON Lines or Parquet, and read spreadsheets; errors name the broken
line.
"""

import csv
import io
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, TextIO

from toolkit.data.decoding import UTF_8, UTF_8_BOM, decode, encoding_of, refuse_unknown, text_lines
from toolkit.utils.errors import InputError
from toolkit.utils.files import whole_file

FIELD_LIMIT = 10_000_000  # characters in one CSV field


@dataclass(frozen=True)
class Dialect:
    """How a CSV file is written."""

    encoding: str = UTF_8
    separator: str = ","


@dataclass(frozen=True)
class Table:
    """Columns of equal length, in file order."""

    source: str
    columns: dict[str, list[Any]]
    """Name to values: strings for CSV and TSV, any JSON value for the other formats, None for missing values."""
    dialect: Dialect = Dialect()
    """How the file was written, for a file that is written in the same way."""

    def __len__(self) -> int:
        return len(next(iter(self.columns.values()), []))


SEPARATORS = (",", ";", "\t", "|")
_ROWS, _DISTINCT = 10_000, 1_000
SNIFFED = 100
"""Rows in which the separator of a CSV file is found."""
SPREADSHEETS = (".xlsx", ".xls", ".ods")


def read_table(file: Path, encoding: str | None = None, separator: str | None = None) -> Table:
    """Return the table in `file`; its suffix determines the format.

    encoding, separator: of a CSV or TSV file; None recognizes them.
    Raises: InputError for a missing file, an unknown suffix, a wrong encoding, a malformed row or no rows.
    """
    readers: dict[str, Callable[[], Table]] = {
        ".csv": lambda: _read_delimited(file, encoding, separator),
        ".tsv": lambda: _read_delimited(file, encoding, separator or "\t"),
        ".jsonl": lambda: Table(str(file), _read_json_lines(file)),
        ".ndjson": lambda: Table(str(file), _read_json_lines(file)),
        ".parquet": lambda: Table(str(file), _read_parquet(file)),
        **dict.fromkeys(SPREADSHEETS, lambda: Table(str(file), read_spreadsheet(file))),
    }
    refuse_unknown(encoding)
    if not file.is_file():
        raise InputError(f"{file}: no such file; give the path of a CSV, TSV, JSON Lines, Parquet or Excel file")
    if file.suffix.lower() not in readers:
        raise InputError(f"{file}: unknown file type; give a file that ends in {', '.join(readers)}")
    table = readers[file.suffix.lower()]()
    if len(table) == 0:
        raise InputError(f"{file}: no rows; give a file with a header and labeled texts")
    return table


def read_lines(file: Path, encoding: str | None = None) -> list[str]:
    """Return the lines of a text file. Raises: InputError as `toolkit.data.decoding.decode`."""
    return decode(file, file.read_bytes(), encoding)[0].removesuffix("\n").split("\n")


def _read_delimited(file: Path, encoding: str | None, separator: str | None) -> Table:
    encoding = encoding_of(file, encoding)
    with file.open(encoding=encoding, newline="") as stream:
        separator = separator or separator_of(stream)
        found = delimited_rows(stream, file, separator)
        header = next(found)
        columns = [_Column() for _ in header]
        while rows := list(islice(found, _ROWS)):  # not all rows at a time, which are lists of their own
            for column, values in zip(columns, zip(*rows, strict=True), strict=True):
                column.extend(values)
    held = {name: column.values for name, column in zip(header, columns, strict=True)}
    return Table(str(file), held, Dialect(encoding, separator))


class _Column:
    """The values of a column; equal ones are one object as long as few are distinct, as of labels."""

    def __init__(self) -> None:
        self.values: list[str] = []
        self.distinct: dict[str, str] | None = {}

    def extend(self, values: Iterable[str]) -> None:
        if self.distinct is not None:
            known = self.distinct
            values = [known.setdefault(value, value) for value in values]
            if len(known) > _DISTINCT:
                self.distinct = None
        self.values.extend(values)


def delimited_rows(stream: TextIO, file: Path, separator: str) -> Iterator[list[str]]:
    """Yield the header, which is empty in an empty file, and then each row of a CSV file without the blank lines.

    Raises: InputError that names the line of a malformed row, or for two columns of the same name.
    """
    csv.field_size_limit(FIELD_LIMIT)
    reader = csv.reader(stream, delimiter=separator, strict=True)
    try:
        header = next(reader, [])
        if len(set(header)) != len(header):
            raise InputError(f"{file}: two columns have the same name; rename one")
        yield header
        for row in reader:
            if not row:
                continue
            if len(row) != len(header):
                raise InputError(
                    f"{file}: line {reader.line_num} has {len(row)} fields and the header {len(header)}, separated by "
                    f"{separator!r}; quote texts that contain the separator, or name another with --separator"
                )
            yield row
    except csv.Error as error:
        raise InputError(f"{file}: line {reader.line_num} is malformed ({error}); fix its quotes") from None


def separator_of(stream: TextIO) -> str:
    """Return the first of SEPARATORS that gives all of the first rows as many fields as the header, and not only one.

    If there is none, it is a comma. The stream is at its start then.
    """
    found = SEPARATORS[0]
    for separator in SEPARATORS:
        stream.seek(0)
        reader = csv.reader(stream, delimiter=separator, strict=True)
        try:
            rows = [row for row in islice(reader, SNIFFED) if row]
        except csv.Error:
            continue
        if rows and len(rows[0]) > 1 and all(len(row) == len(rows[0]) for row in rows):
            found = separator
            break
    stream.seek(0)
    return found


def _read_json_lines(file: Path) -> dict[str, list[Any]]:
    lines = enumerate(text_lines(file, encoding_of(file)), start=1)
    rows = [json_row(file, number, line) for number, line in lines if line.strip()]
    names = list(dict.fromkeys(name for row in rows for name in row))
    return {name: [row.get(name) for row in rows] for name in names}


def json_row(file: Path, number: int, line: str) -> dict[str, Any]:
    """Return the object in a line of a JSON Lines file. number: of the line, counted from 1.

    Raises: InputError that names the line if it is not a JSON object of text that UTF-8 can represent.
    """
    try:
        row = json.loads(line)
    except RecursionError:
        raise InputError(f"{file}: line {number} is nested too deep; fix or remove it") from None
    except ValueError as error:  # not JSON, or an integer of thousands of digits
        reason = str(error).split(":")[0].split(";")[0]
        raise InputError(f"{file}: line {number} is not JSON ({reason}); fix or remove it") from None
    if not isinstance(row, dict):
        raise InputError(f"{file}: line {number} is not a JSON object; write one object per line")
    if "\\u" in line and _has_surrogate(row):  # in a file that was decoded, only an escape makes one
        raise InputError(f"{file}: line {number} contains a lone surrogate (half a character); fix or remove it")
    return row


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


def read_spreadsheet(file: Path) -> dict[str, list[Any]]:
    """Return the columns of the first sheet of an Excel or OpenDocument file, with the first row as their names.

    Raises: InputError if it cannot be read or its header is incomplete.
    """
    try:
        from python_calamine import CalamineError, CalamineWorkbook
    except ImportError:
        fix = "pip install 'hbt-toolkit[excel]', or save it as CSV"
        raise InputError(f"{file}: reading a spreadsheet needs python-calamine: {fix}") from None
    try:
        rows = CalamineWorkbook.from_path(file).get_sheet_by_index(0).to_python()
    except (CalamineError, OSError) as error:
        raise InputError(f"{file}: cannot be read as a spreadsheet ({str(error).splitlines()[0]})") from None
    filled = [row for row in rows if any(cell != "" for cell in row)]
    header = [str(cell).strip() for cell in filled[0]] if filled else []
    if "" in header or len(set(header)) != len(header):
        raise InputError(f"{file}: the first row of the first sheet must give each column a name of its own")
    return {name: [_cell(row[i]) for row in filled[1:]] for i, name in enumerate(header)}


def _cell(value: Any) -> Any:
    """Return the value of a spreadsheet cell as text: a whole number without its point, nothing as None."""
    if isinstance(value, bool) or value == "":
        return None if value == "" else str(value)
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


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


def _write_delimited(table: Table, file: Path, separator: str) -> None:
    """Write the rows in the encoding of the table, or in UTF-8 with a mark if it lacks a character."""
    text = delimited_text((list(table.columns), *zip(*table.columns.values(), strict=True)), separator)
    try:
        raw = text.encode(table.dialect.encoding)
    except UnicodeEncodeError:
        raw = text.encode(UTF_8_BOM)
    file.write_bytes(raw)


def delimited_text(rows: Iterable[Sequence[Any]], separator: str) -> str:
    """Return rows as the text of a CSV file; None is an empty cell."""
    written = io.StringIO(newline="")
    plain = csv.writer(written, delimiter=separator, lineterminator="\n")
    quoted = csv.writer(written, delimiter=separator, lineterminator="\n", quoting=csv.QUOTE_ALL)
    for row in rows:
        cells = ["" if value is None else value for value in row]
        # The plain writer does not quote a carriage return, at which every reader ends the row.
        (quoted if any(isinstance(cell, str) and "\r" in cell for cell in cells) else plain).writerow(cells)
    return written.getvalue()


def _write_json_lines(table: Table, file: Path) -> None:
    with file.open("w", encoding="utf-8") as out:
        for row in zip(*table.columns.values(), strict=True):
            out.write(json.dumps(dict(zip(table.columns, row, strict=True)), ensure_ascii=False) + "\n")


def _write_parquet(table: Table, file: Path) -> None:
    import pyarrow
    from pyarrow import parquet

    parquet.write_table(pyarrow.table(table.columns), file)


WRITERS: dict[str, Callable[[Table, Path], None]] = {
    ".csv": lambda table, file: _write_delimited(table, file, table.dialect.separator),
    ".tsv": lambda table, file: _write_delimited(table, file, "\t"),
    ".jsonl": _write_json_lines,
    ".ndjson": _write_json_lines,
    ".parquet": _write_parquet,
}
"""Suffix to writer, for every suffix that `read_table` accepts but those of spreadsheets."""
