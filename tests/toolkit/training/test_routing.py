"""The arithmetic of a cascade, against sums written out by hand."""

from dataclasses import replace

import numpy as np
import pytest
from sklearn.isotonic import IsotonicRegression

from toolkit.evaluation.decision_rule import DecisionRule
from toolkit.evaluation.metrics import macro_f1, softmax
from toolkit.training.nbsvm import log_loss
from toolkit.training.routing import (
    NEARLY_ALL,
    SHARES,
    Parts,
    Routing,
    at_shares,
    choose_routing,
    expected_gains,
    fit_blend,
    margins,
)

ROWS = 400


def made_up(labels: int, ngram_noise: float, transformer_noise: float, seed: int = 0) -> Parts:
    """Logits of two parts with independent errors."""
    random = np.random.default_rng(seed)
    truth = random.integers(labels, size=ROWS)
    target = 2.0 * np.eye(labels)[truth]
    logits = [target + noise * random.normal(size=(ROWS, labels)) for noise in (ngram_noise, transformer_noise)]
    first, second = (each.astype(np.float32) for each in logits)
    return Parts(truth, first, second, 0.1, 2.0)


@pytest.mark.parametrize("labels", [2, 5])
def test_the_sum_of_both_logits_is_better_than_either(labels: int) -> None:
    parts = made_up(labels, 2.0, 1.5)
    first, second = fit_blend(parts.labels, parts.ngram, parts.transformer)
    loss = log_loss(parts.labels, first * parts.ngram + second * parts.transformer)
    scales = np.geomspace(0.05, 20, 200)
    alone = [min(log_loss(parts.labels, s * each) for s in scales) for each in (parts.ngram, parts.transformer)]
    assert loss < min(alone) - 0.02
    assert min(first, second) > 0


def test_a_part_that_knows_nothing_has_no_weight() -> None:
    parts = made_up(3, 1.5, 1.5)
    noise = np.random.default_rng(1).normal(size=(ROWS, 3)).astype(np.float32)
    assert fit_blend(parts.labels, noise, parts.transformer)[0] == 0.0
    first, second = fit_blend(parts.labels, parts.ngram, noise)
    assert second * np.abs(noise).mean() < 0.1 * first * np.abs(parts.ngram).mean()


@pytest.mark.parametrize(
    ("labels", "rule"), [(2, DecisionRule(0.2)), (4, DecisionRule(offsets=(0.5, -0.3, 0.0, 1.0))), (3, DecisionRule())]
)
def test_the_texts_nearest_to_the_decision_boundary_go_on(labels: int, rule: DecisionRule) -> None:
    parts = made_up(labels, 2.0, 1.0)
    routing = at_shares(parts, Routing(0.0, rule.logit_offsets(labels), 0.5, 0.5))[SHARES.index(0.3)]
    deferred = routing.deferred(parts.ngram)
    assert deferred.sum() == 0.3 * ROWS
    # How far each row is from another label at this rule, by trying: the smallest change that flips it.
    probabilities = softmax(parts.ngram.astype(np.float64))
    predicted = rule.predict(probabilities)
    apart = np.empty(ROWS)
    for row in range(ROWS):
        steps = np.linspace(0.0, 12.0, 2_401)
        moved = np.repeat(parts.ngram[row][None].astype(np.float64), len(steps), axis=0)
        flips = []
        for other in set(range(labels)) - {int(predicted[row])}:
            changed = moved.copy()
            changed[:, other] += steps
            flips.append(steps[int((rule.predict(softmax(changed)) != predicted[row]).argmax())])
        apart[row] = min(flips)
    assert apart[deferred].max() <= apart[~deferred].min() + 0.011


def test_a_text_that_stays_has_the_logits_of_the_ngram_student() -> None:
    parts = made_up(3, 2.0, 1.0)
    routing = Routing(0.5, (0.0, 0.1, 0.2), 0.4, 0.7)
    found = routing.logits(parts.ngram, parts.transformer)
    for row in range(ROWS):
        *_, second, best = sorted(a + b for a, b in zip(parts.ngram[row].tolist(), routing.offsets, strict=True))
        blend = 0.4 * parts.ngram[row] + 0.7 * parts.transformer[row]
        np.testing.assert_allclose(found[row], blend if best - second < 0.5 else parts.ngram[row], rtol=1e-6)


@pytest.mark.parametrize("labels", [2, 4])
def test_the_expected_gain_is_the_probability_given_away_by_staying(labels: int) -> None:
    parts = made_up(labels, 2.0, 1.0)
    rule = DecisionRule(0.3) if labels == 2 else DecisionRule(offsets=(0.5, -0.3, 0.0, 1.0))
    found = expected_gains(parts, Routing(1.0, rule.logit_offsets(labels), 0.4, 0.7))
    for row in range(ROWS):
        scores = 0.4 * parts.ngram[row] + 0.7 * parts.transformer[row] + np.array(rule.logit_offsets(labels))
        probability = np.exp(scores) / np.exp(scores).sum()
        stays = rule.predict(softmax(parts.ngram[row][None].astype(np.float64)))[0]
        assert found[row] == pytest.approx(probability.max() - probability[stays], rel=1e-4, abs=1e-6)


@pytest.mark.parametrize(("labels", "ngram_noise", "transformer_noise"), [(2, 2.0, 1.0), (4, 1.2, 1.2), (4, 2.0, 1.8)])
def test_without_a_budget_a_cascade_is_nearly_as_good_as_if_it_deferred_all_texts(
    labels: int, ngram_noise: float, transformer_noise: float
) -> None:
    parts = made_up(labels, ngram_noise, transformer_noise)
    routing, rule = choose_routing(parts, None)
    deferred, gains = routing.deferred(parts.ngram), expected_gains(parts, routing)
    assert 0.05 < deferred.mean() < 0.95
    order = np.argsort(margins(parts.ngram, routing.offsets))
    expected = IsotonicRegression(increasing=False).fit_transform(np.arange(ROWS), gains[order])
    assert expected[deferred.sum() :].sum() / ROWS <= NEARLY_ALL
    assert expected[deferred.sum() - 1 :].sum() / ROWS > NEARLY_ALL  # with one text less, it would be missed
    everything = parts.point(replace(routing, margin=1e9), rule)
    assert parts.point(routing, rule).macro_f1 > everything.macro_f1 - 0.01
    alone = macro_f1(parts.labels, parts.ngram.argmax(axis=1), labels)
    assert parts.point(routing, rule).macro_f1 > alone + 0.03


def test_a_weak_transformer_gets_few_texts() -> None:
    parts = made_up(4, 1.0, 6.0)
    routing, rule = choose_routing(parts, None)
    assert parts.point(routing, rule).share < 0.2


def test_a_share_or_a_latency_is_an_upper_limit() -> None:
    parts = made_up(3, 2.0, 1.0)
    for share, most in ((0.0, 0.0), (0.1234, 0.1225), (0.3, 0.3), (1.0, 1.0)):
        routing, rule = choose_routing(parts, None, share=share)
        assert parts.point(routing, rule).share == most
    for budget, most in ((0.05, 0.0), (0.1 + 0.3 * 2.0, 0.3), (0.65, 0.275), (50.0, 1.0)):
        routing, rule = choose_routing(parts, None, budget_ms=budget)
        point = parts.point(routing, rule)
        assert (point.share, point.mean_ms) == (most, pytest.approx(0.1 + most * 2.0))


def test_rows_with_equal_margins_never_exceed_the_share() -> None:
    parts = made_up(2, 2.0, 1.0)
    same = replace(parts, ngram=np.repeat(parts.ngram[:1], ROWS, axis=0))
    routing, rule = choose_routing(same, None, share=0.5)
    assert same.point(routing, rule).share == 0.0
