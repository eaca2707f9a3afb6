"""`hbt predict --input`: add predicted labels to a file, keeping every row in order and every column."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from exporters.loaders.command.label_file import (
    ANSWER,
    BATCH,
    CHUNK,
    LABEL,
    PROBABILITY,
    added_columns,
    inert,
    safe_batch_size,
)
from exporters.loaders.command.model import UNSURE
from exporters.registry import LoadedArtifact
from toolkit.data.columns import TEXT_COLUMNS, find_column
from toolkit.data.corpus import text_values
from toolkit.data.normalization import normalize
from toolkit.data.tables import WRITERS, Table, read_lines, read_table, refuse_mixed_columns, write_table
from toolkit.package import predict
from toolkit.utils import console
from toolkit.utils.errors import InputError

THREADS = 1
"""Of the model: on two cores, two threads took 1.9 times as long as one, since they wait for each other."""


def refuse_blank(texts: Sequence[str]) -> None:
    """Raise InputError if a text of the command line has no visible character."""
    for number, text in enumerate(texts, start=1):
        if not normalize(text):
            raise InputError(f"text {number} is blank, so no label fits it; leave it out or give a text")


def label_file(
    model: LoadedArtifact,
    source: Path,
    out: Path,
    text_column: str | None = None,
    encoding: str | None = None,
    separator: str | None = None,
    below: float | None = None,
) -> int:
    """Write `source` with added columns predicted_label and probability to `out`; return the number of rows.

    A .txt file has one text per line. A CSV file is written with the separator and in the encoding of `source`.
    Both columns are empty for a row without text; the number of such rows is printed on stderr. In CSV and TSV, a cell
    that a spreadsheet would run as a formula gets a leading apostrophe.

    text_column, encoding, separator: of `source`; None recognizes them.
    below: of a package that abstains, the probability below which a third column, answer, is `unsure`.
    Raises: InputError if a file cannot be read or written, or already has one of the columns.
    """
    if out.suffix.lower() not in WRITERS:
        raise InputError(f"--output {out}: unknown kind of file; give one that ends in {', '.join(WRITERS)}")
    if source.suffix.lower() == ".txt" and source.is_file():
        lines = [line.rstrip("\r") for line in read_lines(source, encoding)]
        table = Table(str(source), {TEXT_COLUMNS[0]: lines})
    else:
        table = read_table(source, encoding, separator)
    existing = [name for name in added_columns(below) if name in table.columns]
    if existing:
        raise InputError(f"{source}: already has a column {existing[0]!r}; rename it")
    texts = text_values(table, find_column(table, text_column, "--text-column", TEXT_COLUMNS))
    refuse_mixed_columns(table, out)
    labels, probabilities = _label(model, texts)
    columns: dict[str, list[Any]] = table.columns | {LABEL: labels, PROBABILITY: probabilities}
    if below is not None:
        columns[ANSWER] = [
            label if probability is None or probability >= below else UNSURE
            for label, probability in zip(labels, probabilities, strict=True)
        ]
    if out.suffix.lower() in (".csv", ".tsv"):
        columns = {inert(name): [inert(cell) for cell in cells] for name, cells in columns.items()}
    write_table(Table(str(out), columns, table.dialect), out)
    if None in labels:
        console.say(f"{source}: {labels.count(None)} of {len(labels)} rows have no text; their label is left empty")
    return len(texts)


def _label(model: LoadedArtifact, texts: list[str]) -> tuple[list[str | None], list[float | None]]:
    filled = [row for row, text in enumerate(texts) if normalize(text)]
    labels: list[str | None] = [None] * len(texts)
    probabilities: list[float | None] = [None] * len(texts)
    batch_size = safe_batch_size(model, [texts[i] for i in filled[:BATCH]])
    with console.bar("predicting", len(filled)) as advance:
        for start in range(0, len(filled), CHUNK):
            rows = filled[start : start + CHUNK]
            found = predict(model, [texts[i] for i in rows], batch_size)
            for row, (label, probability) in zip(rows, found, strict=True):
                labels[row], probabilities[row] = label, round(probability, 6)
            advance(len(rows))
    return labels, probabilities
