"""`hbt drift`: compare the texts of a file, which need no labels, with the held-out rows of a package."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from exporters.loaders.command.label_file import BATCH, is_blank, safe_batch_size
from toolkit import package as packages
from toolkit.data.batches.layout import Layout, survey
from toolkit.data.batches.reading import read_batches, texts_of
from toolkit.evaluation.predictor import rule_of
from toolkit.evaluation.reliability.drift import (
    DRIFT,
    NONE,
    RETRAIN,
    UNKNOWN_COST,
    DriftReport,
    as_lines,
    compare_with,
    values_of,
)
from toolkit.utils import console
from toolkit.utils.errors import InputError
from toolkit.workflows.scoring.flags import flags_of
from toolkit.workflows.scoring.labeler import TableOptions
from toolkit.workflows.scoring.pool import THREADS

ROWS = 20_000
"""Default of the largest number of texts that are compared."""
STEP = 256
"""Texts between two steps of the progress bar."""
ADVICE = {
    RETRAIN: "retrain: such a shift costs the held-out rows macro-F1; label some of these texts and train again",
    UNKNOWN_COST: "these texts are not like the held-out rows, which cannot tell what it costs: label some of them",
    DRIFT: "the texts differ, but that such a shift costs the held-out rows macro-F1 cannot be shown",
    NONE: "no drift",
}


@dataclass(frozen=True)
class FileDrift:
    """The comparison of a file with a package."""

    package: str
    file: str
    file_rows: int
    """Of which the rows of `report` are compared."""
    report: DriftReport

    @property
    def advice(self) -> str:
        """What to do, in a line."""
        return ADVICE[self.report.verdict]

    def as_dict(self) -> dict[str, Any]:
        """Return the comparison for a JSON file."""
        own = {"package": self.package, "file": self.file, "file_rows": self.file_rows}
        return own | self.report.as_dict() | {"advice": self.advice}


def drift_of(folder: Path, file: Path, options: TableOptions | None = None, rows: int = ROWS) -> FileDrift:
    """Return how the texts of a file differ from the held-out rows of a package.

    rows: compare at most so many texts, drawn at random.
    Raises: InputError if `folder` is not a package, has no reference, or the file has no text.
    """
    options = options or TableOptions()
    reference = packages.read_manifest(folder).get("evaluation", {}).get("drift")
    flags = flags_of(folder)
    if reference is None or flags.scope is None:
        raise InputError(f"{folder}: has no reference to compare with; make the package again with hbt compress")
    layout = survey(file, options.text_column, options.encoding, options.separator)
    texts = _drawn(layout, rows)
    if not texts:
        raise InputError(f"{file}: no text in column {layout.text_column!r}; name another with --text-column")
    model = packages.load(folder, THREADS)
    batch_size = safe_batch_size(model, texts[:BATCH])
    parts = []
    with console.bar("predicting", len(texts), "rows") as advance:
        for start in range(0, len(texts), STEP):
            part = texts[start : start + STEP]
            parts.append(np.asarray(model.predict_proba(part, batch_size), dtype=np.float64))
            advance(len(part), len(part))
    probabilities = np.concatenate(parts)  # (texts, labels)
    predicted = rule_of(model).predict(probabilities)
    values = values_of(texts, probabilities, predicted, model.labels, flags.scope, flags.below)
    try:
        if reference["labels"] != len(model.labels):  # sizes come from the model, not from an untrusted manifest
            raise ValueError("other labels")
        report = compare_with(reference, values)
    except (AttributeError, LookupError, TypeError, ValueError):
        again = "make the package again with hbt compress"
        raise InputError(f"{folder}: the reference in its manifest is malformed; {again}") from None
    return FileDrift(str(folder), str(file), layout.rows, report)


def render(found: FileDrift) -> None:
    """Print the comparison as a table on stdout, and what to do."""
    report = found.report
    of = f" of {found.file_rows:,}" if report.rows != found.file_rows else ""
    title = (
        f"{report.rows:,}{of} texts of {found.file}, compared with {report.reference_rows:,} held-out rows of "
        f"{found.package}, whose macro-F1 is {report.macro_f1:.4f}; one chi-square test a line"
    )
    red = [i for i, line in enumerate(report.lines) if line.verdict not in (NONE, DRIFT)]
    console.print_table(as_lines(report), title, left=("Line", "largest change", "verdict"), red=red)
    print(found.advice)


def _drawn(layout: Layout, most: int) -> list[str]:
    """Return the texts of up to `most` rows of a file, drawn at random, without the empty ones."""
    chosen = np.zeros(layout.rows, dtype=bool)
    chosen[np.random.default_rng(0).permutation(layout.rows)[:most]] = True
    found: list[str] = []
    row = 0
    for batch in read_batches(layout):
        texts = texts_of(batch, layout)
        found += [text for text, take in zip(texts, chosen[row : row + len(texts)], strict=True) if take]
        row += len(texts)
    return [text for text in found if not is_blank(text)]
