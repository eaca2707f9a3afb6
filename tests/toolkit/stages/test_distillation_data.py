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
from toolkit.evaluation.decision_rule import DecisionRule
from toolkit.evaluation.predictions import Predictions
from toolkit.stages.distillation_data import additional_texts, distillation_data
from toolkit.stages.teacher_logits import NO_FOLD
from toolkit.stages.teachers import Teacher
from toolkit.training.losses import UNLABELED
from toolkit.utils.errors import InputError

NEW = ["a text nobody labeled", "নতুন মন্তব্য", "one more"]


def settings(**given: Any) -> DistillationSettings:
    return DistillationSettings(student="layers:1", **given)


@pytest.fixture
def teacher(toy: Corpus, tmp_path: Path) -> Teacher:
    """A teacher with known logits on the corpus."""
    rows = toy.rows("all")
    return Teacher(tmp_path, Predictions(rows, random_logits(len(rows))), DecisionRule(0.5), "made up", "teacher", ())


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[list[str], np.ndarray]]:
    """Texts and folds of every call of the teacher, whose logits are the index of the text."""
    calls: list[tuple[list[str], np.ndarray]] = []

    def index_logits(
        teacher: Teacher, corpus: Corpus, texts: Sequence[str], folds: np.ndarray, cache: Path
    ) -> np.ndarray:
        calls.append((list(texts), folds))
        return np.stack([np.arange(len(texts)), -np.arange(len(texts))], axis=1).astype(np.float32)

    monkeypatch.setattr("toolkit.stages.distillation_data.logits_of_texts", index_logits)
    return calls


def text_file(folder: Path, *lines: str) -> str:
    (folder / "more.txt").write_text("\n".join(lines), "utf-8")
    return str(folder / "more.txt")


def test_without_additional_texts_there_are_only_the_training_rows(
    toy: Corpus, teacher: Teacher, tmp_path: Path, calls: list[Any]
) -> None:
    found = distillation_data(teacher, toy, Recipe(distillation=settings()), tmp_path)
    rows = toy.rows("train")
    assert list(found.train.texts) == toy.take(rows)
    np.testing.assert_array_equal(found.train.labels, toy.labels[rows])
    np.testing.assert_array_equal(found.train.teacher_logits, teacher.predictions.of(rows))
    assert (found.counts, calls) == ({}, [])


def test_additional_texts_follow_without_label_but_with_teacher_logits(
    toy: Corpus, teacher: Teacher, tmp_path: Path, calls: list[tuple[list[str], np.ndarray]]
) -> None:
    given = settings(unlabelled=text_file(tmp_path, *NEW), augment=True)
    found = distillation_data(teacher, toy, Recipe(distillation=given), tmp_path)
    rows = toy.rows("train")
    made = variants([normalize(text) for text in toy.take(rows)], toy.fold[rows], toy.settings.seed)
    assert list(found.train.texts) == [*toy.take(rows), *made, *NEW]
    assert calls[0][0] == [*made, *NEW]
    assert calls[0][1].tolist() == [*toy.fold[rows], *[NO_FOLD] * 3]
    labels, logits = found.train.labels, found.train.teacher_logits
    assert logits is not None
    np.testing.assert_array_equal(labels[: len(rows)], toy.labels[rows])
    assert set(labels[len(rows) :]) == {UNLABELED}
    np.testing.assert_array_equal(logits[: len(rows)], teacher.predictions.of(rows))
    np.testing.assert_array_equal(logits[len(rows) :, 0], np.arange(len(rows) + 3))
    assert found.counts["augmented_texts"] == len(rows)
    assert (found.counts["unlabelled_texts"], found.counts["unlabelled_left_out"]) == (3, 0)


def test_duplicates_of_rows_and_of_each_other_are_left_out(toy: Corpus, tmp_path: Path) -> None:
    test, train = (toy.take(toy.rows(split))[0] for split in ("test", "train"))
    file = text_file(
        tmp_path,
        *(NEW[0], "", "  \u200b", NEW[0].upper() + "!!", train, test, f"«{test.title()}» …", NEW[1], "🙂", "🙂"),
    )
    texts, folds, counts = additional_texts(toy, settings(unlabelled=file))
    assert texts == [NEW[0], NEW[1], "🙂"]
    assert folds.tolist() == [NO_FOLD] * 3
    assert (counts["unlabelled_texts"], counts["unlabelled_left_out"]) == (3, 5)


def test_the_first_of_duplicate_texts_is_kept_unchanged(toy: Corpus) -> None:
    assert unknown_texts(["Hello, World", "hello world", "HELLO  WORLD!"], toy) == ["Hello, World"]


def test_the_unlabeled_texts_are_identified_by_their_hash(toy: Corpus, tmp_path: Path) -> None:
    def sha256(*lines: str) -> int | str:
        return additional_texts(toy, settings(unlabelled=text_file(tmp_path, *lines)))[2]["unlabelled_sha256"]

    assert sha256(*NEW) == sha256(*NEW) == hashlib.sha256("\x00".join(NEW).encode()).hexdigest()
    assert sha256(*NEW) != sha256(*NEW[:2])


@pytest.mark.parametrize("ending", ["\n", "\r\n"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_a_text_file_has_one_text_per_line(tmp_path: Path, ending: str, mark: str) -> None:
    lines = ["first, with a comma", "", '"quoted"', " \t ", "last"]
    (tmp_path / "more.TXT").write_bytes((mark + ending.join(lines) + ending).encode())
    assert [text.strip() for text in read_unlabeled(tmp_path / "more.TXT")] == [lines[0], lines[2], lines[4]]


def test_the_text_column_is_found_as_in_a_corpus(tmp_path: Path) -> None:
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
    "no encoding": ("binary.txt", b"one\nta\xefve\x00\n", "line 2 is not UTF-8"),
    "empty table": ("empty.csv", b"", "no rows"),
    "table of blanks": ("blank.csv", b"text,id\n,1\n ,2\n", "no text in it"),
    "no text column": ("other.csv", b"id,words\n1,one\n", "no text column among id, words; name it text"),
    "ragged": ("ragged.csv", b"text,id\none,1\ntwo\n", "line 3 has 1 fields"),
    "no text but numbers": ("numbers.jsonl", b'{"text": 3}\n', "contains int, not text"),
    "unknown kind": ("more.docx", b"PK", "unknown file type"),
}


@pytest.mark.parametrize("case", UNREADABLE)
def test_an_unreadable_file_is_reported_with_its_option(tmp_path: Path, case: str) -> None:
    name, held, message = UNREADABLE[case]
    if held or case == "empty" or case == "empty table":
        (tmp_path / name).write_bytes(held)
    with pytest.raises(InputError, match=message) as caught:
        read_unlabeled(tmp_path / name)
    assert str(caught.value).startswith(f"--unlabelled {tmp_path / name}")
    assert "\n" not in str(caught.value)
