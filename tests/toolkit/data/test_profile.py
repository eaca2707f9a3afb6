import io
import itertools
import json
from dataclasses import asdict
from typing import Any

import pytest
from rich.console import Console
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from toolkit.config.settings import CorpusSettings
from toolkit.data.corpus import corpus_from_table, describe_split
from toolkit.data.demo import demo_table
from toolkit.data.profile import DataProfile, expected_leaks, profile
from toolkit.data.profile_view import render
from toolkit.data.tables import Table
from toolkit.utils.errors import InputError

MESSY: dict[str, list[Any]] = {
    "text": ["Good bus!", "good  bus", "ভালো\u00a0🙂", "", None, float("nan"), " \u200b", "сад दिन كتاب", "unlabeled"],
    "label": ["a", "b", "a", "b", "a", "b", "a", "b", float("nan")],
}


def profiled(columns: dict[str, list[Any]], tokenizer: Tokenizer | None = None, **settings: Any) -> DataProfile:
    return profile(Table("made.csv", columns), CorpusSettings(data="made.csv", **settings), tokenizer)


def shown(made: DataProfile, encoding: str = "utf-8") -> str:
    page = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    render(made, Console(file=page, width=80, highlight=False))
    page.seek(0)
    return page.read()


def test_a_file_that_a_run_would_reject_has_a_profile() -> None:
    made = profiled(MESSY)
    assert (made.rows, made.empty_rows, made.missing_labels, made.distinct_labels) == (9, 4, 1, 2)
    assert made.labels == {"a": 4, "b": 4}
    assert (made.duplicate_groups, made.duplicate_rows, made.conflicting_groups) == (1, 2, 1)
    assert (made.emoji_rows, made.normalized_rows) == (1, 3)
    assert made.splits is None
    assert made.problem is not None
    assert "row 3" in made.problem


@pytest.mark.parametrize(
    "columns",
    [
        {"text": ["", None], "label": [None, ""]},
        {"text": ["a"], "label": ["1"]},
        {"text": ["!!", "🙂"], "label": ["[/b]", "[red]x"]},
        {"text": ["a"] * 8, "label": ["0", "1"] * 4},
        {"text": [], "label": []},
    ],
)
def test_odd_files_have_a_problem_and_no_traceback(columns: dict[str, list[Any]]) -> None:
    made = profiled(columns)
    assert made.problem
    assert shown(made)
    json.loads(json.dumps(asdict(made), allow_nan=False))


def test_a_missing_column_is_an_input_error() -> None:
    with pytest.raises(InputError, match="--label-column"):
        profiled({"text": ["a", "b"]})


def test_the_split_is_the_one_a_run_draws() -> None:
    settings = CorpusSettings()
    made = profile(demo_table(), settings)
    expected = describe_split(corpus_from_table(demo_table(), settings))
    assert made.splits == expected["counts"]
    assert (made.duplicate_groups, made.duplicate_rows) == (expected["duplicate_groups"], expected["duplicate_rows"])
    assert made.conflicting_groups == expected["conflicting_groups"]
    assert made.problem is None


@pytest.mark.parametrize("groups", [[2], [3], [2, 2], [4, 2], [6], []])
@pytest.mark.parametrize("test_rows", [1, 2, 3, 5])
def test_leaks_of_a_random_split_agree_with_drawing_every_split(groups: list[int], test_rows: int) -> None:
    rows = 8
    group_of = [i for i, size in enumerate(groups) for _ in range(size)]
    group_of += list(range(100, 100 + rows - len(group_of)))
    leaks = [
        sum(any(group_of[other] == group_of[row] for other in range(rows) if other not in test) for row in test)
        for test in map(set, itertools.combinations(range(rows), test_rows))
    ]
    assert expected_leaks(groups, rows, test_rows) == pytest.approx(sum(leaks) / len(leaks))


def test_letters_are_counted_by_script() -> None:
    made = profiled({"text": ["কখ ab", "दन اب", "яж 12 !?"], "label": ["0", "1", "0"]})
    assert made.script_shares == {"Bengali": 0.2, "Latin": 0.2, "Devanagari": 0.2, "Arabic": 0.2, "other": 0.2}


def test_the_length_histogram_has_no_gaps() -> None:
    words = [1, 2, 3, 4, 7, 8, 8, 20, 600]
    made = profiled({"text": [" ".join(["ক"] * n) for n in words], "label": ["0"] * 9})
    assert made.words is not None
    assert (made.words.median, made.words.p95, made.words.max) == (7, 600, 600)
    assert made.words.histogram == {
        "1": 1, "2-3": 2, "4-7": 2, "8-15": 2, "16-31": 1,
        "32-63": 0, "64-127": 0, "128-255": 0, "256-511": 0, "512+": 1,
    }  # fmt: skip


def test_a_stored_truncation_does_not_hide_long_texts() -> None:
    tokenizer = Tokenizer(models.WordLevel({"[UNK]": 0, "[CLS]": 1}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.post_processor = processors.TemplateProcessing(single="[CLS] $A", special_tokens=[("[CLS]", 1)])
    tokenizer.enable_truncation(4)
    tokenizer.enable_padding(length=16)
    made = profiled({"text": ["a b c d e f", "a", ""], "label": ["0", "1", "0"]}, tokenizer)
    assert made.tokens is not None
    assert (made.tokens.median, made.tokens.max) == (2, 7)
    assert tokenizer.truncation["max_length"] == 4


def test_a_label_column_with_texts_is_not_listed() -> None:
    rows = [f"private text {i}" for i in range(30)]
    made = profiled({"text": rows, "label": rows})
    assert (made.labels, made.distinct_labels) == ({}, 30)
    assert "private" not in shown(made) + json.dumps(asdict(made))


@pytest.mark.parametrize(("encoding", "block"), [("utf-8", "█"), ("ascii", "#")])
def test_the_output_fits_the_terminal_and_contains_no_text(encoding: str, block: str) -> None:
    page = shown(profile(demo_table(), CorpusSettings()), encoding)
    assert block * 10 in page
    assert max(map(len, page.splitlines())) <= 80
    assert "\x1b" not in page
    assert "খাবার" not in page
    assert "complaint" in page


def test_a_label_that_looks_like_markup_is_printed_unchanged() -> None:
    page = shown(profiled({"text": list("abcdef"), "label": ["[red]x", "[/b]"] * 3}))
    assert "[red]x" in page
    assert "[/b]" in page
