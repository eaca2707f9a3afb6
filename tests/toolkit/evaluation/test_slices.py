"""What compression forgot: which slices there are, and that a loss on one of them is found and is no accident."""

from dataclasses import replace
from itertools import permutations
from math import comb

import numpy as np
import pytest

from toolkit.config.settings import CorpusSettings
from toolkit.data.corpus import Corpus, corpus_from_table
from toolkit.data.tables import Table
from toolkit.evaluation.comparison import Contender
from toolkit.evaluation.decision_rule import DecisionRule
from toolkit.evaluation.predictions import Predictions
from toolkit.evaluation.significance import holm, mcnemar_p
from toolkit.evaluation.slices import LEAST_ROWS, compare_on_slices, script_of, slices_of

BANGLA, LATIN = "ভালো বই", "a good book"


@pytest.fixture(scope="module")
def corpus() -> Corpus:
    """1,200 rows, half of them in Bangla; a third of them end with a word of their own."""
    texts = [f"{(BANGLA, LATIN)[i % 2]} {i % 7} " + (f"w{i}" if i % 3 == 0 else f"tail {i}" * 9) for i in range(1200)]
    labels = [("no", "yes")[i // 2 % 2] for i in range(1200)]
    table = Table("made-up", {"text": texts, "label": labels, "kind": [f"k{i % 5}" for i in range(1200)]})
    return corpus_from_table(table, CorpusSettings(folds=2, slice=("kind",)))


def contender(corpus: Corpus, wrong: np.ndarray, name: str = "a", sure: float = 4.0) -> Contender:
    """A model that is wrong on the given rows and right on all others."""
    rows = np.arange(len(corpus.texts))
    labels = np.where(np.isin(rows, wrong), 1 - corpus.labels, corpus.labels)
    return Contender(name, Predictions(rows, (sure * np.eye(2)[labels]).astype(np.float32)), DecisionRule(0.5))


def test_a_script_that_b_forgot_comes_first_and_is_no_accident(corpus: Corpus) -> None:
    test = corpus.rows("test")
    forgotten = np.array([row for row in test if script_of(corpus.texts[row]) == "Bengali"])[:12]
    report = compare_on_slices(corpus, contender(corpus, forgotten, "b"), contender(corpus, np.array([], dtype=int)))
    first, *others = report.slices
    assert (first.kind, first.name, first.verdict) == ("script", "Bengali", "worse")
    assert (first.only_a_right, first.only_b_right) == (12, 0)
    assert first.p == pytest.approx(2 / 2**12)
    assert first.b_accuracy == pytest.approx(1 - 12 / first.rows)
    (latin,) = [each for each in others if each.name == "Latin"]
    assert (latin.difference, latin.verdict) == (0.0, "within chance")
    assert report.lost == tuple(forgotten) and report.gained == report.changed == ()
    assert first.p_holm >= first.p * (len(report.slices) - 1)


def test_the_same_model_is_worse_nowhere(corpus: Corpus) -> None:
    same = contender(corpus, corpus.rows("test")[:30])
    report = compare_on_slices(corpus, same, same)
    assert {each.verdict for each in report.slices} == {"within chance"}
    assert (report.lost, report.gained, report.changed) == ((), (), ())


def test_slices_partition_the_test_rows_by_kind(corpus: Corpus) -> None:
    found = dict(slices_of(corpus, contender(corpus, np.array([], dtype=int))))
    assert {kind for kind, _ in found} == {"label", "slice", "words", "script", "rare words", "duplicates", "teacher"}
    for kind in {kind for kind, _ in found}:
        masks = np.stack([mask for (each, _), mask in found.items() if each == kind])
        assert (masks.sum(axis=0) == 1).all(), kind
    assert ("slice", "kind=k3") in found


def test_slices_that_decide_nothing_are_left_out(corpus: Corpus) -> None:
    test = corpus.rows("test")
    few, most = (
        np.isin(np.arange(len(corpus.texts)), rows) for rows in (test[: LEAST_ROWS - 1], test[LEAST_ROWS - 1 :])
    )
    cut = replace(corpus, slices={"few": few, "most": most})
    right = contender(cut, np.array([], dtype=int))
    assert not [each for each in compare_on_slices(cut, right, right).slices if each.kind == "slice"]


def test_the_rows_on_which_the_teacher_was_unsure(corpus: Corpus) -> None:
    test = corpus.rows("test")
    teacher = contender(corpus, np.array([], dtype=int))
    unsure = np.isin(teacher.predictions.rows, test[:20])
    logits = np.where(unsure[:, None], 0.1, 1.0) * teacher.predictions.logits
    teacher = replace(teacher, predictions=Predictions(teacher.predictions.rows, logits))
    found = dict(slices_of(corpus, teacher))
    assert found["teacher", "least sure 20%"][:20].all()


@pytest.mark.parametrize(
    ("text", "script"),
    [
        (BANGLA, "Bengali"),
        (LATIN, "Latin"),
        ("12 🙂 !", "no letters"),
        ("ভালো good", "mixed scripts"),
        ("кот", "Cyrillic"),
    ],
)
def test_script_of_a_text(text: str, script: str) -> None:
    assert script_of(text) == script


@pytest.mark.parametrize(("only_a", "only_b"), [(0, 0), (3, 1), (9, 0), (14, 5)])
def test_mcnemar_counts_fair_coins(only_a: int, only_b: int) -> None:
    coins = only_a + only_b
    at_most = [k for k in range(coins + 1) if comb(coins, k) <= comb(coins, only_a)]
    assert mcnemar_p(only_a, only_b) == pytest.approx(sum(comb(coins, k) for k in at_most) / 2**coins)


def closed_tests(p_values: tuple[float, ...]) -> list[float]:
    """Holm's procedure as the closed test of Bonferroni tests: a hypothesis falls if every set with it falls."""
    sets = [s for bits in range(1, 2 ** len(p_values)) if (s := [i for i in range(len(p_values)) if bits >> i & 1])]
    return [max(min(1.0, len(s) * min(p_values[i] for i in s)) for s in sets if k in s) for k in range(len(p_values))]


@pytest.mark.parametrize("p_values", [*permutations((0.01, 0.02, 0.03, 0.5)), (0.04,), (0.02, 0.02, 0.9, 0.0)])
def test_holm_is_the_closed_test(p_values: tuple[float, ...]) -> None:
    assert holm(p_values) == pytest.approx(closed_tests(p_values))


def test_holm_of_nothing() -> None:
    assert holm([]) == []
