"""The profile of a labeled file that `hbt data FILE` shows before training.

It also covers files that a run would reject: rows without text or label are counted, and the field `problem` holds the
reason. A profile never contains a text of the file.
"""

import re
import unicodedata
from collections import Counter
from dataclasses import dataclass

import numpy as np
from tokenizers import Tokenizer

from toolkit.config.settings import CorpusSettings
from toolkit.data.corpus import (
    Corpus,
    corpus_from_table,
    duplicate_groups,
    find_columns,
    label_counts,
    label_values,
    text_values,
)
from toolkit.data.normalization import key_of_normalized, normalize
from toolkit.data.splits import LEFT_OUT, TEST_SHARE
from toolkit.data.tables import Table
from toolkit.utils.console import bar
from toolkit.utils.errors import InputError
from toolkit.utils.letters import script_name

SCRIPTS = ("Bengali", "Latin", "Devanagari", "Arabic")
BINS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)
"""The shortest length in each bin of the length histogram."""
LABELS_SHOWN = 50
_STEP = 10_000
"""Rows that are worked on at a time."""

_EMOJI = re.compile("[\U0001f1e6-\U0001f1ff\U0001f300-\U0001faff\u2600-\u27bf\u2b50\u2b55\u231a\u231b]")


@dataclass(frozen=True)
class Lengths:
    """Distribution of the lengths of the texts; rows without text are not counted."""

    median: int
    p95: int
    p99: int
    max: int
    histogram: dict[str, int]
    """Range of lengths, such as "4-7", to number of rows; in order, without gaps."""


@dataclass(frozen=True)
class DataProfile:
    """Profile of a labeled file. `dataclasses.asdict` makes it JSON."""

    source: str
    text_column: str
    label_column: str
    rows: int
    empty_rows: int
    """Rows whose normalized text is empty."""
    labels: dict[str, int]
    """Label to number of rows, of the LABELS_SHOWN most frequent; empty if most values are distinct."""
    distinct_labels: int
    missing_labels: int
    duplicate_groups: int
    """Groups of rows with the same letters and digits after normalization; rows without text are not counted."""
    duplicate_rows: int
    conflicting_groups: int
    """Groups of duplicates with more than one label."""
    random_split_test_rows: int
    random_split_leaks: float
    """Expected number of test rows with a duplicate among the training rows, if rows were split at random."""
    normalized_rows: int
    """Rows that normalization changes."""
    emoji_rows: int
    script_shares: dict[str, float]
    """Script to its fraction of all letters."""
    words: Lengths | None
    """None if no row has text."""
    tokens: Lengths | None
    """With special tokens, not truncated; None without a tokenizer."""
    max_length: int | None
    """Maximum number of tokens of a text in a run; None without a tokenizer."""
    cut_rows: int | None
    """Rows with more tokens, which a run cuts."""
    splits: dict[str, dict[str, int]] | None
    """Split to label to number of rows, as in a run; None if there is a `problem`."""
    left_out_rows: int
    """Training rows that a run would not use: duplicates of given test rows, or outside --data-fraction."""
    problem: str | None
    """Why a run would reject the file; None if it would not."""


def profile(table: Table, settings: CorpusSettings, tokenizer: Tokenizer | None = None) -> DataProfile:
    """Return the profile of `table` for a run with `settings`.

    Raises: InputError if the text or the label column is not found or the text column contains other types.
    """
    text_column, label_column = find_columns(table, settings)
    raw = text_values(table, text_column)
    texts, keys = _normalized(raw)
    labels = label_values(table, label_column, settings.missing_label)
    nonempty = [row for row, text in enumerate(texts) if text]
    groups = [[nonempty[i] for i in rows] for rows in duplicate_groups([keys[row] for row in nonempty])]
    counts = Counter(label for label in labels if label is not None)
    test_rows = round(TEST_SHARE * len(nonempty))
    drawn, problem = _drawn_split(table, settings, keys)
    tokens = [] if tokenizer is None else _token_counts(tokenizer, [raw[row] for row in nonempty])
    longest = None if tokenizer is None or tokenizer.truncation is None else int(tokenizer.truncation["max_length"])
    return DataProfile(
        source=table.source,
        text_column=text_column,
        label_column=label_column,
        rows=len(table),
        empty_rows=len(table) - len(nonempty),
        labels=dict(counts.most_common(LABELS_SHOWN)) if len(counts) <= max(2, len(table) / 2) else {},
        distinct_labels=len(counts),
        missing_labels=labels.count(None),
        duplicate_groups=len(groups),
        duplicate_rows=sum(map(len, groups)),
        conflicting_groups=sum(len({labels[row] for row in rows} - {None}) > 1 for rows in groups),
        random_split_test_rows=test_rows,
        random_split_leaks=expected_leaks([len(rows) for rows in groups], len(nonempty), test_rows),
        normalized_rows=sum(a != b for a, b in zip(raw, texts, strict=True)),
        emoji_rows=sum(_EMOJI.search(text) is not None for text in texts),
        script_shares=script_shares(texts),
        words=_lengths([len(texts[row].split()) for row in nonempty]),
        tokens=_lengths(tokens),
        max_length=longest,
        cut_rows=None if longest is None else sum(length > longest for length in tokens),
        splits=None if drawn is None else label_counts(drawn),
        left_out_rows=0 if drawn is None else int((drawn.fold == LEFT_OUT).sum()),
        problem=problem,
    )


def expected_leaks(group_sizes: list[int], rows: int, test_rows: int) -> float:
    """Return the expected number of test rows with a duplicate in training, for `test_rows` of `rows` drawn at random.

    The value is exact: a row of a group of g is in the test split with probability t/n. Given that, all its g-1
    duplicates are there too with probability (t-1)/(n-1) · (t-2)/(n-2) ⋯ (t-g+1)/(n-g+1); otherwise at least one is in
    training and the row leaks. The expectations of the rows add up, although the rows are not independent.
    """
    leaks = 0.0
    for size in group_sizes:
        together = 1.0
        for i in range(1, size):
            together *= max(test_rows - i, 0) / (rows - i)
        leaks += size * test_rows / rows * (1 - together)
    return leaks


def _normalized(raw: list[str]) -> tuple[list[str], list[str]]:
    """Return the normalized texts and their duplicate keys."""
    texts: list[str] = []
    keys: list[str] = []
    with bar("finding duplicates", len(raw)) as advance:
        for start in range(0, len(raw), _STEP):
            some = [normalize(text) for text in raw[start : start + _STEP]]
            texts += some
            keys += map(key_of_normalized, some)
            advance(len(some))
    return texts, keys


def _drawn_split(table: Table, settings: CorpusSettings, keys: list[str]) -> tuple[Corpus | None, str | None]:
    try:
        return corpus_from_table(table, settings, keys), None
    except InputError as error:
        return None, str(error)


def script_shares(texts: list[str]) -> dict[str, float]:
    """Return the fraction of letters (Unicode category L) by script, which is the first word of a letter's name."""
    shares = dict.fromkeys((*SCRIPTS, "other"), 0)
    by_name = {script.upper(): script for script in SCRIPTS}
    letters = Counter[str]()
    for start in range(0, len(texts), _STEP):
        letters.update("".join(texts[start : start + _STEP]))
    for letter, count in letters.items():
        if unicodedata.category(letter).startswith("L"):
            shares[by_name.get(script_name(letter), "other")] += count
    total = sum(shares.values())
    return {script: count / total if total else 0.0 for script, count in shares.items()}


def _token_counts(tokenizer: Tokenizer, texts: list[str]) -> list[int]:
    copy = Tokenizer.from_str(tokenizer.to_str())  # without truncation, which would hide long texts
    copy.no_truncation()
    copy.no_padding()
    counts: list[int] = []
    with bar("counting tokens", len(texts)) as advance:
        for start in range(0, len(texts), _STEP):  # an encoding is many times larger than its text
            counts += map(len, copy.encode_batch_fast(texts[start : start + _STEP]))
            advance(len(counts) - start)
    return counts


def _lengths(found: list[int]) -> Lengths | None:
    if not found:
        return None
    lengths = np.array(found)
    p50, p95, p99 = (int(np.percentile(lengths, q, method="inverted_cdf")) for q in (50, 95, 99))
    longest = int(lengths.max())
    starts = [start for start in BINS if start <= longest]
    histogram = {}
    for start, after in zip(starts, [*starts[1:], None], strict=True):
        name = f"{start}+" if after is None and start == BINS[-1] else f"{start}-{(after or 2 * start) - 1}"
        inside = (lengths >= start) & (lengths < (after or longest + 1))
        histogram["1" if start == 1 else name] = int(inside.sum())
    return Lengths(p50, p95, p99, longest, histogram)
