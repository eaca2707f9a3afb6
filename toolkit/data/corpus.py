"""The corpus: labeled texts, grouped by duplicate and split once.

All later stages take their rows from the corpus: training folds for fitting, validation rows for model selection,
test rows for the reported metrics.
"""

import hashlib
import json
import math
import re
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from toolkit.config.settings import CorpusSettings
from toolkit.data.columns import LABEL_COLUMNS, TEXT_COLUMNS, find_column
from toolkit.data.normalization import duplicate_key as duplicate_key, duplicate_keys, normalize
from toolkit.data.splits import LEFT_OUT, TEST, VALIDATION, draw_splits, groups_of
from toolkit.data.tables import Table, read_table
from toolkit.utils.errors import InputError

LONGEST_LABEL = 100
"""Characters; names of metrics contain labels, and MLflow accepts 250."""
NAMES_OF_01 = {"hatespeech": ("non_hate", "hate"), "hate": ("non_hate", "hate")}
GIVEN_SPLITS = {"train": 0, "training": 0, "validation": VALIDATION, "valid": VALIDATION, "val": VALIDATION}
GIVEN_SPLITS |= {"dev": VALIDATION, "test": TEST}


@dataclass(frozen=True, eq=False)
class Corpus:
    """Labeled texts in file order. Row i of every array is data row i of the file, counted from 0."""

    name: str
    texts: list[str]
    """As in the file, not normalized; the tokenizers normalize."""
    labels: np.ndarray
    """int (rows,): index into `label_names`."""
    label_names: tuple[str, ...]
    keys: list[str]
    """Duplicate key of each row."""
    fold: np.ndarray
    """int (rows,): training fold from 0, or TEST, VALIDATION, LEFT_OUT."""
    slices: dict[str, np.ndarray]
    """Name to bool (rows,): subsets that are reported separately."""
    settings: CorpusSettings
    values: tuple[str, ...] = ()
    """The labels as in the file, in the order of `label_names`, which may rename numbers."""

    def rows(self, split: str) -> np.ndarray:
        """Return the row numbers of a split: "train", "validation", "test", or "all" three."""
        if split == "train":
            return np.flatnonzero(self.fold >= 0)
        if split == "all":
            return np.flatnonzero(self.fold != LEFT_OUT)
        return np.flatnonzero(self.fold == {"validation": VALIDATION, "test": TEST}[split])

    def split_of(self, rows: np.ndarray) -> list[str]:
        """Return the name of the split of each of `rows`."""
        names = {TEST: "test", VALIDATION: "validation", LEFT_OUT: "left_out"}
        return [names.get(int(place), "train") for place in self.fold[rows]]

    def take(self, rows: np.ndarray) -> list[str]:
        """Return the texts of `rows`."""
        return [self.texts[row] for row in rows]

    @property
    def folds(self) -> int:
        """Number of training folds."""
        return int(self.fold.max()) + 1

    @property
    def fingerprint(self) -> str:
        """SHA-256 over normalized texts, labels, label names and split: if equal, results are comparable."""
        digest = hashlib.sha256(json.dumps(self.label_names).encode())
        for text, label, place in zip(self.texts, self.labels, self.fold, strict=True):
            digest.update(f"{normalize(text)}\x00{label}\x00{place}\x00".encode())
        return digest.hexdigest()


def load_corpus(settings: CorpusSettings) -> Corpus:
    """Read, validate, group and split the labeled texts that `settings` specify.

    Raises: InputError for invalid data or settings.
    """
    return corpus_from_table(read_source(settings), settings)


def read_source(settings: CorpusSettings) -> Table:
    """Return the table of `--data`: a file, or the embedded corpus for `demo`."""
    if settings.data == "demo":
        from toolkit.data.demo import demo_table

        return demo_table()
    return read_table(Path(settings.data), settings.encoding, settings.separator)


def corpus_from_table(table: Table, settings: CorpusSettings, keys: list[str] | None = None) -> Corpus:
    """Return the corpus of a table; see `load_corpus`. keys: of its rows, if they are known already."""
    if len(table) == 0:
        raise InputError(f"{table.source}: no rows; give a file with a header and labeled texts")
    text_column, label_column = find_columns(table, settings)
    texts = text_values(table, text_column)
    keys = duplicate_keys(texts) if keys is None else keys
    _refuse_empty(table, text_column, keys)
    labels, label_names, values = _labels(table, label_column, settings)
    strata = _strata(table, settings, labels)
    given = _given_split(table)
    if settings.outer_fold is not None and given is not None and (given == TEST).any():
        raise InputError(f"--outer-folds: {table.source} names its test rows; remove its column split")
    fold = draw_splits(keys, strata, settings.folds, settings.seed, settings.data_fraction, given, settings.outer_fold)
    corpus = Corpus(
        name="demo" if settings.data == "demo" else Path(table.source).stem,
        texts=texts,
        labels=labels,
        label_names=label_names,
        keys=keys,
        fold=fold,
        slices=_slices(table, settings.slice),
        settings=settings,
        values=values,
    )
    _refuse_small_splits(table, corpus)
    return corpus


def find_columns(table: Table, settings: CorpusSettings) -> tuple[str, str]:
    """Return the names of the text and the label column, from the settings or found by name."""
    return (
        find_column(table, settings.text_column, "--text-column", TEXT_COLUMNS),
        find_column(table, settings.label_column, "--label-column", LABEL_COLUMNS),
    )


def text_values(table: Table, column: str) -> list[str]:
    """Return the texts of a column, with "" for missing values.

    Raises: InputError if a value is not text.
    """
    values = table.columns[column]
    for row, value in enumerate(values):
        if value is not None and not isinstance(value, str) and not _is_nan(value):
            raise InputError(
                f"{table.source}: row {row} of column {column!r} contains {type(value).__name__}, not text; "
                "name the text column with --text-column"
            )
    return [value if isinstance(value, str) else "" for value in values]


def duplicate_groups(keys: list[str]) -> list[list[int]]:
    """Return the rows of each key that occurs more than once."""
    group, names = groups_of(keys)
    sizes = np.bincount(group, minlength=len(names))
    several = np.flatnonzero(sizes[group] > 1)
    rows = several[np.argsort(group[several], kind="stable")].tolist()
    ends = np.cumsum(sizes[sizes > 1]).tolist()
    return [rows[start:end] for start, end in zip([0, *ends], ends, strict=False)]


def describe_split(corpus: Corpus) -> dict[str, Any]:
    """Return the content of `corpus.json`: fingerprint, counts, duplicates and the rows of every split."""
    groups = duplicate_groups(corpus.keys)
    labels = corpus.labels
    parts = {name: corpus.rows(name) for name in ("train", "validation", "test")}
    return {
        "name": corpus.name,
        "fingerprint": corpus.fingerprint,
        "settings": asdict(corpus.settings),
        "label_names": list(corpus.label_names),
        "rows": len(corpus.texts),
        "duplicate_groups": len(groups),
        "duplicate_rows": sum(map(len, groups)),
        "conflicting_groups": sum(len(set(labels[rows].tolist())) > 1 for rows in groups),
        "left_out_rows": int((corpus.fold == LEFT_OUT).sum()),
        "counts": label_counts(corpus),
        "folds": [np.flatnonzero(corpus.fold == k).tolist() for k in range(corpus.folds)],
        "validation": parts["validation"].tolist(),
        "test": parts["test"].tolist(),
    }


def label_counts(corpus: Corpus) -> dict[str, dict[str, int]]:
    """Return the number of rows of each label in each split."""
    return {name: _count(corpus, corpus.rows(name)) for name in ("train", "validation", "test")}


def _count(corpus: Corpus, rows: np.ndarray) -> dict[str, int]:
    return {name: int((corpus.labels[rows] == i).sum()) for i, name in enumerate(corpus.label_names)}


def _refuse_empty(table: Table, column: str, keys: list[str]) -> None:
    empty = [row for row, key in enumerate(keys) if not key]
    if empty:
        raise InputError(
            f"{table.source}: row {empty[0]} of column {column!r} has an empty text ({len(empty)} such rows, "
            "counted from 0 after the header); remove them"
        )


def _labels(table: Table, column: str, settings: CorpusSettings) -> tuple[np.ndarray, tuple[str, ...], tuple[str, ...]]:
    """Return the index of each row's label, the names of the labels, and the labels as in the file."""
    names, values = settings.label_names, label_values(table, column, settings.missing_label)
    missing = [row for row, value in enumerate(values) if value is None]
    if missing:
        raise InputError(
            f"{table.source}: row {missing[0]} of column {column!r} has no label ({len(missing)} such rows, "
            "counted from 0 after the header); label or remove them"
        )
    longest = max((v for v in values if v is not None), key=len)
    if len(longest) > LONGEST_LABEL:
        raise InputError(
            f"{table.source}: row {values.index(longest)} of column {column!r} has a label of {len(longest)} "
            f"characters; give labels of at most {LONGEST_LABEL}, or name the label column with --label-column"
        )
    found = sorted({v for v in values if v is not None}, key=lambda v: (0, int(v), v) if _is_whole(v) else (1, 0, v))
    if len(found) < 2:
        raise InputError(
            f"{table.source}: column {column!r} contains only one label ({found[0]}); two or more are needed"
        )
    if len(found) > 1000 or len(found) > len(values) / 2:
        raise InputError(
            f"{table.source}: column {column!r} has {len(found)} different labels in {len(values)} rows; "
            "name the label column with --label-column"
        )
    if set(names) == set(found):
        found = list(names)
    elif names and (len(names) != len(found) or not all(map(_is_whole, found))):
        raise InputError(
            f"--label-names: {len(names)} names given; the labels of column {column!r} are {', '.join(found)}"
        )
    label_names = names or (NAMES_OF_01.get(column.strip().lower()) if found == ["0", "1"] else None) or tuple(found)
    index = {value: i for i, value in enumerate(found)}
    return np.array([index[v] for v in values if v is not None], dtype=np.int64), tuple(label_names), tuple(found)


def label_values(table: Table, column: str, missing: tuple[str, ...] = ()) -> list[str | None]:
    """Return the labels of a column as strings, with None for missing values; 1.0 becomes "1".

    missing: labels that mean a missing value, in addition to an empty cell and NaN.
    """
    return [_label_text(value, missing) for value in table.columns[column]]


def _label_text(value: Any, missing: tuple[str, ...]) -> str | None:
    if value is None or _is_nan(value):
        return None
    text = str(value).strip()
    if text == "" or text.lower() == "nan" or text in missing:
        return None
    return text[:-2] if re.fullmatch(r"-?\d+\.0", text) else text


def _is_nan(value: Any) -> bool:
    return isinstance(value, float) and math.isnan(value)


def _is_whole(value: str) -> bool:
    return re.fullmatch(r"-?\d+", value) is not None


def _strata(table: Table, settings: CorpusSettings, labels: np.ndarray) -> list[str]:
    by_label = [str(label) if settings.stratification == "label" else "" for label in labels]
    if settings.stratify_by is None:
        return by_label
    if settings.stratify_by not in table.columns:
        columns = ", ".join(table.columns)
        raise InputError(
            f"{table.source}: no column {settings.stratify_by!r} (--stratify-by); the columns are {columns}"
        )
    additional = table.columns[settings.stratify_by]
    return [f"{label}\x00{value}" for label, value in zip(by_label, additional, strict=True)]


def _given_split(table: Table) -> np.ndarray | None:
    column = next((name for name in table.columns if name.strip().lower() == "split"), None)
    if column is None:
        return None
    values = [str(value).strip().lower() for value in table.columns[column]]
    for row, value in enumerate(values):
        if value not in GIVEN_SPLITS:
            raise InputError(
                f"{table.source}: row {row} of column {column!r} contains {value!r}; use train, validation or test"
            )
    return np.array([GIVEN_SPLITS[value] for value in values])


def _slices(table: Table, specs: tuple[str, ...]) -> dict[str, np.ndarray]:
    slices = {}
    for spec in specs:
        span = re.fullmatch(r"(\d{0,15}):(\d{0,15})", spec)
        if span:
            start, stop = int(span[1] or 0), int(span[2] or len(table))
            if not start < min(stop, len(table)):
                raise InputError(f"--slice {spec}: no row of {table.source}, which has {len(table)}; give START:STOP")
            mask = np.zeros(len(table), dtype=bool)
            mask[start:stop] = True
            slices[f"rows {spec}"] = mask
        elif spec in table.columns:
            values = [str(value) for value in table.columns[spec]]
            for value, _ in Counter(values).most_common(20):
                slices[f"{spec}={value}"] = np.array([v == value for v in values])
        else:
            raise InputError(f"--slice {spec[:40]}: neither a column of {table.source} nor a row range such as 0:12000")
    return slices


def _refuse_small_splits(table: Table, corpus: Corpus) -> None:
    """Raise InputError unless every split and every fold contains every label."""
    folds = corpus.settings.folds
    for i, name in enumerate(corpus.label_names):
        train = corpus.fold[(corpus.labels == i) & (corpus.fold >= 0)]
        if len(set(train.tolist())) < folds:
            raise InputError(
                f"{table.source}: label {name!r} has {len(train)} distinct training rows, too few for {folds} folds; "
                "reduce --folds, merge the label with another or add rows"
            )
        for split in ("validation", "test"):
            if not (corpus.labels[corpus.rows(split)] == i).any():
                raise InputError(f"{table.source}: the {split} split has no row of label {name!r}; add rows")
