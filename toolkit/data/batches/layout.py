"""The first pass over a file of texts: what is in it, and whether every row of it can be read and written."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pyarrow
from pyarrow import parquet

from toolkit.data.columns import TEXT_COLUMNS, find_column
from toolkit.data.decoding import encoding_of, refuse_unknown, text_lines
from toolkit.data.tables import (
    SPREADSHEETS,
    Dialect,
    Table,
    delimited_rows,
    json_row,
    read_table,
    refuse_mixed_columns,
    separator_of,
)
from toolkit.utils.errors import InputError

Kind = Literal["delimited", "json", "lines", "parquet", "spreadsheet"]
KINDS: dict[str, Kind] = {
    ".csv": "delimited",
    ".tsv": "delimited",
    ".jsonl": "json",
    ".ndjson": "json",
    ".txt": "lines",
    ".parquet": "parquet",
    **dict.fromkeys(SPREADSHEETS, "spreadsheet"),
}
_INFERRED = 2048
"""JSON rows whose Arrow types are found at a time."""


@dataclass(frozen=True)
class Layout:
    """What a file holds, found by `survey`, so that it can be read batch by batch without a surprise."""

    file: Path
    kind: Kind
    columns: tuple[str, ...]
    text_column: str
    rows: int
    dialect: Dialect
    schema: Any = None
    """pyarrow.Schema of the columns: of a Parquet file, and of a JSON Lines file if Parquet is written."""


def survey(
    file: Path,
    text_column: str | None = None,
    encoding: str | None = None,
    separator: str | None = None,
    parquet_out: Path | None = None,
) -> Layout:
    """Return the layout of a file, after a check of every row; memory does not grow with its length.

    text_column, encoding, separator: None recognizes them.
    parquet_out: the Parquet file that will be written: find the one type of each column that it needs.
    Raises: InputError that names file and row for what cannot be read or, as Parquet, written.
    """
    kind = KINDS.get(file.suffix.lower())
    refuse_unknown(encoding)
    if not file.is_file():
        raise InputError(f"{file}: no such file; give the path of a CSV, TSV, JSON Lines, Parquet or Excel file")
    if kind is None:
        raise InputError(f"{file}: unknown file type; give a file that ends in {', '.join(KINDS)}")
    found = _SURVEYS[kind](file, text_column, encoding, separator, parquet_out)
    if found.rows == 0:
        raise InputError(f"{file}: no rows; give a file with a header and texts")
    return found


def no_text(file: Path, row: int, column: str, kind: str) -> InputError:
    """Return the error for a value of the text column that is not text; rows are counted from 0."""
    return InputError(
        f"{file}: row {row} of column {column!r} contains {kind}, not text; name the text column with --text-column"
    )


def _delimited(
    file: Path, text_column: str | None, encoding: str | None, separator: str | None, parquet_out: Path | None
) -> Layout:
    encoding = encoding_of(file, encoding)
    with file.open(encoding=encoding, newline="") as stream:
        if separator is None:
            separator = "\t" if file.suffix.lower() == ".tsv" else separator_of(stream)
        found = delimited_rows(stream, file, separator)
        header = next(found)
        rows = sum(1 for _ in found)
    return _layout(file, "delimited", header, text_column, rows, Dialect(encoding, separator))


def _json(
    file: Path, text_column: str | None, encoding: str | None, separator: str | None, parquet_out: Path | None
) -> Layout:
    encoding = encoding_of(file)
    names: dict[str, None] = {}
    not_text: dict[str, tuple[int, str]] = {}  # name to the first row without text in this column
    types = None if parquet_out is None else _Types(parquet_out)
    rows = 0
    for number, line in enumerate(text_lines(file, encoding), start=1):
        if not line.strip():
            continue
        row = json_row(file, number, line)
        for name, value in row.items():
            names.setdefault(name)
            if value is not None and not isinstance(value, str) and name not in not_text and value == value:
                not_text[name] = rows, type(value).__name__
        if types is not None:
            types.add(row)
        rows += 1
    found = _layout(file, "json", list(names), text_column, rows, Dialect(encoding), types and types.schema(names))
    if found.text_column in not_text:
        raise no_text(file, not_text[found.text_column][0], found.text_column, not_text[found.text_column][1])
    return found


class _Types:
    """Find one Arrow type for each column of JSON rows, a part at a time."""

    def __init__(self, out: Path) -> None:
        self.out = out
        self.rows: list[dict[str, Any]] = []
        self.found: dict[str, Any] = {}

    def add(self, row: dict[str, Any]) -> None:
        """Take a row into account."""
        self.rows.append(row)
        if len(self.rows) == _INFERRED:
            self._infer()

    def schema(self, names: dict[str, None]) -> Any:
        """Return the schema of these columns."""
        self._infer()
        return pyarrow.schema([(name, self.found.get(name, pyarrow.null())) for name in names])

    def _infer(self) -> None:
        for name in dict.fromkeys(name for row in self.rows for name in row):
            values = [row.get(name) for row in self.rows]
            refuse_mixed_columns(Table("", {name: values}), self.out)
            fields = [pyarrow.field(name, pyarrow.array(values).type)]
            if name in self.found:
                fields.insert(0, pyarrow.field(name, self.found[name]))
            try:
                schemas = [pyarrow.schema([field]) for field in fields]
                self.found[name] = pyarrow.unify_schemas(schemas, promote_options="permissive").field(0).type
            except pyarrow.ArrowException:
                raise InputError(
                    f"{self.out}: column {name!r} has values that Parquet cannot hold in one column; write .jsonl "
                    "instead"
                ) from None
        self.rows = []


def _lines(
    file: Path, text_column: str | None, encoding: str | None, separator: str | None, parquet_out: Path | None
) -> Layout:
    encoding = encoding_of(file, encoding)
    rows = sum(1 for _ in text_lines(file, encoding))
    return _layout(file, "lines", [TEXT_COLUMNS[0]], text_column, rows, Dialect())


def _parquet(
    file: Path, text_column: str | None, encoding: str | None, separator: str | None, parquet_out: Path | None
) -> Layout:
    try:
        with parquet.ParquetFile(file) as opened:
            schema, rows = opened.schema_arrow.remove_metadata(), opened.metadata.num_rows
    except (pyarrow.ArrowException, OSError) as error:
        raise InputError(f"{file}: not a Parquet file ({str(error).splitlines()[0]})") from None
    if len(set(schema.names)) != len(schema.names):
        raise InputError(f"{file}: two columns have the same name; rename one")
    found = _layout(file, "parquet", schema.names, text_column, rows, Dialect(), schema)
    kind = schema.field(found.text_column).type
    inner = kind.value_type if pyarrow.types.is_dictionary(kind) else kind
    is_text = (pyarrow.types.is_string, pyarrow.types.is_large_string, pyarrow.types.is_string_view)
    if rows and not any(fits(inner) for fits in (*is_text, pyarrow.types.is_null)):
        raise no_text(file, 0, found.text_column, str(kind))
    return found


def _spreadsheet(
    file: Path, text_column: str | None, encoding: str | None, separator: str | None, parquet_out: Path | None
) -> Layout:
    table = read_table(file)
    return _layout(file, "spreadsheet", list(table.columns), text_column, len(table), Dialect())


_SURVEYS = {
    "delimited": _delimited,
    "json": _json,
    "lines": _lines,
    "parquet": _parquet,
    "spreadsheet": _spreadsheet,
}


def _layout(
    file: Path, kind: Kind, header: list[str], text_column: str | None, rows: int, dialect: Dialect, schema: Any = None
) -> Layout:
    if rows == 0:
        return Layout(file, kind, tuple(header), "", 0, dialect)
    table = Table(str(file), {name: [] for name in header})
    column = find_column(table, text_column, "--text-column", TEXT_COLUMNS)
    return Layout(file, kind, tuple(header), column, rows, dialect, schema)
