import copy
from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.helpers import examples
from toolkit.config.settings import ModelSettings, TrainingSettings
from toolkit.data.corpus import Corpus
from toolkit.modeling.architecture import Sizes, architecture_of, encoder_weights, sizes
from toolkit.modeling.classifier import Classifier
from toolkit.modeling.encoders import build_classifier
from toolkit.modeling.surgery import Kept
from toolkit.pruning.importance import mean_loss
from toolkit.pruning.plan import TRIED, Objective, cut_copy, most_promising, plans_within, scores_of, weight_costs
from toolkit.pruning.selection import choose

TRAINING = TrainingSettings()


@pytest.fixture(scope="module")
def made(toy: Corpus) -> Classifier:
    settings = ModelSettings(model="shape:3x32x4", pooling="mean", max_length=32)
    return build_classifier(settings, toy.label_names, toy.take(toy.rows("train")), seed=1)


@pytest.fixture(scope="module")
def objective(toy: Corpus) -> Objective:
    return Objective(examples(toy, "validation"), TRAINING, None)


def without_effect(made: Classifier, *layers: int) -> Classifier:
    """`made` with layers that return about their input: the weights of their output projections are zero."""
    network = copy.deepcopy(made.network)
    with torch.no_grad():
        for place in layers:
            layer = architecture_of(network).layers[place]
            for part in ("context", "out"):
                layer.linear(part).weight.zero_()
    return replace(made, network=network)


def test_the_cost_in_weights_is_the_number_of_removed_weights(made: Classifier) -> None:
    costs = weight_costs(made)
    assert costs.of(sizes(made.network)) == pytest.approx(encoder_weights(made.network))
    kept = [Kept((0, 2), tuple(range(48))), Kept((1,), tuple(range(16))), None]
    assert costs.of([Sizes(2, 48), Sizes(1, 16)]) == pytest.approx(encoder_weights(cut_copy(made, kept).network))


def test_pruning_a_copy_leaves_the_original_unchanged(made: Classifier, toy: Corpus) -> None:
    before = made.predict_logits(toy.texts[:20])
    cut_copy(made, [Kept((0,), tuple(range(16)))] * 3)
    assert sizes(made.network) == [Sizes(4, 128)] * 3
    assert made.predict_logits(toy.texts[:20]).tobytes() == before.tobytes()


def test_layers_are_dropped_in_the_order_of_the_loss_without_each(made: Classifier, objective: Objective) -> None:
    full = Kept(tuple(range(4)), tuple(range(128)))
    losses = []
    for dropped in range(3):
        cut = cut_copy(made, [None if place == dropped else full for place in range(3)])
        losses.append(mean_loss(cut, objective.examples, TRAINING, None))
    assert scores_of(made, objective).layers == tuple(np.argsort(losses)[:2].tolist())


def test_units_without_effect_are_removed_first(made: Classifier, objective: Objective) -> None:
    idle = without_effect(made, 1)
    costs, scores = weight_costs(idle), scores_of(idle, objective)
    full, least = Sizes(4, 128), Sizes(1, 16)
    kept = choose(scores.units, costs, costs.of([full, least, full]))
    assert kept is not None
    assert [Sizes(len(k.heads), len(k.neurons)) for k in kept if k is not None] == [full, least, full]
    assert objective.loss_of(cut_copy(idle, kept)) == pytest.approx(objective.loss_of(idle), abs=1e-6)


def test_plans_are_within_the_budget_and_sorted_by_loss(made: Classifier, objective: Objective) -> None:
    costs, scores = weight_costs(made), scores_of(made, objective)
    for share in (0.8, 0.5, 0.2):
        budget = share * costs.of(sizes(made.network))
        plans = plans_within(made, objective, scores, costs, budget)
        others = [choose(scores.units, costs, budget, scores.layers[:count]) for count in range(3)]
        losses = [objective.loss_of(cut_copy(made, kept)) for kept in others if kept is not None]
        assert [plan.loss for plan in plans] == pytest.approx(sorted(losses), rel=1e-6)
        for plan in plans:
            assert costs.of(plan.left) <= budget
            assert plan.dropped == 3 - len(plan.left)
        (single,) = plans_within(made, objective, scores, costs, budget, [2])
        assert single == next(plan for plan in plans if plan.dropped == 2)


def test_the_plan_with_the_lowest_loss_after_a_trial_is_selected(made: Classifier, objective: Objective) -> None:
    costs, scores = weight_costs(made), scores_of(made, objective)
    plans = plans_within(made, objective, scores, costs, 0.3 * costs.of(sizes(made.network)))
    assert len(plans) == TRIED == 3
    tried: list[list[Sizes]] = []

    def trial(cut: Classifier) -> float:
        tried.append(sizes(cut.network))
        return {0: 0.5, 1: 0.1, 2: 0.3}[3 - len(tried[-1])]

    plan, losses = most_promising(made, plans, trial)
    assert plan.dropped == 1
    assert tried == [each.left for each in plans]
    assert sorted(losses) == [0.1, 0.3, 0.5]
    assert most_promising(made, plans, None) == (plans[0], [])
    assert most_promising(made, plans[:1], trial) == (plans[0], [])
    assert len(tried) == 3


def test_there_is_no_plan_for_a_budget_that_is_too_small(made: Classifier, objective: Objective) -> None:
    costs, scores = weight_costs(made), scores_of(made, objective)
    assert len(plans_within(made, objective, scores, costs, costs.of([Sizes(1, 16)]))) == 1
    assert plans_within(made, objective, scores, costs, costs.of([Sizes(1, 16)]) - 1) == []
