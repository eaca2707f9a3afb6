"""`hbt predict --input FILE`: add predicted labels to a file, keeping every row in order and every column."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from exporters.loaders.command.label_file import BATCH
from exporters.registry import LoadedArtifact
from toolkit.data.batches.layout import Layout
from toolkit.data.batches.reading import first_texts, read_batches
from toolkit.data.normalization import normalize
from toolkit.package import labels_of
from toolkit.utils import console
from toolkit.utils.errors import InputError
from toolkit.utils.files import whole_file
from toolkit.workflows.scoring.flags import Flags, flags_of
from toolkit.workflows.scoring.labeled_file import say_blank, write_labeled
from toolkit.workflows.scoring.labeler import (
    SUFFIXES,
    InThisProcess,
    Labeled,
    Labeling,
    TableOptions,
    Task,
    layout_to_label,
)
from toolkit.workflows.scoring.pool import labeling, processes_for


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
    flags: Flags | None = None,
) -> int:
    """Write `source` with added columns predicted_label and probability to `out`; return the number of rows.

    A .txt file has one text per line. A CSV file is written with the separator and in the encoding of `source`.
    Both columns are empty for a row without text; the number of such rows is printed on stderr. In CSV and TSV, a cell
    that a spreadsheet would run as a formula gets a leading apostrophe. The file is read and written batch by batch.

    text_column, encoding, separator: of `source`; None recognizes them.
    flags: of the package, which may add the columns answer and out_of_scope.
    Raises: InputError if a file cannot be read or written, or already has one of the columns.
    """
    layout = _layout(source, out, TableOptions(text_column, encoding, separator))
    labels = getattr(model, "labels", ())
    flags = flags or Flags()
    return _write_file(InThisProcess(model, first_texts(layout, BATCH), flags), layout, out, labels, flags)


def label_file_in_processes(
    package: Path, source: Path, out: Path, options: TableOptions, processes: int | None = None
) -> int:
    """Do as `label_file` with a package in several processes. processes: None uses every core for a large file."""
    layout = _layout(source, out, options)
    count = processes_for(source.stat().st_size, processes)
    with labeling(package, first_texts(layout, BATCH), count) as workers:
        return _write_file(workers, layout, out, labels_of(package), flags_of(package))


def _layout(source: Path, out: Path, options: TableOptions) -> Layout:
    if out.suffix.lower() not in SUFFIXES:
        raise InputError(f"--output {out}: unknown kind of file; give one that ends in {', '.join(SUFFIXES)}")
    return layout_to_label(source, out, options)


def _write_file(workers: Labeling, layout: Layout, out: Path, labels: Sequence[str], flags: Flags) -> int:
    tasks = ((0, Task(batch, layout, out.suffix.lower())) for batch in read_batches(layout))
    with console.bar("predicting", layout.rows, "rows") as advance:

        def results() -> Iterator[Labeled | InputError]:
            for _, result in workers.label(tasks):
                yield result
                if isinstance(result, Labeled):
                    advance(result.rows, result.rows)

        try:
            with whole_file(out) as partial:
                blank = write_labeled(results(), layout, partial, out.suffix.lower(), labels, flags)
        except OSError as error:
            raise InputError(f"{out}: cannot be written ({error.strerror}); give another path") from None
    say_blank(layout, blank)
    return layout.rows
