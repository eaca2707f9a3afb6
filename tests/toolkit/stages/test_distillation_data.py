import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.helpers import random_logits
from toolkit.config.recipe import Recipe
from toolkit.config.settings import DistillationSettings
from toolkit.data.augmentation import variants
from toolkit.data.corpus import Corpus
from toolkit.data.normalization import normalize
from toolkit.data.tables import Table, write_table
from toolkit.data.unlabeled import read_unlabeled, unknown_texts
from toolkit.evaluation.predictions import Predictions
from toolkit.stages.distillation_data import distillation_data, further_texts
from toolkit.stages.teacher_logits import NO_FOLD
from toolkit.stages.teachers import Teacher
from toolkit.training.losses import UNLABELED
from toolkit.utils.errors import InputError

NEW = ["a text nobody labeled", "নতুন মন্তব্য", "one more"]


def how(**given: Any) -> DistillationSettings:
    return DistillationSettings(student="layers:1", **given)


@pytest.fixture
def teacher(toy: Corpus, tmp_path: Path) -> Teacher:
    """One that was asked of the corpus before."""
    rows = toy.rows("all")
    return Teacher(tmp_path, Predictions(rows, random_logits(len(rows))), 0.5, "made up", "teacher", ())


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[list[str], np.ndarray]]:
    """Texts and folds of which the teacher was asked; it says the number of the text."""
    calls: list[tuple[list[str], np.ndarray]] = []

    def say(teacher: Teacher, corpus: Corpus, texts: Sequence[str], folds: np.ndarray, cache: Path) -> np.ndarray:
        calls.append((list(texts), folds))
        return np.stack([np.arange(len(texts)), -np.arange(len(texts))], axis=1).astype(np.float32)

    monkeypatch.setattr("toolkit.stages.distillation_data.logits_of_texts", say)
    return calls


def text_file(folder: Path, *lines: str) -> str:
    (folder / "more.txt").write_text("\n".join(lines), "utf-8")
    return str(folder / "more.txt")


def test_without_further_texts_the_training_rows_are_all(
    toy: Corpus, teacher: Teacher, tmp_path: Path, asked: list[Any]
) -> None:
    found = distillation_data(teacher, toy, Recipe(distillation=how()), tmp_path)
    rows = toy.rows("train")
    assert list(found.train.texts) == toy.take(rows)
    np.testing.assert_array_equal(found.train.labels, toy.labels[rows])
    np.testing.assert_array_equal(found.train.teacher_logits, teacher.predictions.of(rows))
    assert (found.counts, asked) == ({}, [])


def test_further_texts_follow_without_a_label_and_with_what_the_teacher_says(
    toy: Corpus, teacher: Teacher, tmp_path: Path, asked: list[tuple[list[str], np.ndarray]]
) -> None:
    given = how(unlabelled=text_file(tmp_path, *NEW), augment=True)
    found = distillation_data(teacher, toy, Recipe(distillation=given), tmp_path)
    rows = toy.rows("train")
    made = variants([normalize(text) for text in toy.take(rows)], toy.fold[rows], toy.settings.seed)
    assert list(found.train.texts) == [*toy.take(rows), *made, *NEW]
    assert asked[0][0] == [*made, *NEW]
    assert asked[0][1].tolist() == [*toy.fold[rows], *[NO_FOLD] * 3]
    labels, logits = found.train.labels, found.train.teacher_logits
    assert logits is not None
    np.testing.assert_array_equal(labels[: len(rows)], toy.labels[rows])
    assert set(labels[len(rows) :]) == {UNLABELED}
    np.testing.assert_array_equal(logits[: len(rows)], teacher.predictions.of(rows))
    np.testing.assert_array_equal(logits[len(rows) :, 0], np.arange(len(rows) + 3))
    assert found.counts["augmented_texts"] == len(rows)
    assert (found.counts["unlabelled_texts"], found.counts["unlabelled_left_out"]) == (3, 0)


def test_texts_that_say_the_same_as_a_row_or_as_each_other_are_left_out(toy: Corpus, tmp_path: Path) -> None:
    test, train = (toy.take(toy.rows(split))[0] for split in ("test", "train"))
    file = text_file(
        tmp_path,
        *(NEW[0], "", "  \u200b", NEW[0].upper() + "!!", train, test, f"«{test.title()}» …", NEW[1], "🙂", "🙂"),
    )
    texts, folds, told = further_texts(toy, how(unlabelled=file))
    assert texts == [NEW[0], NEW[1], "🙂"]
    assert folds.tolist() == [NO_FOLD] * 3
    assert (told["unlabelled_texts"], told["unlabelled_left_out"]) == (3, 5)


def test_the_first_of_like_texts_is_kept_as_it_is_written(toy: Corpus) -> None:
    assert unknown_texts(["Hello, World", "hello world", "HELLO  WORLD!"], toy) == ["Hello, World"]


def test_what_was_read_is_known_by_its_hash(toy: Corpus, tmp_path: Path) -> None:
    def told(*lines: str) -> int | str:
        return further_texts(toy, how(unlabelled=text_file(tmp_path, *lines)))[2]["unlabelled_sha256"]

    assert told(*NEW) == told(*NEW) == hashlib.sha256("\x00".join(NEW).encode()).hexdigest()
    assert told(*NEW) != told(*NEW[:2])


@pytest.mark.parametrize("ending", ["\n", "\r\n"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_a_text_file_has_one_text_a_line(tmp_path: Path, ending: str, mark: str) -> None:
    lines = ["first, with a comma", "", '"quoted"', " \t ", "last"]
    (tmp_path / "more.TXT").write_bytes((mark + ending.join(lines) + ending).encode())
    assert [text.strip() for text in read_unlabeled(tmp_path / "more.TXT")] == [lines[0], lines[2], lines[4]]


def test_the_column_is_the_one_that_a_corpus_would_take(tmp_path: Path) -> None:
    write_table(Table("more", {"content": ["long"], "text": ["short"]}), tmp_path / "more.csv")
    assert read_unlabeled(tmp_path / "more.csv") == ["short"]


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".jsonl", ".parquet"])
@pytest.mark.parametrize("column", ["text", "Comments", " Sentence "])
def test_a_table_is_read_by_its_text_column(tmp_path: Path, suffix: str, column: str) -> None:
    table = Table("more", {"id": ["1", "2", "3", "4"], column: ["one", "", None, "two\nlines"]})
    write_table(table, tmp_path / f"more{suffix}")
    assert read_unlabeled(tmp_path / f"more{suffix}") == ["one", "two\nlines"]


UNREADABLE: dict[str, tuple[str, bytes, str]] = {
    "missing": ("nothing.txt", b"", "no such file"),
    "a folder": (".", b"", "no such file"),
    "empty": ("empty.txt", b"", "no text in it"),
    "blank lines": ("blank.txt", b"\n \n\t\n\xe2\x80\x8b\n", "no text in it"),
    "wrong encoding": ("latin.txt", b"one\nta\xefve\n", "line 2 is not UTF-8"),
    "empty table": ("empty.csv", b"", "no rows"),
    "table of blanks": ("blank.csv", b"text,id\n,1\n ,2\n", "no text in it"),
    "no text column": ("other.csv", b"id,body\n1,one\n", "no text column among id, body; call it text"),
    "ragged": ("ragged.csv", b"text,id\none,1\ntwo\n", "line 3 has 1 fields"),
    "no text but numbers": ("numbers.jsonl", b'{"text": 3}\n', "not a text"),
    "unknown kind": ("more.xlsx", b"PK", "unknown kind of file"),
}


@pytest.mark.parametrize("case", UNREADABLE)
def test_an_unreadable_file_is_told_with_its_option(tmp_path: Path, case: str) -> None:
    name, held, message = UNREADABLE[case]
    if held or case == "empty" or case == "empty table":
        (tmp_path / name).write_bytes(held)
    with pytest.raises(InputError, match=message) as caught:
        read_unlabeled(tmp_path / name)
    assert str(caught.value).startswith(f"--unlabelled {tmp_path / name}")
    assert "\n" not in str(caught.value)
