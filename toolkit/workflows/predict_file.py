"""`hbt predict --input`: add predicted labels to a file, keeping every row in order and every column."""

from pathlib import Path

from exporters.registry import LoadedArtifact
from toolkit.data.corpus import TEXT_COLUMNS, find_column, text_values
from toolkit.data.normalization import normalize
from toolkit.data.tables import WRITERS, Table, read_table, write_table
from toolkit.package import predict
from toolkit.utils import console
from toolkit.utils.errors import InputError

LABEL, PROBABILITY = "predicted_label", "probability"
BATCH = 256


def label_file(model: LoadedArtifact, source: Path, out: Path, text_column: str | None) -> int:
    """Write `source` with added columns predicted_label and probability to `out`; return the number of rows.

    Both columns are empty for a row without text.
    Raises: InputError if a file cannot be read or written, or already has one of the columns.
    """
    if out.suffix.lower() not in WRITERS:
        raise InputError(f"--output {out}: unknown kind of file; give one that ends in {', '.join(WRITERS)}")
    table = read_table(source)
    existing = [name for name in (LABEL, PROBABILITY) if name in table.columns]
    if existing:
        raise InputError(f"{source}: already has a column {existing[0]!r}; rename it")
    texts = text_values(table, find_column(table, text_column, "--text-column", TEXT_COLUMNS))
    labels, probabilities = _label(model, texts)
    write_table(Table(str(out), table.columns | {LABEL: labels, PROBABILITY: probabilities}), out)
    return len(texts)


def _label(model: LoadedArtifact, texts: list[str]) -> tuple[list[str | None], list[float | None]]:
    filled = [row for row, text in enumerate(texts) if normalize(text)]
    labels: list[str | None] = [None] * len(texts)
    probabilities: list[float | None] = [None] * len(texts)
    with console.bar("predicting", len(filled)) as advance:
        for start in range(0, len(filled), BATCH):
            rows = filled[start : start + BATCH]
            for row, (label, probability) in zip(rows, predict(model, [texts[i] for i in rows]), strict=True):
                labels[row], probabilities[row] = label, round(probability, 6)
            advance(len(rows))
    return labels, probabilities
