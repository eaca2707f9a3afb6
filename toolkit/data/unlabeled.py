"""Texts without labels: read from a file, without those that the corpus already has."""

from pathlib import Path

from toolkit.data.corpus import TEXT_COLUMNS, Corpus, duplicate_key, text_values
from toolkit.data.normalization import normalize
from toolkit.data.tables import read_lines, read_table
from toolkit.utils.errors import InputError


def read_unlabeled(file: Path) -> list[str]:
    """The texts of a file that are not empty: one a line of a .txt, or the text column of a table.

    Raises: InputError if it cannot be read or holds no text.
    """
    if not file.is_file():
        raise InputError(f"--unlabelled {file}: no such file; give a .txt with one text a line, or a table")
    try:
        texts = [text for text in _texts_of(file) if normalize(text)]
    except InputError as error:
        raise InputError(f"--unlabelled {error}") from None
    if not texts:
        raise InputError(f"--unlabelled {file}: no text in it; give a .txt with one text a line, or a table")
    return texts


def _texts_of(file: Path) -> list[str]:
    if file.suffix.lower() == ".txt":
        return read_lines(file)
    table = read_table(file)
    named = {name.strip().lower(): name for name in reversed(table.columns)}
    column = next((named[name] for name in TEXT_COLUMNS if name in named), None)
    if column is None:
        raise InputError(f"{file}: no text column among {', '.join(table.columns)}; call it {TEXT_COLUMNS[0]}")
    return text_values(table, column)


def unknown_texts(texts: list[str], corpus: Corpus) -> list[str]:
    """Each text once, without those that say the same as a row of the corpus: test rows must stay unseen."""
    known = set(corpus.keys)
    kept = []
    for text in texts:
        key = duplicate_key(text)
        if key not in known:
            known.add(key)
            kept.append(text)
    return kept
