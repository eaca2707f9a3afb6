import hashlib
from collections import defaultdict

import numpy as np
import pytest

from toolkit.data.splits import LEFT_OUT, TEST, VALIDATION, draw_splits

KEYS = [f"text {i % 400}" for i in range(500)]  # 100 duplicate keys
STRATA = ["01"[i % 400 % 3 == 0] for i in range(500)]


@pytest.mark.parametrize("folds", [2, 5, 10])
@pytest.mark.parametrize("seed", [0, 42])
def test_duplicates_never_cross_a_split_or_a_fold(folds: int, seed: int) -> None:
    seen = defaultdict(set)
    for key, place in zip(KEYS, draw_splits(KEYS, STRATA, folds, seed), strict=True):
        seen[key].add(int(place))
    assert all(len(places) == 1 for places in seen.values())


@pytest.mark.parametrize("seed", range(5))
def test_splits_are_stratified_by_label(seed: int) -> None:
    places, strata = draw_splits(KEYS, STRATA, 5, seed), np.array(STRATA)
    for label in "01":
        own = places[strata == label]
        assert (own == TEST).mean() == pytest.approx(0.15, abs=0.012)
        assert (own == VALIDATION).mean() == pytest.approx(0.10, abs=0.012)
        sizes = [int((own == fold).sum()) for fold in range(5)]
        assert min(sizes) > 0.8 * sum(sizes) / 5


def test_the_split_of_a_file_never_changes() -> None:
    places = draw_splits(KEYS, STRATA, 5, 42)
    assert hashlib.sha256(",".join(map(str, places.tolist())).encode()).hexdigest()[:16] == "9acdd0d144d75cc4"


def test_another_seed_draws_another_split() -> None:
    assert (draw_splits(KEYS, STRATA, 5, 42) != draw_splits(KEYS, STRATA, 5, 43)).mean() > 0.3


def test_the_split_does_not_depend_on_the_order_of_rows() -> None:
    order = np.random.default_rng(0).permutation(len(KEYS))
    moved = draw_splits([KEYS[i] for i in order], [STRATA[i] for i in order], 5, 42)
    assert (moved == draw_splits(KEYS, STRATA, 5, 42)[order]).all()


def test_adding_rows_moves_few_of_the_others() -> None:
    before = draw_splits(KEYS, STRATA, 5, 42)
    more = [f"new {i}" for i in range(50)]
    after = draw_splits([*KEYS, *more], [*STRATA, *("01" * 25)], 5, 42)[: len(KEYS)]
    assert (before == after).mean() > 0.9


@pytest.mark.parametrize("groups", [8, 9, 13, 40])
def test_no_fold_is_empty_if_there_are_enough_groups(groups: int) -> None:
    keys = ["spam"] * 30 + [f"text {i}" for i in range(groups)]
    places = draw_splits(
        keys, ["0"] * len(keys), 5, 42, given=np.array([0] * 30 + [TEST, VALIDATION] + [0] * (groups - 2))
    )
    assert set(places[places >= 0].tolist()) == set(range(5))


def test_a_fraction_does_not_change_validation_and_test() -> None:
    full, half = draw_splits(KEYS, STRATA, 5, 42), draw_splits(KEYS, STRATA, 5, 42, fraction=0.5)
    for place in (TEST, VALIDATION):
        assert ((full == place) == (half == place)).all()
    assert (half >= 0).sum() == pytest.approx((full >= 0).sum() / 2, abs=3)
    assert (full[half == LEFT_OUT] >= 0).all()


@pytest.mark.parametrize(
    ("keys", "given", "expected"),
    [
        ("aabb", [0, TEST, 0, VALIDATION], [LEFT_OUT, TEST, LEFT_OUT, VALIDATION]),
        ("aabb", [VALIDATION, TEST, 0, 0], [LEFT_OUT, TEST, 0, 0]),
        ("aaab", [0, VALIDATION, TEST, VALIDATION], [LEFT_OUT, LEFT_OUT, TEST, VALIDATION]),
        ("aabc", [TEST, TEST, VALIDATION, 0], [TEST, TEST, VALIDATION, 0]),
    ],
)
def test_a_row_with_a_duplicate_in_a_given_split_is_left_out(keys: str, given: list[int], expected: list[int]) -> None:
    places = draw_splits(list(keys), ["0"] * len(keys), 2, 42, given=np.array(given))
    assert np.minimum(places, 0).tolist() == expected


def test_a_split_that_is_not_given_is_drawn() -> None:
    given = np.zeros(400, dtype=int)
    given[:60] = TEST
    places = draw_splits(KEYS[:400], STRATA[:400], 5, 42, given=given)
    assert (places == TEST).nonzero()[0].tolist() == list(range(60))
    assert (places == VALIDATION).sum() == pytest.approx(34, abs=2)


def test_one_large_group_is_not_put_into_the_test_split() -> None:
    keys = ["spam"] * 60 + [f"text {i}" for i in range(40)]
    for seed in range(20):
        places = draw_splits(keys, ["0"] * 100, 2, seed)
        assert (places[:60] >= 0).all()
        assert (places == TEST).sum() == 15


@pytest.mark.parametrize("parts", [2, 5, 7])
def test_each_row_is_in_the_test_split_of_one_outer_fold(parts: int) -> None:
    splits = [draw_splits(KEYS, STRATA, 5, 42, outer_fold=f"{part}/{parts}") for part in range(1, parts + 1)]
    tested = np.array([split == TEST for split in splits])  # (parts, rows)
    assert (tested.sum(axis=0) == 1).all()
    for split, rows in zip(splits, tested, strict=True):
        assert rows.mean() == pytest.approx(1 / parts, abs=0.02)
        assert {KEYS[i] for i in np.flatnonzero(rows)}.isdisjoint(KEYS[i] for i in np.flatnonzero(~rows))
        strata = np.array(STRATA)
        assert (strata[rows] == "1").mean() == pytest.approx((strata == "1").mean(), abs=0.02)
        assert (split == VALIDATION).mean() == pytest.approx(0.10, abs=0.02)


@pytest.mark.parametrize("seed", range(20))
def test_groups_are_drawn_as_one_by_one(seed: int) -> None:
    """The rule, written for one group at a time: the splits of a file must never change."""
    random = np.random.default_rng(seed)
    keys = [f"k{number}" for number in random.integers(0, 80, 120)]
    strata = [str(number) for number in random.integers(0, 3, 120)]
    groups = defaultdict(list)
    for row, key in enumerate(keys):
        groups[key].append(row)
    ranked = sorted(groups, key=lambda key: hashlib.sha256(f"{seed}\x00{key}".encode()).digest())
    expected = np.zeros(len(keys), dtype=int)
    for stratum in set(strata):
        own = []
        for key in ranked:
            values = [strata[row] for row in groups[key]]
            if max(sorted(set(values)), key=values.count) == stratum:
                own.append(groups[key])
        rows = sum(map(len, own))
        test = validation = 0
        train = []
        for group in own:
            if test + len(group) / 2 <= 0.15 * rows:
                expected[group], test = TEST, test + len(group)
            elif validation + len(group) / 2 <= 0.10 * rows:
                expected[group], validation = VALIDATION, validation + len(group)
            else:
                train.append(group)
        for number, group in enumerate(train):
            expected[group] = number * 4 // len(train)
    assert (draw_splits(keys, strata, 4, seed) == expected).all()
