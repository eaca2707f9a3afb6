"""Draw the test split, the validation split and the folds: grouped, balanced, the same on any machine.

Random generators and library splitters may change between versions. Here every group of duplicates is
put in an order that only its text and the seed decide, so the split of a file never moves, and rows that
are added later leave most of the old ones where they were.
"""

import hashlib
from collections import defaultdict

import numpy as np

TEST, VALIDATION, LEFT_OUT = -1, -2, -3
"""Places in `Corpus.fold` that are no training fold."""

TEST_SHARE, VALIDATION_SHARE = 0.15, 0.10


def draw_splits(
    keys: list[str],
    strata: list[str],
    folds: int,
    seed: int,
    fraction: float = 1.0,
    given: np.ndarray | None = None,
) -> np.ndarray:
    """A fold number, TEST, VALIDATION or LEFT_OUT for every row.

    keys: the duplicate key of each row; rows with equal keys stay together.
    strata: what to balance by; a group takes the stratum of most of its rows.
    fraction: the share of the training rows that is kept; the others are left out.
    given: a fixed place for each row (0 where the row is for training); a split it lacks is drawn.
      A training row with a duplicate in a given test or validation split is left out, since it would leak;
      so is a validation row with a duplicate in the test split.

    Returns: int array (rows,).
    """
    groups: dict[str, list[int]] = defaultdict(list)
    for row, key in enumerate(keys):
        groups[key].append(row)
    places = np.zeros(len(keys), dtype=np.int64) if given is None else given.astype(np.int64)
    by_stratum: dict[str, list[list[int]]] = defaultdict(list)
    for _, rows in sorted(groups.items(), key=lambda item: _rank(item[0], seed)):
        free = [row for row in rows if places[row] == 0]
        if len(free) < len(rows):
            places[free] = LEFT_OUT
            if (places[rows] == TEST).any():
                places[[row for row in rows if places[row] == VALIDATION]] = LEFT_OUT
        else:
            by_stratum[_commonest([strata[row] for row in rows])].append(rows)
    draw_test = not (places == TEST).any()
    draw_validation = not (places == VALIDATION).any()
    for members in by_stratum.values():
        _deal(members, places, folds, fraction, draw_test, draw_validation)
    return places


def _deal(
    groups: list[list[int]], places: np.ndarray, folds: int, fraction: float, test: bool, validation: bool
) -> None:
    """Deal the groups of one stratum: first the test split, then validation, then fold after fold.

    Folds are runs of the order, not dealt in turn, so that a group that is added moves only those at the borders.
    """
    rows = sum(map(len, groups))
    wanted_test = TEST_SHARE * rows if test else 0.0
    wanted_validation = VALIDATION_SHARE * rows if validation else 0.0
    wanted_train = fraction * (rows - wanted_test - wanted_validation)
    taken = {TEST: 0.0, VALIDATION: 0.0}
    train: list[list[int]] = []
    kept = 0
    for group in groups:
        half = len(group) / 2  # a group goes where it lands nearest to the wanted size
        if taken[TEST] + half <= wanted_test and wanted_test > 0:
            places[group] = TEST
            taken[TEST] += len(group)
        elif taken[VALIDATION] + half <= wanted_validation and wanted_validation > 0:
            places[group] = VALIDATION
            taken[VALIDATION] += len(group)
        elif fraction < 1 and kept + half > wanted_train:
            places[group] = LEFT_OUT
        else:
            train.append(group)
            kept += len(group)
    for i, group in enumerate(train):
        places[group] = i * folds // len(train)


def _rank(key: str, seed: int) -> bytes:
    return hashlib.sha256(f"{seed}\x00{key}".encode()).digest()


def _commonest(values: list[str]) -> str:
    return max(sorted(set(values)), key=values.count)
