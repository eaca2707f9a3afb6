from pathlib import Path

import numpy as np
import pandas
import pytest

from tests.helpers import Finished, random_logits
from toolkit.data.corpus import Corpus, load_corpus
from toolkit.evaluation.comparison import Contender, versus
from toolkit.evaluation.decision_rule import DecisionRule
from toolkit.evaluation.metrics import softmax
from toolkit.evaluation.predictions import Predictions
from toolkit.stages.result import StageResult


def labels_of(stage: Path, corpus: Corpus) -> np.ndarray:
    result = StageResult.load(stage)
    logits = Predictions.load(stage / result.predictions).of(corpus.rows("test"))
    return result.rule.predict(softmax(logits))


def test_two_stages_are_compared_on_test_rows_only(toy: Corpus) -> None:
    rows = toy.rows("all")
    logits = random_logits(len(rows))
    swapped = logits[:, ::-1].copy()
    test = np.searchsorted(rows, toy.rows("test"))
    mixed = swapped.copy()
    mixed[test] = logits[test]
    mixed[test[:7]] = swapped[test[:7]]
    b, a = (Contender(n, Predictions(rows, each), DecisionRule(0.5)) for n, each in (("b", mixed), ("a", logits)))
    found = versus(toy, b, a)
    assert (found.b, found.a, found.comparison.rows) == ("b", "a", len(test))
    assert found.comparison.agreement == pytest.approx(1 - 7 / len(test))


def test_each_model_uses_its_own_rule(toy: Corpus) -> None:
    rows = toy.rows("test")
    same = Predictions(rows, np.tile(np.log([[0.6, 0.4]]), (len(rows), 1)).astype(np.float32))
    found = versus(toy, Contender("b", same, DecisionRule(0.3)), Contender("a", same, DecisionRule(0.5)))
    assert found.comparison.agreement == 0.0
    right = (toy.labels[rows] == 1).sum()
    assert (found.comparison.only_b_right, found.comparison.only_a_right) == (right, len(rows) - right)


def test_a_run_compares_its_stages_with_linear_baseline_and_teacher(at_home: Finished) -> None:
    corpus = load_corpus(at_home.recipe.corpus)
    found = {(each.b, each.a): each.comparison for each in at_home.outcome.comparisons}
    pairs = {pair for pair in found if "student" in pair[0]}
    assert len(pairs) >= 2
    student, teacher = (labels_of(at_home.run / name, corpus) for name in ("2-distillation", "1-baseline"))
    ensemble = next(found[pair] for pair in pairs if "ensemble" in pair[1])
    assert ensemble.agreement == pytest.approx((student == teacher).mean())
    linear = labels_of(at_home.run / "0-floor", corpus)
    against_linear = next(found[pair] for pair in pairs if "linear baseline" in pair[1])
    truth = corpus.labels[corpus.rows("test")]
    assert against_linear.only_b_right == int(((student == truth) & (linear != truth)).sum())


def test_the_comparisons_are_saved_as_a_table(at_home: Finished) -> None:
    table = pandas.read_csv(at_home.run / "outputs" / "comparisons.csv")
    assert len(table) == len(at_home.outcome.comparisons) > 3
    allowed = {"equivalent", "worse", "better", "inconclusive"}
    verdicts = next(table[name] for name in table.columns if name.lower() == "verdict")
    assert set(verdicts) <= allowed
