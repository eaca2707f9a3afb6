import dataclasses
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from toolkit.config.settings import CorpusSettings
from toolkit.data.corpus import (
    Corpus,
    corpus_from_table,
    describe_split,
    duplicate_groups,
    duplicate_key,
    label_values,
    load_corpus,
)
from toolkit.data.splits import LEFT_OUT, TEST
from toolkit.data.tables import Table
from toolkit.utils.errors import InputError

BANGLA_HATE = Path(__file__).parents[4] / "shared" / "data" / "bangla_hate.csv"


def columns(rows: int = 60, **changed: list[Any]) -> dict[str, list[Any]]:
    made: dict[str, list[Any]] = {
        "text": [f"মন্তব্য {i}" for i in range(rows)],
        "label": [str(i % 2) for i in range(rows)],
    }
    return made | changed


def corpus(table: dict[str, list[Any]], **settings: Any) -> Corpus:
    return corpus_from_table(Table("made.csv", table), CorpusSettings(data="made.csv", **settings))


def put(values: list[Any], row: int, value: Any) -> list[Any]:
    return [*values[:row], value, *values[row + 1 :]]


TEXTS, LABELS = columns()["text"], columns()["label"]


@pytest.mark.parametrize(
    ("table", "settings", "message"),
    [
        ({"words": TEXTS, "label": LABELS}, {}, "--text-column"),
        ({"text": TEXTS, "mark": LABELS}, {}, "--label-column"),
        (columns(), {"text_column": "words"}, "words"),
        (columns(), {"label_column": "mark"}, "mark"),
        (columns(label=["1"] * 60), {}, "only one label"),
        (columns(text=put(TEXTS, 7, "")), {}, "row 7"),
        (columns(text=put(TEXTS, 7, " \u200b\u00a0")), {}, "row 7"),
        (columns(text=put(TEXTS, 7, None)), {}, "row 7"),
        (columns(text=put(TEXTS, 7, float("nan"))), {}, "row 7"),
        (columns(text=put(TEXTS, 7, 3)), {}, "row 7 .* contains int, not text"),
        (columns(label=put(LABELS, 9, None)), {}, "row 9"),
        (columns(label=put(LABELS, 9, float("nan"))), {}, "row 9"),
        (columns(label=put(LABELS, 9, " ")), {}, "row 9"),
        (columns(label=put(LABELS, 9, "nan")), {}, "row 9"),
        (columns(label=list(map(str, range(60)))), {}, "60 different labels"),
        (columns(label=["a"] * 56 + ["b"] * 4), {}, "'b' has .* too few for 5 folds"),
        (columns(), {"folds": 30}, "too few for 30 folds"),
        (columns(), {"data_fraction": 0.05}, "too few for 5 folds"),
        (columns(4), {"folds": 2}, "made.csv"),
        (columns(split=put(["train"] * 60, 5, "holdout")), {}, "row 5 of column 'split' contains 'holdout'"),
        (columns(split=put(["train"] * 60, 5, None)), {}, "row 5 of column 'split'"),
        (columns(split=["train"] * 59 + ["test"]), {}, "the test split has no row of label '0'"),
        (columns(), {"label_names": ("no", "yes", "perhaps")}, "--label-names"),
        (columns(label=["a", "b"] * 30), {"label_names": ("no", "yes")}, "--label-names"),
        (columns(), {"slice": ("source",)}, "--slice source"),
        (columns(), {"stratify_by": "source"}, "--stratify-by"),
    ],
)
def test_invalid_data_or_settings_are_one_clear_line(
    table: dict[str, list[Any]], settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message) as caught:
        corpus(table, **settings)
    assert "\n" not in str(caught.value)


def test_a_missing_file_names_itself() -> None:
    with pytest.raises(InputError, match=r"nothing\.csv"):
        load_corpus(CorpusSettings(data="nothing.csv"))


@pytest.mark.parametrize(
    ("labels", "names", "shown", "first"),
    [
        (["1", "0"], (), ("0", "1"), 1),
        ([1, 0], (), ("0", "1"), 1),
        ([1.0, 0.0], (), ("0", "1"), 1),
        ([True, False], (), ("False", "True"), 1),
        (["10", "9"], (), ("9", "10"), 1),
        (["ham", " spam "], (), ("ham", "spam"), 0),
        (["ham", "spam"], ("spam", "ham"), ("spam", "ham"), 1),
        (["0", "1"], ("fine", "foul"), ("fine", "foul"), 0),
    ],
)
def test_the_second_label_is_the_positive_one(
    labels: list[Any], names: tuple[str, ...], shown: tuple[str, ...], first: int
) -> None:
    made = corpus(columns(label=labels * 30), label_names=names)
    assert made.label_names == shown
    assert made.labels[0] == first


def test_a_known_label_column_has_label_names() -> None:
    made = corpus({"Comments": TEXTS, "HateSpeech": LABELS})
    assert made.label_names == ("non_hate", "hate")


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("ভালো!", " ভালো ", True),
        ("সম\u09df", "সম\u09af\u09bc", True),
        ("Good\u00a0bus", "good, BUS...", True),
        ("❤\ufe0f ok", "❤ ok 🙂", True),
        ("ভালো", "ভাল", False),
        ("কি", "কী", False),
        ("दिन", "दान", False),
        ("كِتاب", "كُتاب", False),
        ("2 5", "25", False),
        ("🙂", "😡", False),
        ("!!", "??", False),
    ],
)
def test_only_duplicates_have_the_same_key(one: str, other: str, same: bool) -> None:
    assert (duplicate_key(one) == duplicate_key(other)) is same


def test_duplicates_stay_in_one_fold_and_conflicts_are_counted() -> None:
    texts = [f"text {i % 50}{'!' * (i // 50)}" for i in range(80)]
    made = corpus(columns(text=texts, label=[str(i // 3 % 2) for i in range(80)]), folds=2)
    places = defaultdict(set)
    for key, place in zip(made.keys, made.fold, strict=True):
        places[key].add(int(place))
    assert all(len(folds) == 1 for folds in places.values())
    described = describe_split(made)
    assert (described["duplicate_groups"], described["duplicate_rows"]) == (30, 60)
    assert described["conflicting_groups"] == sum(i // 3 % 2 != (i + 50) // 3 % 2 for i in range(30))


def test_a_training_row_with_a_duplicate_in_the_given_test_split_is_left_out() -> None:
    split = ["train"] * 40 + ["valid"] * 10 + ["test"] * 10
    made = corpus(columns(text=put(TEXTS, 3, TEXTS[55] + "!"), split=split))
    assert made.fold[3] == LEFT_OUT
    assert (made.fold[50:] == TEST).all()
    assert describe_split(made)["left_out_rows"] == 1
    assert [len(made.rows(name)) for name in ("train", "validation", "test")] == [39, 10, 10]


def test_data_fraction_does_not_change_the_test_rows() -> None:
    full, part = corpus(columns(200)), corpus(columns(200), data_fraction=0.5)
    assert full.rows("test").tolist() == part.rows("test").tolist()
    assert len(part.rows("train")) == pytest.approx(75, abs=2)


def test_the_fingerprint_depends_on_normalized_texts_labels_and_split() -> None:
    base = corpus(columns())
    assert base.fingerprint == corpus(columns(text=[f"\ufeff{text}\u00a0" for text in TEXTS])).fingerprint
    for other in (
        corpus(columns(), seed=43),
        corpus(columns(), label_names=("no", "yes")),
        corpus(columns(text=put(TEXTS, 0, "another"))),
        corpus(columns(label=put(put(LABELS, 0, "1"), 1, "0"))),
    ):
        assert other.fingerprint != base.fingerprint


def test_slices_are_columns_and_row_ranges() -> None:
    made = corpus(columns(source=["a"] * 20 + ["b"] * 40), slice=("source", "0:20", "50:", ":3"))
    counts = {name: int(mask.sum()) for name, mask in made.slices.items()}
    assert counts == {"source=a": 20, "source=b": 40, "rows 0:20": 20, "rows 50:": 10, "rows :3": 3}
    assert (made.slices["source=a"] == made.slices["rows 0:20"]).all()


def test_the_test_split_is_stratified_by_an_additional_column() -> None:
    made = corpus(columns(400, source=["a"] * 40 + ["b"] * 360), stratify_by="source")
    assert (made.rows("test") < 40).sum() == 6


def test_words_for_nothing_are_labels_unless_they_are_named() -> None:
    names = ["NONE", "none", "null", "na", "NA"]
    made = corpus(columns(100, label=[names[i % 5] for i in range(100)]))
    assert made.label_names == tuple(sorted(names))
    with pytest.raises(InputError, match=r"row 3 of column 'label' has no label \(40 such rows"):
        corpus(columns(100, label=[names[i % 5] for i in range(100)]), missing_label=("na", "NA"))


@pytest.mark.parametrize("value", [None, float("nan"), "", " ", "NaN"])
def test_missing_labels_are_none(value: Any) -> None:
    assert label_values(Table("made.csv", {"label": [value, 1.0, " 1 "]}), "label") == [None, "1", "1"]


def test_a_corpus_has_the_split_of_each_row() -> None:
    made = corpus(columns())
    names = made.split_of(np.arange(60))
    assert {name: names.count(name) for name in set(names)} == {"train": 44, "validation": 6, "test": 10}
    assert made.take(made.rows("test")[:1]) == [TEXTS[made.rows("test")[0]]]
    assert dataclasses.asdict(made.settings)["data"] == "made.csv"


@pytest.mark.skipif(not BANGLA_HATE.exists(), reason="shared/data/bangla_hate.csv is not on this machine")
def test_the_duplicates_of_bangla_hate_are_found() -> None:
    described = describe_split(load_corpus(CorpusSettings(data=str(BANGLA_HATE))))
    known = {"rows": 16_407, "duplicate_groups": 551, "duplicate_rows": 1_224, "conflicting_groups": 39}
    assert {name: described[name] for name in known} == known


def test_rows_without_a_duplicate_form_no_group() -> None:
    assert duplicate_groups(["a", "b", "a", "c", "a"]) == [[0, 2, 4]]
