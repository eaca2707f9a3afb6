"""Unlabeled texts: read from a file, without those that are already in the corpus."""

from pathlib import Path

from toolkit.data.columns import TEXT_COLUMNS
from toolkit.data.corpus import Corpus, duplicate_key, text_values
from toolkit.data.normalization import normalize
from toolkit.data.tables import read_lines, read_table
from toolkit.utils.errors import InputError


def read_unlabeled(file: Path, option: str = "--unlabelled") -> list[str]:
    """Return the non-empty texts of a file: the lines of a .txt, or the text column of a table.

    option: the command-line option that names it, for messages.
    Raises: InputError if it cannot be read or contains no text.
    """
    if not file.is_file():
        raise InputError(f"{option} {file}: no such file; give a .txt with one text per line, or a table")
    try:
        texts = [text for text in _texts_of(file) if normalize(text)]
    except InputError as error:
        raise InputError(f"{option} {error}") from None
    if not texts:
        raise InputError(f"{option} {file}: no text in it; give a .txt with one text per line, or a table")
    return texts


def _texts_of(file: Path) -> list[str]:
    if file.suffix.lower() == ".txt":
        return read_lines(file)
    table = read_table(file)
    by_lower = {name.strip().casefold(): name for name in reversed(table.columns)}
    column = next((by_lower[name.casefold()] for name in TEXT_COLUMNS if name.casefold() in by_lower), None)
    if column is None:
        raise InputError(f"{file}: no text column among {', '.join(table.columns)}; name it {TEXT_COLUMNS[0]}")
    return text_values(table, column)


def unknown_texts(texts: list[str], corpus: Corpus) -> list[str]:
    """Return each text once, without duplicates of rows of the corpus, so that test rows stay held out."""
    known = set(corpus.keys)
    kept = []
    for text in texts:
        key = duplicate_key(text)
        if key not in known:
            known.add(key)
            kept.append(text)
    return kept
