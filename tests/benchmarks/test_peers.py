"""Peers are trained on training rows, choose on validation rows, and are measured as a user would run them."""

import json
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.bench import _predictor
from benchmarks.peers import __main__ as peers, common, nbsvm, scikit_learn, training
from benchmarks.peers.common import Given, Missing, Rows, best_of, rows_of, score
from benchmarks.peers.registry import PEERS
from toolkit.config.settings import CorpusSettings
from toolkit.data.corpus import Corpus, corpus_from_table
from toolkit.data.tables import Table
from toolkit.latency.foreign import PYTHON, load_foreign
from toolkit.latency.measure import Subject, measure
from toolkit.utils.errors import InputError

LIBRARIES = {"fasttext": "fasttext", "vowpal_wabbit": "vowpalwabbit", "scikit_learn": "skops", "nbsvm": "skops"}
"""Peers that need no encoder -> the module that they need."""


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


def test_the_process_of_a_peer_gets_these_rows_and_no_others(
    corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[Rows, str]] = []

    def run(python: Path, spec: Path) -> None:
        found = json.loads(spec.read_text("utf-8"))
        seen.append((Rows.load(Path(found["rows"])), "".join(f.read_text("utf-8") for f in spec.parent.iterdir())))

    monkeypatch.setattr(training, "_run", run)
    assert training.train_peer("nbsvm", rows_of(corpus), tmp_path, Given()) is None
    (found, given), rows = seen[0], rows_of(corpus)
    assert (found.texts, found.labels, found.validation_texts) == (rows.texts, rows.labels, rows.validation_texts)
    assert found.validation_labels.tolist() == rows.validation_labels.tolist()
    assert not any(text in given for text in corpus.take(corpus.rows("test")))


def test_the_setting_with_the_best_macro_f1_on_validation_rows_is_used(corpus: Corpus) -> None:
    rows = rows_of(corpus)

    def label(model: str) -> common.Label:
        return lambda texts: [("sea" if "sea" in text else "sun") if model == "good" else "sun" for text in texts]

    found = best_of(rows, [{"name": "bad"}, {"name": "good"}, {"name": "worse"}], lambda each: each["name"], label)
    assert found == ("good", {"name": "good"}, 1.0)
    assert score(rows, label("bad")) == pytest.approx(1 / 3)


@pytest.mark.slow
@pytest.mark.parametrize("peer", LIBRARIES)
def test_a_peer_learns_and_its_file_answers_alike(
    corpus: Corpus, peer: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip(LIBRARIES[peer])
    monkeypatch.setattr(scikit_learn, "PENALTIES", dict.fromkeys(scikit_learn.PENALTIES, (1.0,)))
    monkeypatch.chdir(tmp_path)
    Path(peer).mkdir()
    facts = training.train_here(PEERS[peer], rows_of(corpus), Path(peer), Given())
    assert facts["validation"] == dict.fromkeys(PEERS[peer].models, 1.0)
    assert facts["cpu_seconds"] > 0
    rows = corpus.rows("test")
    for model in PEERS[peer].models:
        subject = peers._subject(peer, model, corpus, None)
        assert subject.size_bytes > 100
        loaded: Any = load_foreign(PYTHON, subject.path, 1, corpus.label_names)
        probabilities = loaded.predict_proba(corpus.take(rows))
        np.testing.assert_array_equal(probabilities.argmax(axis=1), corpus.labels[rows])


def test_what_was_trained_is_not_trained_again(corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[Path] = []
    monkeypatch.setattr(training, "_run", lambda python, spec: calls.append(spec))
    for _ in range(2):
        assert training.train_peer("nbsvm", rows_of(corpus), tmp_path, Given()) is None
    assert len(calls) == 1


def test_a_peer_that_fails_leaves_a_reason_and_no_folder(corpus: Corpus, tmp_path: Path) -> None:
    reason = training.train_peer("model2vec", rows_of(corpus), tmp_path, Given())
    assert reason is not None
    assert reason.startswith("not run: ")
    assert "--encoder" in reason or "model2vec" in reason  # the library is absent, or what it starts from
    assert not (tmp_path / "model2vec").exists()


def test_a_peer_of_another_environment_says_how_to_give_it(corpus: Corpus, tmp_path: Path) -> None:
    reason = training.train_peer("optimum", rows_of(corpus), tmp_path, Given())
    assert reason == "not run: needs an environment of its own, --python optimum=PYTHON"
    missing = training.train_peer("optimum", rows_of(corpus), tmp_path, Given(), tmp_path / "no" / "python")
    assert missing is not None and "no/python" in missing


@pytest.mark.parametrize("given", ["optimum", "other=python", "optimum=no-such-file"])
def test_a_wrong_environment_is_one_line(given: str) -> None:
    with pytest.raises(InputError, match="--python"):
        peers._pythons([given])


def test_a_model_of_another_environment_is_measured_there(
    corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other interpreter sets a variable, by which the function knows that it runs there."""
    if os.name == "nt":
        pytest.skip("needs a shell script")
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\nELSEWHERE=sea exec {sys.executable} "$@"\n', "utf-8")
    python.chmod(0o755)
    code = "import os\n\n\ndef label(texts):\n    return [os.environ.get('ELSEWHERE', 'sun') for _ in texts]\n"
    (tmp_path / f"function_{tmp_path.name}.py").write_text(code, "utf-8")
    monkeypatch.chdir(tmp_path)
    path = Path(f"function_{tmp_path.name}.label")
    for interpreter, label in ((python, "sea"), (None, "sun")):
        predictor = _predictor(Subject("model", "python", path, 0, interpreter), corpus)
        probabilities = predictor.predict_proba(["a", "b", "c"])
        assert probabilities.argmax(axis=1).tolist() == [corpus.label_names.index(label)] * 3
    (found,) = measure([Subject("model", "python", path, 0, python)], ["a", "b"] * 15, rounds=1)
    assert found.samples == 30


def test_log_count_ratios_are_those_of_the_paper() -> None:
    sparse = pytest.importorskip("scipy.sparse")
    features = np.array([[1, 1, 0], [1, 0, 0], [0, 1, 1]], dtype=float)
    target = np.array([1, 1, 0])
    p, q = 1 + features[target == 1].sum(0), 1 + features[target == 0].sum(0)
    expected = np.log((p / p.sum()) / (q / q.sum()))
    found = nbsvm.LogCountRatio().fit(sparse.csr_matrix(features), target).transform(sparse.csr_matrix(features))
    np.testing.assert_allclose(found.toarray(), features * expected)


def test_every_peer_is_in_the_figure_and_has_its_own_models() -> None:
    models = [model for peer in PEERS.values() for model in peer.models]
    assert len(models) == len({*models})
    assert {peer.group for peer in PEERS.values()} == {"words", "compressed"}


def test_what_is_missing_is_named(corpus: Corpus, tmp_path: Path) -> None:
    from benchmarks.peers.compressed import fastformers, torch_padded

    for module in (torch_padded, fastformers):
        with pytest.raises(Missing, match="--teacher"):
            module.train(rows_of(corpus), tmp_path, Given())
    with pytest.raises(Missing, match="--student"):
        fastformers.train(rows_of(corpus), tmp_path, Given(teacher=tmp_path))
