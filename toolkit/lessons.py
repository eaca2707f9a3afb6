"""What a student is taught with: the training rows and, if asked, further texts that only the teacher labels."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from toolkit.augmentation import variants
from toolkit.corpus import TEXT_COLUMNS, Corpus, duplicate_key, text_values
from toolkit.errors import InputError
from toolkit.examples import Examples
from toolkit.losses import UNLABELLED
from toolkit.normaliser import normalise
from toolkit.recipe import DistillationSettings
from toolkit.tables import read_lines, read_table
from toolkit.teachers import NO_FOLD, Teacher, said_of


@dataclass(frozen=True)
class Lessons:
    """What the student learns from, and what its best epoch is chosen on."""

    train: Examples
    """Training rows first, then the further texts."""
    validation: Examples
    further: dict[str, int | str]
    """How many texts of each further kind, how many were left out, and the hash of their file."""


def lessons(teacher: Teacher, corpus: Corpus, how: DistillationSettings, cache: Path) -> Lessons:
    """Texts, labels and the logits of `teacher` for its student.

    Raises: InputError if the file of unlabelled texts cannot be read.
    """
    train, validation = (_of_rows(teacher, corpus, corpus.rows(split)) for split in ("train", "validation"))
    texts, folds, told = further_texts(corpus, how)
    if not texts:
        return Lessons(train, validation, {})
    assert train.teacher_logits is not None
    logits = np.concatenate([train.teacher_logits, said_of(teacher, corpus, texts, folds, cache)])
    labels = np.concatenate([train.labels, np.full(len(texts), UNLABELLED)])
    return Lessons(Examples([*train.texts, *texts], labels, logits), validation, told)


def _of_rows(teacher: Teacher, corpus: Corpus, rows: np.ndarray) -> Examples:
    return Examples(corpus.take(rows), corpus.labels[rows], teacher.predictions.of(rows))


def further_texts(corpus: Corpus, how: DistillationSettings) -> tuple[list[str], np.ndarray, dict[str, int | str]]:
    """The texts that only the teacher labels, the fold that each was made from (NO_FOLD for none), and their counts.

    Raises: InputError if the file of unlabelled texts cannot be read.
    """
    texts: list[str] = []
    folds: list[np.ndarray] = []
    told: dict[str, int | str] = {}
    if how.augment:
        made, made_of = _variants(corpus)
        texts += made
        folds.append(made_of)
        told["augmented_texts"] = len(made)
    if how.unlabelled is not None:
        found = read_unlabelled(Path(how.unlabelled))
        new = unknown_texts(found, corpus)
        texts += new
        folds.append(np.full(len(new), NO_FOLD))
        told |= {"unlabelled_texts": len(new), "unlabelled_left_out": len(found) - len(new)}
        told["unlabelled_sha256"] = hashlib.sha256("\x00".join(found).encode()).hexdigest()
    return texts, np.concatenate(folds) if folds else np.zeros(0, dtype=np.int64), told


def _variants(corpus: Corpus) -> tuple[list[str], np.ndarray]:
    """A variant of each training text and its fold, without those that came out like a validation or test row."""
    rows = corpus.rows("train")
    made = variants([normalise(text) for text in corpus.take(rows)], corpus.fold[rows], corpus.settings.seed)
    held_out = {corpus.keys[row] for split in ("validation", "test") for row in corpus.rows(split)}
    kept = [i for i, text in enumerate(made) if duplicate_key(text) not in held_out]
    return [made[i] for i in kept], corpus.fold[rows[kept]]


def read_unlabelled(file: Path) -> list[str]:
    """The texts of a file that are not empty: one a line of a .txt, or the text column of a table.

    Raises: InputError if it cannot be read or holds no text.
    """
    if not file.is_file():
        raise InputError(f"--unlabelled {file}: no such file; give a .txt with one text a line, or a table")
    try:
        texts = [text for text in _texts_of(file) if normalise(text)]
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
