"""Draw the test split, the validation split and the folds: grouped, stratified and reproducible on any machine.

Random generators and the splitters of libraries may change between versions. Here the groups of duplicates are sorted
by a hash of text and seed, so the split of a file never changes, and adding rows moves few of the others.
"""

import hashlib
from collections import defaultdict

import numpy as np

TEST, VALIDATION, LEFT_OUT = -1, -2, -3
"""Values of `Corpus.fold` for rows that are in no training fold."""

TEST_SHARE, VALIDATION_SHARE = 0.15, 0.10


def draw_splits(
    keys: list[str],
    strata: list[str],
    folds: int,
    seed: int,
    fraction: float = 1.0,
    given: np.ndarray | None = None,
    outer_fold: str | None = None,
) -> np.ndarray:
    """Return the fold number, TEST, VALIDATION or LEFT_OUT of every row, as int (rows,).

    keys: the duplicate key of each row; rows with equal keys are kept together.
    strata: the stratum of each row; a group has the most frequent stratum of its rows.
    fraction: the fraction of the training rows to use; the others are LEFT_OUT.
    given: a fixed split for each row (0: training); test or validation is drawn if no row has it. Training rows with a
      duplicate in a given test or validation split would leak and are LEFT_OUT, and so are validation rows with a
      duplicate in the test split.
    outer_fold: "i/n" makes the i-th of n parts of the rows the test split, so that each row is in the test split of one
      i. None draws TEST_SHARE of the rows.
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
            by_stratum[_most_frequent([strata[row] for row in rows])].append(rows)
    draw_test = not (places == TEST).any()
    draw_validation = not (places == VALIDATION).any()
    test_share = TEST_SHARE
    for members in by_stratum.values():
        if outer_fold is not None:
            members, test_share = _part_first(members, *map(int, outer_fold.split("/")))
        _assign(members, places, folds, fraction, test_share if draw_test else 0.0, draw_validation)
    return places


def _part_first(groups: list[list[int]], part: int, parts: int) -> tuple[list[list[int]], float]:
    """Return the groups rotated so that a part, counted from 1, of equal `parts` comes first, and its share of rows."""
    sizes = np.array([len(group) for group in groups])
    middles = np.cumsum(sizes) - sizes / 2
    part_of = 1 + (middles * parts / sizes.sum()).astype(int)  # of each group
    start, end = np.searchsorted(part_of, [part, part + 1])
    return groups[start:] + groups[:start], float(sizes[start:end].sum() / sizes.sum())


def _assign(
    groups: list[list[int]], places: np.ndarray, folds: int, fraction: float, test_share: float, validation: bool
) -> None:
    """Assign the sorted groups of one stratum to the test split, the validation split and the folds, in place.

    A fold is a contiguous part of the sorted groups, so an added group moves only groups at the boundaries.
    """
    rows = sum(map(len, groups))
    wanted_test = test_share * rows
    wanted_validation = VALIDATION_SHARE * rows if validation else 0.0
    wanted_train = fraction * (rows - wanted_test - wanted_validation)
    taken = {TEST: 0.0, VALIDATION: 0.0}
    train: list[list[int]] = []
    kept = 0
    for group in groups:
        half = len(group) / 2  # a group is added to a split if that brings its size nearer to the wanted one
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


def _most_frequent(values: list[str]) -> str:
    return max(sorted(set(values)), key=values.count)
