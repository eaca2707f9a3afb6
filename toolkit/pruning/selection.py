"""Which heads, neurons and layers stay within a budget: those that are worth most for what they cost."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from toolkit.modeling.architecture import Sizes
from toolkit.modeling.surgery import Kept
from toolkit.pruning.importance import Importance

BLOCK = 16
"""Neurons that go together: processors multiply in tiles, and a row more or less in one changes nothing."""


@dataclass(frozen=True)
class Costs:
    """What a network costs, in one measure: weights, milliseconds or megabytes."""

    base: float
    """Everything outside the layers."""
    layer: float
    """A layer without any unit."""
    head: float
    neuron: float

    def of(self, left: Sequence[Sizes]) -> float:
        """The cost of a network whose layers are of these sizes."""
        units = sum(self.layer + self.head * size.heads + self.neuron * size.neurons for size in left)
        return self.base + units


@dataclass(frozen=True)
class _Unit:
    layer: int
    neurons: tuple[int, ...]
    """A block of neurons; empty for a head."""
    head: int
    score: float
    cost: float


def choose(
    importance: Importance, costs: Costs, budget: float, dropped: Sequence[int] = ()
) -> list[Kept | None] | None:
    """What stays of each layer so that the cost is within `budget`, None for a layer in `dropped`.

    Units go in the order of score per cost over all layers, the cheapest loss first; a layer that stays keeps its
    best head and its best block of neurons. None if that is still above the budget.
    """
    heads = [set(range(len(scores))) for scores in importance.heads]
    neurons = [set(range(len(scores))) for scores in importance.neurons]
    staying = [place for place in range(len(heads)) if place not in dropped]

    def cost() -> float:
        return costs.of([Sizes(len(heads[place]), len(neurons[place])) for place in staying])

    for unit in sorted(_units(importance, costs, staying), key=lambda unit: unit.score / unit.cost):
        if cost() <= budget:
            break
        if unit.neurons:
            neurons[unit.layer] -= set(unit.neurons)
        else:
            heads[unit.layer].remove(unit.head)
    if cost() > budget:
        return None
    return [
        Kept(tuple(sorted(heads[place])), tuple(sorted(neurons[place]))) if place in staying else None
        for place in range(len(heads))
    ]


def _units(importance: Importance, costs: Costs, layers: Sequence[int]) -> list[_Unit]:
    """Everything that may go: all heads but the best and all blocks of neurons but the best of each layer."""
    smallest = np.finfo(float).tiny  # a unit that costs nothing goes last
    units = []
    for place in layers:
        order = np.argsort(importance.heads[place], kind="stable")[:-1]
        scores = importance.heads[place][order]
        units += [
            _Unit(place, (), int(h), float(s), costs.head or smallest) for h, s in zip(order, scores, strict=True)
        ]
        scores = importance.neurons[place]
        order = np.argsort(scores, kind="stable")
        first = (len(order) - 1) % BLOCK + 1  # so that what stays is whole tiles
        for start, end in zip([0, *range(first, len(order), BLOCK)], range(first, len(order), BLOCK), strict=False):
            block = order[start:end]
            cost = costs.neuron * len(block) or smallest
            units.append(_Unit(place, tuple(block.tolist()), -1, float(scores[block].sum()), cost))
    return units
