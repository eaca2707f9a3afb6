"""Write the labeled batches of one file."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from exporters.loaders.command.label_file import inert
from toolkit.data.batches.layout import Layout
from toolkit.data.batches.writing import DELIMITED, header_of, writer
from toolkit.data.decoding import UTF_8, UTF_8_BOM
from toolkit.utils import console
from toolkit.utils.errors import InputError
from toolkit.workflows.scoring.flags import Flags
from toolkit.workflows.scoring.labeler import Labeled


def write_labeled(
    results: Iterable[Labeled | InputError],
    layout: Layout,
    file: Path,
    suffix: str,
    labels: Sequence[str],
    flags: Flags,
) -> int:
    """Write the batches of one file in order; return how many rows have no text.

    labels: of the model, since the encoding of the file must have their letters.
    Raises: InputError if one of the results is an error.
    """
    blank = 0
    with writer(file, suffix, _encoding(layout, suffix, labels)) as write:
        if first := header_of(layout, suffix, flags.columns, inert):
            write(first)
        for result in results:
            if isinstance(result, InputError):
                raise result
            write(result.chunk)
            blank += result.blank
    return blank


def say_blank(layout: Layout, blank: int) -> None:
    """Print how many rows have no text, if there are any."""
    if blank:
        console.say(f"{layout.file}: {blank} of {layout.rows} rows have no text; their label is left empty")


def _encoding(layout: Layout, suffix: str, labels: Sequence[str]) -> str:
    """Return the encoding of a labeled text file: that of the input, or UTF-8 with a mark if it lacks a letter."""
    if suffix not in DELIMITED:
        return UTF_8
    try:
        "".join(labels).encode(layout.dialect.encoding)
    except UnicodeEncodeError:
        return UTF_8_BOM
    return layout.dialect.encoding
