"""Add labels and probabilities to a CSV or TSV file. `hbt predict` writes the same columns and cells."""

from __future__ import annotations

import csv
import os
import re
from codecs import BOM_UTF8
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, TextIO

from exporters.loaders.command.model import UNSURE, Model, largest_difference

LABEL, PROBABILITY, ANSWER = "predicted_label", "probability", "answer"
SUFFIXES = (".csv", ".tsv")
SEPARATORS, SNIFFED = (",", ";", "\t", "|"), 100
"""Separators of CSV files, and rows in which the one of a file is found. The same as those of hbt."""
TEXT_COLUMNS = (
    *("text", "comments", "comment", "sentence", "content", "tweet", "review", "document", "message", "post", "body"),
    *("texts", "sentences", "reviews", "tweets", "messages"),
    *("kommentar", "kommentare", "nachricht", "beitrag", "bewertung"),  # German
    *("texte", "commentaire", "commentaires", "texto", "comentario", "comentário", "testo", "commento", "tekst"),
    *("metin", "yorum", "teks", "komentar", "текст", "комментарий"),
    *("মন্তব্য", "লেখা", "টেক্সট", "বাক্য", "टिप्पणी", "पाठ", "نص", "تعليق", "متن", "文本", "评论", "テキスト", "텍스트"),
)
CHUNK, BATCH = 256, 32
"""Rows that are labeled and written together, and texts that the model scores at a time."""
SAME_SCORE = 1e-5
# White space and what the normalizer of every package removes.
BLANK = re.compile("[\\s\u0000-\u0008\u000e-\u001f\u007f\u00ad\u200b-\u200f\u202a-\u202e\u2060-\u2064\ufeff]*")
FORMULA = re.compile(r"[=+\-@\t\r\n＝＋－＠]")
NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)


def label_file(
    model: Model, source: Path, out: Path, text_column: str | None, below: float | None = None
) -> tuple[int, int]:
    """Write `source` with added columns to `out`, CHUNK rows at a time; return the rows, and those without text.

    A CSV file from a CSV file has its separator. The columns are empty for a row without text. A cell that a
    spreadsheet would run as a formula gets a leading apostrophe.

    below: of a package that abstains, the probability below which the third column, ANSWER, is UNSURE.
    Raises: ValueError or OSError if a file cannot be read or written; then `out` is not written.
    """
    if out.suffix.lower() not in SUFFIXES:
        raise ValueError(f"--output {out}: give a name that ends in {' or '.join(SUFFIXES)}")
    if out.exists():
        raise ValueError(f"{out}: exists; give another --output")
    rows = read_rows(source)
    header = next(rows)
    added = added_columns(below)
    taken = [name for name in added if name in header]
    if taken:
        raise ValueError(f"{source}: already has a column {taken[0]!r}; rename it")
    column = find_column(source, header, text_column)
    alike = out.suffix.lower() == source.suffix.lower()
    separator = separator_of(source) if alike else {".csv": ",", ".tsv": "\t"}[out.suffix.lower()]
    partial = out.with_name(f".{out.name}.{os.getpid()}.partial")
    count = blank = batch_size = 0
    try:
        with partial.open("w", newline="", encoding=_encoding_of(source)) as stream:
            write_rows(stream, separator, [[*header, *added]])
            for chunk in iter(lambda: list(islice(rows, CHUNK)), []):
                texts = [row[column] for row in chunk if not is_blank(row[column])]
                batch_size = batch_size or safe_batch_size(model, texts[:BATCH])
                found = iter(model.predict(texts, batch_size) if texts else [])
                empty = [""] * len(added)
                answers = [empty if is_blank(row[column]) else _cells(*next(found), below) for row in chunk]
                write_rows(stream, separator, [a + b for a, b in zip(chunk, answers)])
                count, blank = count + len(chunk), blank + len(chunk) - len(texts)
        partial.replace(out)
    finally:
        if partial.exists():
            partial.unlink()
    return count, blank


def _encoding_of(file: Path) -> str:
    """Return UTF-8, with a mark if the file has one: without it, Excel reads the letters wrongly."""
    with file.open("rb") as stream:
        return "utf-8-sig" if stream.read(len(BOM_UTF8)) == BOM_UTF8 else "utf-8"


def added_columns(below: float | None) -> list[str]:
    """Return the names of the columns that a labeled file gets."""
    return [LABEL, PROBABILITY] if below is None else [LABEL, PROBABILITY, ANSWER]


def _cells(label: str, probability: float, below: float | None) -> list[Any]:
    cells = [label, round(probability, 6)]
    return cells if below is None else [*cells, label if probability >= below else UNSURE]


def read_rows(file: Path) -> Iterator[list[str]]:
    """Yield the header and then every row of a CSV or TSV file.

    Raises: ValueError that names the line if the file is not UTF-8, malformed, or without rows.
    """
    if file.suffix.lower() not in SUFFIXES:
        raise ValueError(f"{file}: give a file that ends in {' or '.join(SUFFIXES)}")
    csv.field_size_limit(10_000_000)
    refuse_other_encodings(file)
    separator = separator_of(file)
    with file.open(encoding="utf-8-sig", newline="") as stream:
        reader = csv.reader(stream, delimiter=separator, strict=True)
        width = 0
        try:
            for row in filter(None, reader):
                width = width or len(row)
                if len(row) != width:
                    raise ValueError(
                        f"{file}: line {reader.line_num} has {len(row)} fields and the header {width}, separated by "
                        f"{separator!r}; quote texts that contain the separator"
                    )
                yield row
        except csv.Error as error:
            raise ValueError(f"{file}: line {reader.line_num} is malformed ({error}); fix its quotes") from None
    if reader.line_num < 2:
        raise ValueError(f"{file}: no rows; give a file with a header and texts")


def refuse_other_encodings(file: Path) -> None:
    """Raise ValueError that names the first line that is not UTF-8; the Latin letters of UTF-16 have zeros."""
    with file.open("rb") as stream:
        for number, line in enumerate(stream, start=1):
            try:
                line.decode()
                fits = number > 1 or b"\0" not in line
            except UnicodeDecodeError:
                fits = False
            if not fits:
                fix = "save the file as UTF-8 (hbt predict reads other encodings)"
                raise ValueError(f"{file}: line {number} is not UTF-8; {fix}")


def separator_of(file: Path) -> str:
    """Return the first of SEPARATORS that gives all of the first rows as many fields as the header, and not only one.

    If there is none, it is a comma. The separator of a TSV file is a tab.
    """
    if file.suffix.lower() == ".tsv":
        return "\t"
    for separator in SEPARATORS:
        with file.open(encoding="utf-8-sig", newline="") as stream:
            try:
                rows = list(filter(None, islice(csv.reader(stream, delimiter=separator, strict=True), SNIFFED)))
            except csv.Error:
                continue
        if rows and len(rows[0]) > 1 and all(len(row) == len(rows[0]) for row in rows):
            return separator
    return SEPARATORS[0]


def find_column(file: Path, header: Sequence[str], name: str | None) -> int:
    """Return the position of the column `name` or, if None, of the first of TEXT_COLUMNS. Raises: ValueError."""
    if name is not None:
        if name not in header:
            raise ValueError(f"{file}: no column {name!r} (--text-column); the columns are {', '.join(header)}")
        return header.index(name)
    lower = [each.strip().casefold() for each in header]
    found = [lower.index(each) for each in TEXT_COLUMNS if each in lower]
    if not found:
        raise ValueError(f"{file}: no text column among {', '.join(header)}; name it with --text-column")
    return found[0]


def write_rows(stream: TextIO, separator: str, rows: Sequence[Sequence[Any]]) -> None:
    """Write rows without cells that a spreadsheet would run. The plain writer does not quote a carriage return."""
    plain = csv.writer(stream, delimiter=separator, lineterminator="\n")
    quoted = csv.writer(stream, delimiter=separator, lineterminator="\n", quoting=csv.QUOTE_ALL)
    for row in rows:
        cells = [inert(cell) for cell in row]
        (quoted if any(isinstance(cell, str) and "\r" in cell for cell in cells) else plain).writerow(cells)


def inert(cell: Any) -> Any:
    """Return `cell` so that no spreadsheet runs it as a formula, as OWASP recommends: with a leading apostrophe.

    A number such as -5 is no formula and stays as it is.
    """
    if isinstance(cell, str) and FORMULA.match(cell) and not NUMBER.fullmatch(cell):
        return f"'{cell}"
    return cell


def is_blank(text: str) -> bool:
    """Return whether nothing is left of `text` after normalization."""
    return BLANK.fullmatch(text) is not None


def safe_batch_size(model: Any, texts: list[str]) -> int:
    """Return BATCH if `texts` get the scores in a batch that each gets by itself, else 1.

    Batches are several times faster, but the scales of dynamic int8 depend on what else is in the batch.
    """
    if not texts:
        return 1
    try:
        gap = largest_difference(model.predict_proba(texts, len(texts)), model.predict_proba(texts))
    except ValueError:  # scores that are not finite: `predict` reports them
        return 1
    return BATCH if gap <= SAME_SCORE else 1
