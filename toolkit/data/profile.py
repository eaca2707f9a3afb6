"""What `hbt data FILE` tells about a file of labeled texts before anybody trains on it.

It looks at files that a run would refuse: rows without text or label are counted, and what stands in
the way of a run is one field, `problem`. No text of the file is ever part of a profile.
"""

import re
import unicodedata
from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np
from tokenizers import Tokenizer

from toolkit.config.settings import CorpusSettings
from toolkit.data.corpus import (
    corpus_from_table,
    describe_split,
    duplicate_groups,
    duplicate_key,
    find_columns,
    label_values,
    text_values,
)
from toolkit.data.normalization import normalize
from toolkit.data.splits import TEST_SHARE
from toolkit.data.tables import Table
from toolkit.utils.errors import InputError

SCRIPTS = ("Bengali", "Latin", "Devanagari", "Arabic")
BINS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)
"""The shortest length in each bar of the length picture."""
LABELS_SHOWN = 50

_EMOJI = re.compile("[\U0001f1e6-\U0001f1ff\U0001f300-\U0001faff\u2600-\u27bf\u2b50\u2b55\u231a\u231b]")


@dataclass(frozen=True)
class Lengths:
    """How long the texts are; rows without text do not count."""

    median: int
    p95: int
    p99: int
    max: int
    histogram: dict[str, int]
    """Range of lengths, such as "4-7", to rows; in order, without gaps."""


@dataclass(frozen=True)
class DataProfile:
    """What is in a file of labeled texts; goes to JSON with `dataclasses.asdict`."""

    source: str
    text_column: str
    label_column: str
    rows: int
    empty_rows: int
    """Rows whose normalized text is empty."""
    labels: dict[str, int]
    """Label to rows, commonest first; the LABELS_SHOWN commonest, none if the column hardly looks like labels."""
    distinct_labels: int
    missing_labels: int
    duplicate_groups: int
    """Groups of rows with the same letters and digits after normalisation; rows without text do not count."""
    duplicate_rows: int
    conflicting_groups: int
    """Groups of duplicates with more than one label."""
    random_split_test_rows: int
    random_split_leaks: float
    """Test rows with a duplicate among the training rows that a random split of rows has in the mean."""
    normalized_rows: int
    """Rows that normalisation changes."""
    emoji_rows: int
    script_shares: dict[str, float]
    """Script to its share of all letters."""
    words: Lengths | None
    """None if no row has text."""
    tokens: Lengths | None
    """With the special tokens, uncut; None without a tokenizer."""
    splits: dict[str, dict[str, int]] | None
    """Split to label to rows, as a run would draw them; None if there is a `problem`."""
    left_out_rows: int
    """Training rows that a run would leave out: duplicates of given test rows, or outside --data-fraction."""
    problem: str | None
    """Why a run would refuse the file."""


def profile(table: Table, settings: CorpusSettings, tokenizer: Tokenizer | None = None) -> DataProfile:
    """Look at `table` as a run with `settings` would.

    Raises: InputError if the text or the label column cannot be found or the texts are no texts.
    """
    text_column, label_column = find_columns(table, settings)
    raw = text_values(table, text_column)
    texts = [normalize(text) for text in raw]
    labels = label_values(table, label_column)
    full = [row for row, text in enumerate(texts) if text]
    groups = [[full[i] for i in rows] for rows in duplicate_groups([duplicate_key(texts[row]) for row in full])]
    counts = Counter(label for label in labels if label is not None)
    test_rows = round(TEST_SHARE * len(full))
    drawn, problem = _drawn_split(table, settings)
    return DataProfile(
        source=table.source,
        text_column=text_column,
        label_column=label_column,
        rows=len(table),
        empty_rows=len(table) - len(full),
        labels=dict(counts.most_common(LABELS_SHOWN)) if len(counts) <= max(2, len(table) / 2) else {},
        distinct_labels=len(counts),
        missing_labels=labels.count(None),
        duplicate_groups=len(groups),
        duplicate_rows=sum(map(len, groups)),
        conflicting_groups=sum(len({labels[row] for row in rows} - {None}) > 1 for rows in groups),
        random_split_test_rows=test_rows,
        random_split_leaks=expected_leaks([len(rows) for rows in groups], len(full), test_rows),
        normalized_rows=sum(a != b for a, b in zip(raw, texts, strict=True)),
        emoji_rows=sum(_EMOJI.search(text) is not None for text in texts),
        script_shares=_script_shares(texts),
        words=_lengths([len(texts[row].split()) for row in full]),
        tokens=None if tokenizer is None else _lengths(_token_counts(tokenizer, [raw[row] for row in full])),
        splits=drawn and drawn["counts"],
        left_out_rows=drawn["left_out_rows"] if drawn else 0,
        problem=problem,
    )


def expected_leaks(group_sizes: list[int], rows: int, test_rows: int) -> float:
    """Mean number of test rows with a duplicate in training when `test_rows` of `rows` are drawn at random.

    Exact, without drawing: a row of a group of g lands in the test split with probability t/n. Given
    that, all its g-1 duplicates land there too with probability (t-1)/(n-1) · (t-2)/(n-2) ⋯ (t-g+1)/(n-g+1);
    otherwise at least one is in training and the row leaks. The mean of a sum is the sum of the means, so
    the rows simply add up, though they are not independent.
    """
    leaks = 0.0
    for size in group_sizes:
        together = 1.0
        for i in range(1, size):
            together *= max(test_rows - i, 0) / (rows - i)
        leaks += size * test_rows / rows * (1 - together)
    return leaks


def _drawn_split(table: Table, settings: CorpusSettings) -> tuple[dict[str, Any] | None, str | None]:
    try:
        return describe_split(corpus_from_table(table, settings)), None
    except InputError as error:
        return None, str(error)


def _script_shares(texts: list[str]) -> dict[str, float]:
    """Share of the letters (Unicode category L) by script, told by the first word of a letter's name."""
    shares = dict.fromkeys((*SCRIPTS, "other"), 0)
    by_name = {script.upper(): script for script in SCRIPTS}
    for letter, count in Counter("".join(texts)).items():
        if unicodedata.category(letter).startswith("L"):
            shares[by_name.get(unicodedata.name(letter, "").split(" ")[0], "other")] += count
    total = sum(shares.values())
    return {script: count / total if total else 0.0 for script, count in shares.items()}


def _token_counts(tokenizer: Tokenizer, texts: list[str]) -> list[int]:
    uncut = Tokenizer.from_str(tokenizer.to_str())  # a copy: a stored truncation would hide the long texts
    uncut.no_truncation()
    uncut.no_padding()
    return [len(encoding.ids) for encoding in uncut.encode_batch(texts)]


def _lengths(lengths: list[int]) -> Lengths | None:
    if not lengths:
        return None
    p50, p95, p99 = (int(np.percentile(lengths, q, method="inverted_cdf")) for q in (50, 95, 99))
    longest = max(lengths)
    starts = [start for start in BINS if start <= longest]
    histogram = {}
    for start, after in zip(starts, [*starts[1:], None], strict=True):
        name = f"{start}+" if after is None and start == BINS[-1] else f"{start}-{(after or 2 * start) - 1}"
        histogram["1" if start == 1 else name] = sum(
            start <= length and (after is None or length < after) for length in lengths
        )
    return Lengths(p50, p95, p99, longest, histogram)
