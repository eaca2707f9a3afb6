"""Peers are trained on training rows, choose on validation rows, and are measured as a user would run them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.peers import __main__ as peers, common, scikit_learn
from benchmarks.peers.common import best_of, rows_of, score
from toolkit.config.settings import CorpusSettings
from toolkit.data.corpus import Corpus, corpus_from_table
from toolkit.data.tables import Table
from toolkit.latency.foreign import PYTHON, load_foreign


@pytest.fixture(scope="module")
def corpus() -> Corpus:
    texts = [f"{('sea water', 'sun light')[i % 2]} number {i} of the made-up texts" for i in range(240)]
    table = Table("made-up", {"text": texts, "label": [("sea", "sun")[i % 2] for i in range(240)]})
    return corpus_from_table(table, CorpusSettings(folds=2))


def test_no_peer_sees_test_rows(corpus: Corpus) -> None:
    rows = rows_of(corpus)
    test = {*corpus.take(corpus.rows("test"))}
    assert not test & {*rows.texts, *rows.validation_texts}
    assert len(rows.texts) + len(rows.validation_texts) + len(test) == 240
    assert all(("sea" in text) == (label == "sea") for text, label in zip(rows.texts, rows.labels, strict=True))


def test_the_setting_with_the_best_macro_f1_on_validation_rows_is_used(corpus: Corpus) -> None:
    rows = rows_of(corpus)

    def label(model: str) -> common.Label:
        return lambda texts: [("sea" if "sea" in text else "sun") if model == "good" else "sun" for text in texts]

    found = best_of(rows, [{"name": "bad"}, {"name": "good"}, {"name": "worse"}], lambda each: each["name"], label)
    assert found == ("good", {"name": "good"}, 1.0)
    assert score(rows, label("bad")) == pytest.approx(1 / 3)


@pytest.mark.slow
@pytest.mark.parametrize("peer", peers.PEERS)
def test_a_peer_learns_and_its_file_answers_alike(
    corpus: Corpus, peer: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    needed = {"fasttext": "fasttext", "vowpal_wabbit": "vowpalwabbit", "scikit_learn": "skops"}
    if peer not in needed:
        pytest.skip("needs an encoder")
    pytest.importorskip(needed[peer])
    monkeypatch.setattr(scikit_learn, "PENALTIES", dict.fromkeys(scikit_learn.PENALTIES, (1.0,)))
    monkeypatch.chdir(tmp_path)
    for line in peers._trained(peer, corpus, tmp_path, None):
        assert line["validation_macro_f1"] == 1
    rows = corpus.rows("test")
    for variant in peers.PEERS[peer]:
        subject = peers._subject(peer, variant, corpus)
        assert subject.size_bytes > 100
        model: Any = load_foreign(PYTHON, subject.path, 1, corpus.label_names)
        probabilities = model.predict_proba(corpus.take(rows))
        np.testing.assert_array_equal(probabilities.argmax(axis=1), corpus.labels[rows])


def test_what_was_trained_is_not_trained_again(corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[Sequence[str]] = []

    def train(rows: common.Rows, folder: Path, encoder: Path | None) -> dict[str, Any]:
        calls.append(rows.texts)
        return {"settings": {}, "validation": dict.fromkeys(peers.PEERS["scikit_learn"], 0.5)}

    monkeypatch.setattr(scikit_learn, "train", train)
    first = peers._trained("scikit_learn", corpus, tmp_path, None)
    assert peers._trained("scikit_learn", corpus, tmp_path, None) == first
    assert len(calls) == 1
