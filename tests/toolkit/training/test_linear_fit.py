"""The linear baseline equals an independent NBSVM, and its choices are made out of fold."""

import dataclasses

import numpy as np
import pytest
from scipy.sparse import csr_matrix
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression

from tests.toolkit.modeling.test_linear import corpus_of
from toolkit.config.settings import CorpusSettings
from toolkit.data.corpus import Corpus, corpus_from_table
from toolkit.data.tables import Table
from toolkit.evaluation.metrics import softmax
from toolkit.evaluation.rule_choice import choose_rule
from toolkit.training import linear_fit, nbsvm
from toolkit.training.linear_fit import LinearSettings, fit_linear

STEPS = linear_fit.STEPS  # before conftest.py shortens the search for all other tests


@pytest.fixture
def search(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(linear_fit, "STEPS", STEPS)


@pytest.fixture(scope="module")
def noisy() -> Corpus:
    """300 rows with one rare label of three, and a word that tells the label in four of five rows."""
    dice = np.random.default_rng(2)
    labels = dice.choice(3, size=300, p=[0.6, 0.3, 0.1])
    words = np.where(dice.random(300) < 0.8, labels, dice.integers(3, size=300))
    texts = [f"{('sea', 'sun', 'wood')[words[i]]} number {i} of the made-up texts" for i in range(300)]
    table = Table("noisy", {"text": texts, "label": [("sea", "sun", "wood")[label] for label in labels]})
    return corpus_from_table(table, CorpusSettings(folds=3))


def reference(corpus: Corpus, rows: np.ndarray, texts: list[str], how: LinearSettings) -> np.ndarray:
    """Outputs (texts, labels or 1) of NBSVM with scikit-learn, fitted on `rows`."""
    train = corpus.rows("train")
    tfidf = TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 5), min_df=2, sublinear_tf=True)
    tfidf.fit([text.lower() for text in corpus.take(train)])
    matrix, new = (tfidf.transform([t.lower() for t in each]) for each in (corpus.take(rows), texts))
    seen = (matrix > 0).astype(float)
    outputs = []
    for label in [1] if len(corpus.label_names) == 2 else range(len(corpus.label_names)):
        mine = corpus.labels[rows] == label
        p, q = (1 + np.asarray(seen[chosen].sum(0)).ravel() for chosen in (mine, ~mine))
        ratio = np.log(p / p.sum()) - np.log(q / q.sum()) if how.log_ratio else np.ones(matrix.shape[1])
        weights = "balanced" if how.balanced else None
        model = LogisticRegression(C=how.C, class_weight=weights, tol=1e-6, max_iter=5000)
        model.fit(csr_matrix(matrix.multiply(ratio)), mine)
        outputs.append(new @ (model.coef_[0] * ratio) + model.intercept_[0])
    return np.stack(outputs, axis=1)


@pytest.mark.parametrize("labels", [("sea", "sun"), ("sea", "sun", "wood")])
@pytest.mark.parametrize("how", [LinearSettings(), LinearSettings(C=1.0, log_ratio=False, balanced=True)], ids=str)
def test_the_models_are_those_of_an_independent_nbsvm(
    labels: tuple[str, ...], how: LinearSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(linear_fit, "STEPS", ())
    monkeypatch.setattr(linear_fit, "START", how)
    corpus = corpus_of(labels, 96)
    found = fit_linear(corpus)
    assert found.settings == how
    texts = [f"{word} {place}" for word in ("sea", "sun", "wood", "salt") for place in ("hill", "river", "?")]
    train = corpus.rows("train")
    cases = [(-1, train), *((fold, train[corpus.fold[train] != fold]) for fold in range(corpus.folds))]
    for fold, rows in cases:
        expected = reference(corpus, rows, texts, how)
        logits = found.logits(texts, np.full(len(texts), fold))
        outputs = logits[:, 1:] - logits[:, :1] if len(labels) == 2 else logits
        scale = (outputs * expected).sum() / (expected**2).sum()  # calibration multiplies all logits by one number
        assert scale > 0
        np.testing.assert_allclose(outputs, scale * expected, atol=0.01 * np.abs(outputs).max())


def test_the_best_setting_out_of_fold_is_used_and_the_rule_comes_from_held_out_rows(
    noisy: Corpus, search: None
) -> None:
    found = fit_linear(noisy)
    nearly = max(trial.score.macro_f1 for trial in found.trials) - 0.005
    good = [trial for trial in found.trials if trial.score.macro_f1 >= nearly]
    assert found.settings == min(good, key=lambda trial: trial.score.log_loss).settings
    assert len({trial.settings for trial in found.trials}) == len(found.trials) == 9
    train, validation = noisy.rows("train"), noisy.rows("validation")
    rows = np.concatenate([train, validation])
    logits = found.logits(noisy.take(rows), np.maximum(noisy.fold[rows], -1)).astype(np.float64)
    expected = choose_rule(noisy.labels[rows], softmax(logits))
    assert found.choice.method == expected.method
    assert found.choice.rows == len(rows)
    assert found.choice.gain == pytest.approx(expected.gain, abs=1e-3)
    assert found.model.rule == found.choice.rule


def test_test_rows_change_nothing(noisy: Corpus, search: None) -> None:
    labels, texts = noisy.labels.copy(), list(noisy.texts)
    for row in noisy.rows("test"):
        labels[row], texts[row] = (labels[row] + 1) % 3, "another text"
    first, second = fit_linear(noisy), fit_linear(dataclasses.replace(noisy, labels=labels, texts=texts))
    assert (first.settings, first.choice) == (second.settings, second.choice)
    np.testing.assert_array_equal(first.model.weights, second.model.weights)


def test_probabilities_are_calibrated_out_of_fold(noisy: Corpus) -> None:
    found, train = fit_linear(noisy), noisy.rows("train")
    logits = found.logits(noisy.take(train), noisy.fold[train]).astype(np.float64)

    def loss(scale: float) -> float:
        return float(-np.log(softmax(scale * logits)[np.arange(len(train)), noisy.labels[train]]).mean())

    assert loss(1) < min(loss(0.7), loss(1.4))


def test_known_settings_are_used_without_a_search(noisy: Corpus, search: None) -> None:
    searched = fit_linear(noisy)
    known = fit_linear(noisy, searched.settings)
    assert [trial.settings for trial in known.trials] == [searched.settings]
    assert known.choice == searched.choice
    np.testing.assert_array_equal(known.model.weights, searched.model.weights)


@pytest.mark.parametrize(("raced", "fits"), [(0, 3 + 1 + 3 + 1), (2**25, 3 + 3 + 3 + 1)])
def test_of_a_large_corpus_a_setting_that_is_behind_is_fitted_on_one_fold_only(
    noisy: Corpus, raced: int, fits: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    useless, fit, calls = 1.0, linear_fit._weights, []

    def weights(matrix: csr_matrix, labels: np.ndarray, count: int, settings: LinearSettings) -> nbsvm.Outputs:
        calls.append(settings.C)
        found = fit(matrix, labels, count, settings)
        return (np.zeros_like(found[0]), found[1]) if useless == settings.C else found

    monkeypatch.setattr(linear_fit, "STEPS", (({"C": useless}, {"C": 3.0}),))
    monkeypatch.setattr(linear_fit, "_weights", weights)
    monkeypatch.setattr(nbsvm, "RACED", raced)
    found = fit_linear(noisy)
    assert len(calls) == fits
    assert {trial.settings.C for trial in found.trials} == {4.0, 3.0} | ({useless} if raced else set())
    assert found.settings.C in (4.0, 3.0)


def test_folds_that_are_fitted_side_by_side_are_those_that_are_fitted_in_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    """LIBLINEAR has one source of random numbers for all threads; fits of a second show it."""
    dice = np.random.default_rng(0)
    matrix = csr_matrix(dice.random((3000, 3000)) * (dice.random((3000, 3000)) < 0.1), dtype=np.float32)
    labels, folds = dice.integers(2, size=3000), np.arange(3000) % 4

    def fit(fold: int) -> nbsvm.Outputs:
        return nbsvm.fit_outputs(matrix[folds != fold], [labels[folds != fold]], 1.0, loss="hinge")

    found = []
    for cores in (1, 4):
        monkeypatch.setattr(nbsvm, "usable_cores", lambda cores=cores: cores)
        found.append(nbsvm.out_of_fold(matrix, labels, folds, fit).logits)
    assert found[0].tobytes() == found[1].tobytes()
