"""Texts unlike the training texts are flagged, and few of those that are like them."""

import json
import random
import subprocess
import sys
from pathlib import Path

import cloudpickle
import numpy as np
import pytest

from toolkit.config.settings import CorpusSettings
from toolkit.data.corpus import Corpus, corpus_from_table
from toolkit.data.demo import demo_table
from toolkit.data.tables import Table
from toolkit.evaluation.reliability import scope as scope_module
from toolkit.evaluation.reliability.scope import FEW, REASONS, Scope
from toolkit.evaluation.reliability.scope_file import known_from, limits_at, scope_facts, scope_of
from toolkit.utils import letters

SYLLABLES = ["ka", "to", "mi", "re", "su", "lo", "na", "vi"]


def made_up(rows: int, seed: int) -> list[str]:
    """Sentences of made-up words: all trigrams are known after some hundred of them."""
    draw = random.Random(seed)
    return [
        " ".join("".join(draw.choices(SYLLABLES, k=draw.randint(1, 3))) for _ in range(draw.randint(3, 9)))
        for _ in range(rows)
    ]


@pytest.fixture(scope="module")
def corpus() -> Corpus:
    texts = made_up(1200, 1)
    table = Table("made-up", {"text": texts, "label": [str(i % 2) for i in range(len(texts))]})
    return corpus_from_table(table, CorpusSettings(folds=2))


@pytest.fixture(scope="module")
def scope(corpus: Corpus) -> Scope:
    return Scope(scope_of(corpus))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("kato mire sulo", ""),
        ("KATO Mire sulo", ""),
        ("খাবারটা মোটেও খারাপ না", "script"),
        ("kato 東京都 東京都 東京都", "script"),
        ("☃☃☃☃☃☃☃☃ kato", "characters"),
        ("kkttmm rrssll nnvvkk ttmmrr", "n-grams"),  # its letters in an order that no text has
        ("", ""),
        ("\u200b \n", ""),
    ],
)
def test_a_text_is_flagged_for_what_the_training_texts_lack(scope: Scope, text: str, reason: str) -> None:
    assert scope.reasons([text]) == [reason]
    assert scope.reasons(["kato", text, "mire sulo"])[1] == reason, "other texts of a batch make no difference"


def test_shares_are_those_counted_by_hand(scope: Scope) -> None:
    known = "kato mire"
    ((script, characters, ngrams),) = scope.shares([known])
    assert (script, characters, ngrams) == (0, 0, 0)
    ((script, characters, ngrams),) = scope.shares([f"{known} жж"])
    assert script == pytest.approx(2 / 10)
    assert characters == pytest.approx(2 / (10 + FEW))
    assert ngrams == pytest.approx(2 / (10 + FEW)), "each visible character is the middle of one trigram"


def test_both_spellings_of_a_letter_are_alike() -> None:
    texts = [f"ড\u09bc দ সংখ্যা {i}" for i in range(60)]
    table = Table("made-up", {"text": texts, "label": [str(i % 2) for i in range(60)]})
    found = Scope(scope_of(corpus_from_table(table, CorpusSettings(folds=2))))
    assert np.array_equal(found.shares(["\u09dc দ"]), found.shares(["ড\u09bc দ"]))


def test_few_held_out_texts_are_flagged_and_test_rows_choose_nothing(corpus: Corpus, scope: Scope) -> None:
    fresh = made_up(4000, 2)
    flagged = sum(map(bool, scope.reasons(fresh))) / len(fresh)
    assert flagged <= 0.02, "wanted: at most 0.01"
    changed = [f"жжжж {text}" if corpus.fold[i] == -1 else text for i, text in enumerate(corpus.texts)]
    other = Corpus(**{**corpus.__dict__, "texts": changed})
    assert scope_of(other) == scope_of(corpus)
    facts = scope_facts(other, scope, scope_of(corpus))["test"]
    assert facts["rows"] == len(corpus.rows("test"))
    assert facts["flagged"] == sum(facts["reasons"].values()) > 0


def test_what_few_texts_have_is_not_known() -> None:
    assert [known_from(texts) for texts in (10, 2000, 2001, 50_000)] == [2, 2, 3, 50]
    texts = made_up(600, 3)
    texts[7] = "এটা একটা বাংলা বাক্য"
    table = Table("made-up", {"text": texts, "label": [str(i % 2) for i in range(600)]})
    assert scope_of(corpus_from_table(table, CorpusSettings(folds=2)))["scripts"] == ["LATIN"]


def test_limits_are_order_statistics_of_held_out_shares() -> None:
    ngrams = np.arange(999) / 1000
    shares = np.stack([np.zeros(999), np.zeros(999), ngrams], axis=1)
    limits = limits_at(shares, 0.01)
    assert limits == {"script": 0.5, "characters": 0.2, "n-grams": pytest.approx(0.989)}
    assert (ngrams > limits["n-grams"]).sum() == 9, "the tenth largest of 999: one more is above it with 10 in 1,000"
    shares[:2, 0] = 1.0  # two texts in another script leave eight
    assert limits_at(shares, 0.01)["n-grams"] == pytest.approx(0.991)
    assert set(limits_at(shares[:50], 0.01).values()) == {None}, "50 texts cannot show a rate of 1 in 100"


def test_the_file_has_no_texts(corpus: Corpus) -> None:
    content = json.dumps(scope_of(corpus))
    assert len(content) < 10_000
    words = {word for text in corpus.texts for word in text.split() if len(word) > 5}
    assert not any(word in content for word in words)


@pytest.mark.parametrize(
    "change",
    [
        {"ngrams": "no base64 !"},
        {"ngrams": "QUJD"},
        {"characters": [[1]]},
        {"limits": {"script": 0.5}},
        {"limits": {"script": 0.5, "characters": "x", "n-grams": 0.1}},
        {"scripts": None},
    ],
)
def test_a_malformed_file_is_a_value_error(corpus: Corpus, change: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"scope\.json is malformed"):
        Scope(scope_of(corpus) | change)


def test_it_works_where_hbt_is_not_installed(scope: Scope, tmp_path: Path) -> None:
    scope.reasons(["kato"])  # fills its tables, which are not sent
    for module in (scope_module, letters):  # as for the workers of a cluster
        cloudpickle.register_pickle_by_value(module)
    try:
        sent = cloudpickle.dumps(scope)
    finally:
        for module in (scope_module, letters):
            cloudpickle.unregister_pickle_by_value(module)
    assert len(sent) < 100_000
    (tmp_path / "scope.pickle").write_bytes(sent)
    code = (
        "import pickle, sys; scope = pickle.load(open('scope.pickle', 'rb'));"
        "print(scope.reasons(['kato', 'খাবারটা মোটেও']), [m for m in sys.modules if m.startswith('toolkit')])"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-c", code], cwd=tmp_path, capture_output=True, text=True, encoding="utf-8", check=True
    )
    assert done.stdout.strip() == "['', 'script'] []"


def test_a_corpus_in_another_script_knows_its_own() -> None:
    table = demo_table()
    corpus = corpus_from_table(table, CorpusSettings(data="demo"))
    found = Scope(scope_of(corpus))
    assert found.scripts == {"BENGALI"}
    assert found.reasons(["This is an English sentence."]) == ["script"]
    assert set(REASONS) == {"script", "characters", "n-grams"}
