"""Draw the test split, the validation split and the folds: grouped, stratified and reproducible on any machine.

Random generators and the splitters of libraries may change between versions. Here the groups of duplicates are sorted
by a hash of text and seed, so the split of a file never changes, and adding rows moves few of the others.
"""

import hashlib
from collections.abc import Iterator

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
    group, names = groups_of(keys)
    sizes = np.bincount(group, minlength=len(names))
    places = np.zeros(len(keys), dtype=np.int64) if given is None else given.astype(np.int64)
    fixed, tested = np.zeros(len(names), dtype=bool), np.zeros(len(names), dtype=bool)  # groups with a given row
    fixed[group[places != 0]] = True
    tested[group[places == TEST]] = True
    leaks = (fixed[group] & (places == 0)) | (tested[group] & (places == VALIDATION))
    places[leaks] = LEFT_OUT
    draw_test = not (places == TEST).any()
    draw_validation = not (places == VALIDATION).any()
    test_share = TEST_SHARE
    ranked = _rank_order(names, seed)
    drawn = np.zeros(len(names), dtype=np.int64)  # where the rows of each group go
    for members in _by_stratum(ranked[~fixed[ranked]], group, sizes, strata):
        if outer_fold is not None:
            members, test_share = _part_first(members, sizes[members], *map(int, outer_fold.split("/")))
        share = test_share if draw_test else 0.0
        drawn[members] = _assign(sizes[members], folds, fraction, share, draw_validation)
    free = ~fixed[group]
    places[free] = drawn[group[free]]
    return places


def groups_of(keys: list[str]) -> tuple[np.ndarray, list[str]]:
    """Return the number of the group of each row, int (rows,), and the key of each group in order of appearance."""
    numbers: dict[str, int] = {}
    group = np.fromiter((numbers.setdefault(key, len(numbers)) for key in keys), np.int64, len(keys))
    return group, list(numbers)


def _by_stratum(members: np.ndarray, group: np.ndarray, sizes: np.ndarray, strata: list[str]) -> Iterator[np.ndarray]:
    """Yield the groups `members` of each stratum, in their order."""
    numbers: dict[str, int] = {}
    stratum = np.fromiter((numbers.setdefault(each, len(numbers)) for each in strata), np.int64, len(strata))
    of_group = np.zeros(len(sizes), dtype=np.int64)
    of_group[group] = stratum  # of groups of one row
    rows = np.argsort(group, kind="stable")
    ends = np.cumsum(sizes)
    for number in np.flatnonzero(sizes > 1):
        own = rows[ends[number] - sizes[number] : ends[number]]
        of_group[number] = numbers[_most_frequent([strata[row] for row in own])]
    order = np.argsort(of_group[members], kind="stable")
    starts = np.flatnonzero(np.diff(of_group[members][order])) + 1
    yield from (members[part] for part in np.split(order, starts) if len(part))


def _part_first(members: np.ndarray, sizes: np.ndarray, part: int, parts: int) -> tuple[np.ndarray, float]:
    """Return the groups rotated so that a part, counted from 1, of equal `parts` comes first, and its share of rows.

    sizes: of `members`.
    """
    middles = np.cumsum(sizes) - sizes / 2
    part_of = 1 + (middles * parts / sizes.sum()).astype(int)  # of each group
    start, end = np.searchsorted(part_of, [part, part + 1])
    return np.roll(members, -start), float(sizes[start:end].sum() / sizes.sum())


def _assign(sizes: np.ndarray, folds: int, fraction: float, test_share: float, validation: bool) -> np.ndarray:
    """Return where each of the sorted groups of one stratum goes: the test split, the validation split or a fold.

    A fold is a contiguous part of the sorted groups, so an added group moves only groups at the boundaries.
    """
    rows = int(sizes.sum())
    wanted_test = test_share * rows
    wanted_validation = VALIDATION_SHARE * rows if validation else 0.0
    wanted_train = fraction * (rows - wanted_test - wanted_validation)
    taken = {TEST: 0.0, VALIDATION: 0.0}
    places: list[int] = []
    kept = 0
    for size in sizes.tolist():
        half = size / 2  # a group is added to a split if that brings its size nearer to the wanted one
        if taken[TEST] + half <= wanted_test and wanted_test > 0:
            places.append(TEST)
            taken[TEST] += size
        elif taken[VALIDATION] + half <= wanted_validation and wanted_validation > 0:
            places.append(VALIDATION)
            taken[VALIDATION] += size
        elif fraction < 1 and kept + half > wanted_train:
            places.append(LEFT_OUT)
        else:
            places.append(0)
            kept += size
    found = np.array(places, dtype=np.int64)
    train = np.flatnonzero(found == 0)
    found[train] = np.arange(len(train)) * folds // max(len(train), 1)
    return found


def _rank_order(names: list[str], seed: int) -> np.ndarray:
    """Return the groups in the order of a hash of key and seed."""
    hashes = b"".join(_rank(name, seed) for name in names)
    words = np.frombuffer(hashes, dtype=">u8").reshape(len(names), 4)
    return np.lexsort(words.T[::-1])  # by the first word, then the second, …


def _rank(key: str, seed: int) -> bytes:
    return hashlib.sha256(f"{seed}\x00{key}".encode()).digest()


def _most_frequent(values: list[str]) -> str:
    return max(sorted(set(values)), key=values.count)
