"""What a student is taught with: the training rows and, if asked, further texts that only the teacher labels."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from toolkit.config.settings import DistillationSettings
from toolkit.data.augmentation import variants
from toolkit.data.corpus import Corpus, duplicate_key
from toolkit.data.normalization import normalise
from toolkit.data.unlabeled import read_unlabelled, unknown_texts
from toolkit.stages.teacher_logits import NO_FOLD
from toolkit.stages.teachers import Teacher, said_of
from toolkit.training.dataset import Examples
from toolkit.training.losses import UNLABELLED


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


def calibration_examples(taught: Lessons, labelled: int, count: int, seed: int) -> Examples:
    """`count` of the training rows, which are the first `labelled` lessons, the same for the same seed."""
    return taught.train.take(np.sort(np.random.default_rng(seed).permutation(labelled)[:count]))
