"""Plans for structured pruning: which units and layers to keep within a budget, ranked by loss after pruning."""

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
from toolkit.utils.files import read_json, write_text

TRIED = 3
"""Number of plans that are compared by a trial."""
Trial = Callable[[Classifier], float]
"""Train a pruned classifier briefly, in place, and return its loss on validation rows."""


@dataclass(frozen=True)
class Objective:
    """The loss by which networks are compared: that of training, on calibration texts."""

    examples: Examples
    """Texts with labels and teacher logits."""
    training: TrainingSettings
    distillation_loss: DistillationLoss | None

    def loss_of(self, classifier: Classifier) -> float:
        """Return the mean loss on the texts, with dropout off."""
        return mean_loss(classifier, self.examples, self.training, self.distillation_loss)


@dataclass(frozen=True)
class Plan:
    """The units to keep in each layer, and the loss right after pruning."""

    kept: tuple[Kept | None, ...]
    """None for a layer that is dropped."""
    loss: float

    def save(self, file: Path, details: dict[str, Any]) -> None:
        """Write the plan and the details of its selection atomically."""
        kept = [None if units is None else [units.heads, units.neurons] for units in self.kept]
        write_text(file, json.dumps({"kept": kept, "loss": self.loss, "details": details}))

    @staticmethod
    def load(file: Path) -> "tuple[Plan, dict[str, Any]] | None":
        """Return a saved plan and its details; None if there is none, or if it is damaged."""
        found = read_json(file)
        try:
            kept = tuple(None if layer is None else Kept(*(tuple(units) for units in layer)) for layer in found["kept"])
            return Plan(kept, found["loss"]), found["details"]
        except (LookupError, TypeError):
            return None

    @property
    def dropped(self) -> int:
        """Number of dropped layers."""
        return sum(units is None for units in self.kept)

    @property
    def left(self) -> list[Sizes]:
        """Sizes of the remaining layers."""
        return [Sizes(len(units.heads), len(units.neurons)) for units in self.kept if units is not None]


@dataclass(frozen=True)
class Scores:
    """Importance of the parts of a classifier."""

    units: Importance
    layers: tuple[int, ...]
    """The order in which layers are dropped, by the loss without each; the most important layer is never dropped.

    Empty for a single layer and for shared layers (ALBERT).
    """


def scores_of(classifier: Classifier, objective: Objective) -> Scores:
    """Return the Taylor importance of heads and neurons, and the order in which layers are dropped."""
    units = taylor_importance(classifier, objective.examples, objective.training, objective.distillation_loss)
    return Scores(units, _dropping_order(classifier, objective))


def plans_within(
    classifier: Classifier,
    objective: Objective,
    scores: Scores,
    costs: Costs,
    budget: float,
    dropping: Sequence[int] | None = None,
) -> list[Plan]:
    """Return one plan per number of dropped layers, sorted by the loss after pruning; empty if none fits the budget.

    dropping: the numbers of layers to drop; None for all.
    """
    numbers = range(len(scores.layers) + 1) if dropping is None else dropping
    plans = []
    with bar("pruning: evaluating plans", len(numbers)) as advance:
        for count in numbers:
            kept = choose(scores.units, costs, budget, scores.layers[:count])
            if kept is not None:
                plans.append(Plan(tuple(kept), objective.loss_of(cut_copy(classifier, kept))))
            advance(1)
    return sorted(plans, key=lambda plan: plan.loss)


def most_promising(classifier: Classifier, plans: Sequence[Plan], trial: Trial | None) -> tuple[Plan, list[float]]:
    """Return the plan with the lowest loss after a trial of the first TRIED plans, and the losses of the trials.

    Without `trial`, return the first plan. Right after pruning, a network without some layers often has a lower loss
    than one with narrower layers of the same cost; after a few hundred steps of recovery it does not.
    """
    if trial is None or len(plans) == 1:
        return plans[0], []
    losses = [trial(cut_copy(classifier, plan.kept)) for plan in plans[:TRIED]]
    return plans[losses.index(min(losses))], losses


def cut_copy(classifier: Classifier, kept: Sequence[Kept | None]) -> Classifier:
    """Return a pruned copy of `classifier`."""
    network = copy.deepcopy(classifier.network)
    cut(network, kept)
    return replace(classifier, network=network)


def weight_costs(classifier: Classifier) -> Costs:
    """Return the costs of the parts of the encoder in weights; weights outside its layers are not counted.

    The cost of a layer without units is the mean over the layers.
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


def _dropping_order(classifier: Classifier, objective: Objective) -> tuple[int, ...]:
    layers = architecture_of(classifier.network).layers
    full = [Kept(tuple(range(layer.heads)), tuple(range(layer.neurons))) for layer in layers]
    if len(layers) == 1:
        return ()
    losses = []
    with bar("pruning: scoring layers", len(layers)) as advance, torch.no_grad():
        for dropped in range(len(layers)):
            without = [None if place == dropped else units for place, units in enumerate(full)]
            losses.append(objective.loss_of(cut_copy(classifier, without)))
            advance(1)
    return tuple(sorted(range(len(layers)), key=losses.__getitem__)[:-1])
