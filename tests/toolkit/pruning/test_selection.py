import itertools

import numpy as np
import pytest

from toolkit.modeling.architecture import Sizes
from toolkit.modeling.surgery import Kept
from toolkit.pruning.importance import Importance
from toolkit.pruning.selection import BLOCK, Costs, choose

COSTS = Costs(base=100.0, layer=10.0, head=8.0, neuron=0.5)


def sizes_of(kept: list[Kept | None]) -> list[Sizes]:
    return [Sizes(len(stays.heads), len(stays.neurons)) for stays in kept if stays is not None]


def importance(heads: list[list[float]], neurons: list[list[float]]) -> Importance:
    return Importance(tuple(map(np.array, heads)), tuple(map(np.array, neurons)))


def test_a_cost_is_the_sum_of_its_parts() -> None:
    assert COSTS.of([Sizes(2, 4), Sizes(1, 0)]) == 100 + 20 + 3 * 8 + 4 * 0.5


def test_the_unit_with_the_least_score_per_cost_is_removed_first() -> None:
    """Worked by hand: a head and a block of neurons cost 8 each; the lowest scores are 0.16, 1 and 2."""
    low, high = [0.01] * BLOCK, [9.0] * BLOCK
    scores = importance([[5.0, 1.0], [2.0, 30.0]], [low + high, [0.2] * BLOCK + high])
    full = COSTS.of([Sizes(2, 2 * BLOCK)] * 2)
    kept = choose(scores, COSTS, full - 1)
    assert kept is not None  # the block with a total score of 0.16 is removed first
    assert sizes_of(kept) == [Sizes(2, BLOCK), Sizes(2, 2 * BLOCK)]
    assert kept[0] == Kept((0, 1), tuple(range(BLOCK, 2 * BLOCK)))
    kept = choose(scores, COSTS, full - 9)
    assert kept is not None
    assert kept[0] == Kept((0,), tuple(range(BLOCK, 2 * BLOCK)))
    kept = choose(scores, COSTS, full - 17)
    assert kept is not None
    assert kept[1] == Kept((1,), tuple(range(2 * BLOCK)))


def test_of_equal_scores_the_unit_with_the_higher_cost_is_removed_first() -> None:
    scores = importance([[4.0, 9.0]], [[4.0 / BLOCK] * BLOCK + [9.0] * BLOCK])
    costly_head = Costs(0, 0, head=16, neuron=0.5)
    costly_neuron = Costs(0, 0, head=2, neuron=0.5)
    full = Sizes(2, 2 * BLOCK)
    first, second = (choose(scores, costs, costs.of([full]) - 0.1) for costs in (costly_head, costly_neuron))
    assert first is not None
    assert second is not None
    assert sizes_of(first) == [Sizes(1, 2 * BLOCK)]
    assert sizes_of(second) == [Sizes(2, BLOCK)]


def test_dropped_layers_leave_their_budget_to_the_others() -> None:
    random = np.random.default_rng(0)
    scores = importance(random.random((3, 4)).tolist(), random.random((3, 64)).tolist())
    budget = COSTS.of([Sizes(4, 64)] * 2)
    kept = choose(scores, COSTS, budget, dropped=[1])
    assert kept is not None
    assert kept[1] is None
    assert sizes_of(kept) == [Sizes(4, 64)] * 2


def test_a_layer_keeps_its_best_head_and_block_of_neurons() -> None:
    scores = importance([[1.0, 2.0, 3.0]], [np.arange(40.0).tolist()])
    least = COSTS.of([Sizes(1, BLOCK)])
    kept = choose(scores, COSTS, least)
    assert kept == [Kept((2,), tuple(range(40 - BLOCK, 40)))]
    assert choose(scores, COSTS, least - 0.01) is None


@pytest.mark.parametrize("neurons", [5, 16, 40, 64])
def test_full_blocks_of_neurons_remain(neurons: int) -> None:
    random = np.random.default_rng(1)
    scores = importance([random.random(4).tolist()], [random.random(neurons).tolist()])
    full = COSTS.of([Sizes(4, neurons)])
    for share in np.linspace(0.7, 1.0, 20):
        kept = choose(scores, COSTS, share * full)
        if kept is not None and kept[0] is not None:
            left = len(kept[0].neurons)
            assert left == neurons or left % BLOCK == 0
            assert COSTS.of(sizes_of(kept)) <= share * full


def test_greedy_selection_is_within_one_unit_of_the_optimum() -> None:
    """Compare with all selections: removing by score per cost loses at most one unit."""
    random = np.random.default_rng(2)
    heads = random.random((2, 4))
    costs = Costs(0.0, 0.0, 1.0, 1e-9)
    scores = importance(heads.tolist(), [[1.0] * BLOCK] * 2)
    for budget in range(2, 9):
        kept = choose(scores, costs, budget + 1e-6)
        assert kept is not None
        score = sum(heads[place][list(stays.heads)].sum() for place, stays in enumerate(kept) if stays is not None)
        best = max(
            sum(heads[place, head] for place, head in chosen)
            for chosen in itertools.combinations(itertools.product(range(2), range(4)), budget)
            if {place for place, _ in chosen} == {0, 1}
        )
        assert score == pytest.approx(best, abs=heads.max())
        assert sum(len(stays.heads) for stays in kept if stays is not None) == budget
