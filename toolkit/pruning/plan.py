"""A plan of what to cut: within the budget, and with the least loss after the cut and a short recovery."""

import copy
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from toolkit.config.settings import TrainingSettings
from toolkit.modeling.architecture import Sizes, architecture_of, encoder_weights
from toolkit.modeling.classifier import Classifier
from toolkit.modeling.surgery import Kept, cut
from toolkit.pruning.importance import PARTS, Importance, mean_loss, taylor_importance
from toolkit.pruning.selection import Costs, choose
from toolkit.training.dataset import Examples
from toolkit.training.feature_distillation import DistillationLoss
from toolkit.utils.console import bar

TRIED = 3
"""Plans that are tried by a short recovery."""
Trial = Callable[[Classifier], float]
"""Lets a cut classifier learn for a while, in place; returns its loss on validation rows."""


@dataclass(frozen=True)
class Objective:
    """What a network is judged by: texts with labels and teacher logits, and the loss of training."""

    examples: Examples
    how: TrainingSettings
    distillation_loss: DistillationLoss | None

    def loss_of(self, classifier: Classifier) -> float:
        """Mean loss on the texts, dropout off."""
        return mean_loss(classifier, self.examples, self.how, self.distillation_loss)


@dataclass(frozen=True)
class Plan:
    """What stays of each layer, None for a layer that goes, and the loss right after the cut."""

    kept: tuple[Kept | None, ...]
    loss: float

    def save(self, file: Path, told: dict[str, Any]) -> None:
        """Keep the plan and what was measured for it, whole or not at all."""
        kept = [None if stays is None else [stays.heads, stays.neurons] for stays in self.kept]
        unfinished = file.with_suffix(".partial")
        unfinished.write_text(json.dumps({"kept": kept, "loss": self.loss, "told": told}), "utf-8")
        unfinished.rename(file)

    @staticmethod
    def load(file: Path) -> "tuple[Plan, dict[str, Any]]":
        """A plan that was kept, and what was measured for it."""
        found = json.loads(file.read_text("utf-8"))
        kept = tuple(None if stays is None else Kept(*(tuple(units) for units in stays)) for stays in found["kept"])
        return Plan(kept, found["loss"]), found["told"]

    @property
    def dropped(self) -> int:
        """How many layers go."""
        return sum(stays is None for stays in self.kept)

    @property
    def left(self) -> list[Sizes]:
        """The sizes of the layers that stay."""
        return [Sizes(len(stays.heads), len(stays.neurons)) for stays in self.kept if stays is not None]


@dataclass(frozen=True)
class Scores:
    """What the parts of a classifier are worth."""

    units: Importance
    layers: tuple[int, ...]
    """All layers but the dearest, the one first without which the loss is least; none where layers share weights."""


def scores_of(classifier: Classifier, objective: Objective) -> Scores:
    """Taylor importance of heads and neurons, and the order in which layers would go."""
    units = taylor_importance(classifier, objective.examples, objective.how, objective.distillation_loss)
    return Scores(units, _dispensable(classifier, objective))


def plans_within(
    classifier: Classifier,
    objective: Objective,
    scores: Scores,
    costs: Costs,
    budget: float,
    dropping: Sequence[int] | None = None,
) -> list[Plan]:
    """For every number of layers to drop, the units that are then worth keeping; the least loss after the cut first.

    dropping: the numbers of layers to look at; None for all. Empty if no plan is within the budget.
    """
    numbers = range(len(scores.layers) + 1) if dropping is None else dropping
    plans = []
    with bar("pruning: cutting by each plan", len(numbers)) as advance:
        for count in numbers:
            kept = choose(scores.units, costs, budget, scores.layers[:count])
            if kept is not None:
                plans.append(Plan(tuple(kept), objective.loss_of(cut_copy(classifier, kept))))
            advance(1)
    return sorted(plans, key=lambda plan: plan.loss)


def most_promising(classifier: Classifier, plans: Sequence[Plan], trial: Trial | None) -> tuple[Plan, list[float]]:
    """The first of `plans`, or that of the first TRIED with the least loss after a trial; and the losses of the trials.

    Right after a cut, a network that lost whole layers often looks better than one that lost as much of each, and
    after a few hundred steps of recovery it does not.
    """
    if trial is None or len(plans) == 1:
        return plans[0], []
    losses = [trial(cut_copy(classifier, plan.kept)) for plan in plans[:TRIED]]
    return plans[losses.index(min(losses))], losses


def cut_copy(classifier: Classifier, kept: Sequence[Kept | None]) -> Classifier:
    """A copy of `classifier`, cut."""
    network = copy.deepcopy(classifier.network)
    cut(network, kept)
    return replace(classifier, network=network)


def weight_costs(classifier: Classifier) -> Costs:
    """What the parts of the encoder cost in weights, those outside its layers not counted.

    Layers that differ in what they have beside units count with their mean.
    """
    layers = architecture_of(classifier.network).layers
    first = layers[0]
    maps = {part: first.linear(part) for part in PARTS}
    biases = {part: linear.bias is not None for part, linear in maps.items()}
    width = first.linear("context").out_features
    per_head = first.head_width * (4 * width + sum(biases[part] for part in ("query", "key", "value")))
    per_neuron = 2 * width + biases["into"]
    units = sum(per_head * layer.heads + per_neuron * layer.neurons for layer in layers)
    return Costs(0.0, (encoder_weights(classifier.network) - units) / len(layers), per_head, per_neuron)


def _dispensable(classifier: Classifier, objective: Objective) -> tuple[int, ...]:
    layers = architecture_of(classifier.network).layers
    whole = [Kept(tuple(range(layer.heads)), tuple(range(layer.neurons))) for layer in layers]
    if len(layers) == 1:
        return ()
    losses = []
    with bar("pruning: leaving out each layer", len(layers)) as advance, torch.no_grad():
        for gone in range(len(layers)):
            without = [None if place == gone else stays for place, stays in enumerate(whole)]
            losses.append(objective.loss_of(cut_copy(classifier, without)))
            advance(1)
    return tuple(sorted(range(len(layers)), key=losses.__getitem__)[:-1])
