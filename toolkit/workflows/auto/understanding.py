"""What `hbt auto` understands of a file before it trains: how it was saved, its columns, labels and splits."""

from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path

from toolkit.config.settings import CorpusSettings
from toolkit.data.columns import LABEL_COLUMNS, TEXT_COLUMNS
from toolkit.data.corpus import Corpus, corpus_from_table, find_columns, label_values, read_source
from toolkit.data.profile import DataProfile, profile
from toolkit.data.tables import Table
from toolkit.modeling.known_encoders import KnownEncoder, encoder_for
from toolkit.utils.console import printable
from toolkit.utils.errors import InputError

FOLDS = (5, 3, 2)
"""Numbers of folds, the best first; a file with a rare label has fewer."""
MANY_LABELS, FEW_ROWS = 30, 10
"""More labels, or a label with fewer rows, are doubtful."""
SHOWN = 12
"""Labels that are listed."""
SURE = ("text", "texts", "label", "labels")
"""Names of columns that leave no doubt, whatever other columns there are."""
_SAFE = ("utf",)
_NAMES = {"\t": "tab", ",": "comma", ";": "semicolon", "|": "bar"}


@dataclass(frozen=True)
class Understood:
    """A labeled file as a run will read it."""

    corpus: Corpus
    """Split into as many folds as its rarest label allows."""
    encoder: KnownEncoder
    lines: tuple[str, ...]
    """What was understood, for people."""
    doubts: tuple[str, ...]
    """What may be wrong, each with the option that settles it."""


def understand(settings: CorpusSettings) -> Understood:
    """Read the file in `settings`. Columns without a known name are found by their content.

    Raises: InputError if the file cannot be read or a run would reject it.
    """
    table = read_source(settings)
    settings, doubts = _with_columns(table, settings)
    if settings.encoding is None and not table.dialect.encoding.replace("-", "").startswith(_SAFE):
        doubts.append(f"the encoding {table.dialect.encoding} is a guess (--encoding)")
    corpus = _corpus(table, settings)
    found = profile(table, corpus.settings)
    counts = Counter(corpus.label_names[label] for label in corpus.labels)
    if len(counts) > MANY_LABELS:
        doubts.append(f"column {found.label_column!r} has {len(counts)} different labels (--label-column)")
    rarest = min(counts, key=counts.__getitem__)
    if counts[rarest] < FEW_ROWS:
        doubts.append(f"label {printable(rarest)!r} has only {counts[rarest]} rows (merge it with another)")
    encoder = encoder_for(found.script_shares, corpus.texts)
    return Understood(corpus, encoder, _lines(table, corpus, found, counts), tuple(doubts))


def _with_columns(table: Table, settings: CorpusSettings) -> tuple[CorpusSettings, list[str]]:
    """Return `settings` with the names of both columns, and what is doubtful about them."""
    doubts: list[str] = []
    text, label = settings.text_column, settings.label_column
    text = text or _by_name(table, TEXT_COLUMNS, "text", doubts)
    if text is None:
        text = _longest_texts(table, {label} if label else set())
        if text is not None:
            doubts.append(f"column {text!r} is taken for the texts, which are the longest (--text-column)")
    label = label or _by_name(table, LABEL_COLUMNS, "label", doubts)
    if label is None and text is not None:
        label = _fewest_values(table, text)
        if label is not None:
            values = len(set(label_values(table, label)))
            doubts.append(f"column {label!r} is taken for the labels: {values} different values (--label-column)")
    settings = replace(settings, text_column=text, label_column=label)
    find_columns(table, settings)  # raises InputError for a column that is still unknown
    return settings, doubts


def _by_name(table: Table, known: tuple[str, ...], kind: str, doubts: list[str]) -> str | None:
    """Return the column with the first of the known names, as a run would; more than one is doubtful."""
    by_lower = {name.strip().casefold(): name for name in reversed(table.columns)}
    found = [by_lower[name.casefold()] for name in known if name.casefold() in by_lower]
    if len(found) > 1 and found[0].strip().casefold() not in SURE:
        others = ", ".join(map(repr, found[1:]))
        doubts.append(f"column {found[0]!r} is taken for the {kind}s, but there is {others}, too (--{kind}-column)")
    return found[0] if found else None


def _longest_texts(table: Table, without: Collection[str]) -> str | None:
    """Return the column with the longest texts, most of which are different; None if there is none."""
    lengths = {}
    for name, values in table.columns.items():
        texts = [value for value in values if isinstance(value, str)]
        if name not in without and len(set(texts)) > len(table) / 2 and " " in " ".join(texts[:100]).strip():
            lengths[name] = sum(map(len, texts)) / len(texts)
    return max(lengths, key=lengths.__getitem__, default=None)


def _fewest_values(table: Table, text: str) -> str | None:
    """Return the column with the fewest different values, two at least; None if every column has many."""
    counts = {}
    for name in table.columns:
        values = set(label_values(table, name))
        if name not in (text, "split") and None not in values and 2 <= len(values) <= min(100, len(table) / 4):
            counts[name] = len(values)
    return min(counts, key=counts.__getitem__, default=None)


def _corpus(table: Table, settings: CorpusSettings) -> Corpus:
    """Return the corpus with the largest of FOLDS that its rarest label allows."""
    refused: InputError | None = None
    for folds in FOLDS:
        try:
            return corpus_from_table(table, replace(settings, folds=folds))
        except InputError as error:
            refused = error
            if "folds" not in str(error):
                break
    assert refused is not None
    raise refused


def _lines(table: Table, corpus: Corpus, found: DataProfile, counts: Counter[str]) -> tuple[str, ...]:
    how = ""
    if Path(table.source).suffix.lower() in (".csv", ".tsv"):
        separator = _NAMES.get(table.dialect.separator, repr(table.dialect.separator))
        how = f", {table.dialect.encoding}, separated by {separator}"
    scripts = sorted(found.script_shares.items(), key=lambda item: -item[1])
    letters = ", ".join(f"{script} {share:.0%}" for script, share in scripts if share >= 0.005)
    words = f", {found.words.median} words (median)" if found.words is not None else ""
    labels = [f"{printable(name)} {count:,}" for name, count in counts.most_common(SHOWN)]
    more = [f"and {len(counts) - SHOWN} more"] if len(counts) > SHOWN else []
    given = any(name.strip().lower() == "split" for name in table.columns)
    parts = [f"{len(corpus.rows(part)):,} {part}" for part in ("train", "validation", "test")]
    lines = [
        f"{table.source}: {len(table):,} rows{how}",
        f"texts: column {found.text_column!r}{words}; letters: {letters or 'none'}",
        f"labels: column {found.label_column!r}, {len(counts)}: {', '.join([*labels, *more])}",
        f"splits: {', '.join(parts)}{' (column split)' if given else ''}",
    ]
    if found.duplicate_rows:
        conflicts = f", {found.conflicting_groups:,} with conflicting labels" if found.conflicting_groups else ""
        lines.append(f"duplicates: {found.duplicate_rows:,} rows in {found.duplicate_groups:,} groups{conflicts}")
    return tuple(lines)
