"""Selection of heads, neurons and layers within a budget, by importance per cost."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from toolkit.modeling.architecture import Sizes
from toolkit.modeling.surgery import Kept
from toolkit.pruning.importance import Importance

BLOCK = 16
"""Neurons are removed in blocks: processors multiply in tiles, so fewer rows in a tile save no time."""


@dataclass(frozen=True)
class Costs:
    """Costs of the parts of a network in one unit: weights, milliseconds or megabytes."""

    base: float
    """Cost of everything outside the layers."""
    layer: float
    """Cost of a layer without heads and neurons."""
    head: float
    """Cost of one head."""
    neuron: float
    """Cost of one neuron."""

    def of(self, left: Sequence[Sizes]) -> float:
        """Return the cost of a network with layers of these sizes."""
        units = sum(self.layer + self.head * size.heads + self.neuron * size.neurons for size in left)
        return self.base + units


@dataclass(frozen=True)
class _Unit:
    layer: int
    neurons: tuple[int, ...]
    """A block of neurons; empty for a head."""
    head: int
    """-1 for a block of neurons."""
    score: float
    cost: float


def choose(
    importance: Importance, costs: Costs, budget: float, dropped: Sequence[int] = ()
) -> list[Kept | None] | None:
    """Return the units to keep in each layer so that the cost is within `budget`; None for a layer in `dropped`.

    Units are removed in ascending order of score per cost over all layers. A remaining layer keeps at least its best
    head and its best block of neurons.
    Returns: None if even that is above the budget.
    """
    heads = [set(range(len(scores))) for scores in importance.heads]
    neurons = [set(range(len(scores))) for scores in importance.neurons]
    remaining = [place for place in range(len(heads)) if place not in dropped]

    def cost() -> float:
        return costs.of([Sizes(len(heads[place]), len(neurons[place])) for place in remaining])

    for unit in sorted(_units(importance, costs, remaining), key=lambda unit: unit.score / unit.cost):
        if cost() <= budget:
            break
        if unit.neurons:
            neurons[unit.layer] -= set(unit.neurons)
        else:
            heads[unit.layer].remove(unit.head)
    if cost() > budget:
        return None
    return [
        Kept(tuple(sorted(heads[place])), tuple(sorted(neurons[place]))) if place in remaining else None
        for place in range(len(heads))
    ]


def _units(importance: Importance, costs: Costs, layers: Sequence[int]) -> list[_Unit]:
    """Return the units that may be removed: in each layer, all but the best head and the best block of neurons."""
    smallest = np.finfo(float).tiny  # a unit without cost is removed last
    units = []
    for place in layers:
        order = np.argsort(importance.heads[place], kind="stable")[:-1]
        scores = importance.heads[place][order]
        units += [
            _Unit(place, (), int(h), float(s), costs.head or smallest) for h, s in zip(order, scores, strict=True)
        ]
        scores = importance.neurons[place]
        order = np.argsort(scores, kind="stable")
        first = (len(order) - 1) % BLOCK + 1  # so that full blocks remain
        for start, end in zip([0, *range(first, len(order), BLOCK)], range(first, len(order), BLOCK), strict=False):
            block = order[start:end]
            cost = costs.neuron * len(block) or smallest
            units.append(_Unit(place, tuple(block.tolist()), -1, float(scores[block].sum()), cost))
    return units
