"""What compression forgot: on which kinds of rows is B worse than A, by more than chance?

An average hides that a smaller model may forget a rare label or a script (Hooker et al. 2019, 2020). The test rows are
cut into slices: by label, by the slices of the corpus, length, script, rare words, duplicates, and by how sure the
teacher was. Each slice gets McNemar's exact test, corrected for the number of slices.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np

from toolkit.data.corpus import Corpus
from toolkit.data.normalization import normalize
from toolkit.evaluation.comparison import Contender
from toolkit.evaluation.metrics import softmax
from toolkit.evaluation.significance import holm, mcnemar_p
from toolkit.utils.console import print_table
from toolkit.utils.letters import script_name

LEAST_ROWS = 10
"""Slices of fewer test rows, or of all but fewer, are left out: each further test costs the others power."""
LENGTHS = (1, 4, 8, 16, 32, 64, 128)
"""Shortest number of words in each band of lengths."""
RARE = 2
"""A word is rare if at most so many training rows have it."""
MANY_RARE = 1 / 3
"""Share of the words of a text from which on it has many rare ones."""
ONE_SCRIPT = 0.8
"""Share of the letters of a text from which on it is in one script."""
UNSURE = 0.2
"""Share of the test rows that are those on which the teacher was least sure."""
SIGNIFICANT = 0.05
SHOWN = 10
"""Slices on the card."""


@dataclass(frozen=True)
class SliceComparison:
    """B compared with A on the test rows of one slice; differences are B minus A."""

    kind: str
    """What the rows have in common: label, slice, words, script, rare words, duplicates or teacher."""
    name: str
    rows: int
    a_accuracy: float
    b_accuracy: float
    only_a_right: int
    only_b_right: int
    p: float
    """Of McNemar's exact test, two-sided."""
    p_holm: float
    """Corrected for the number of slices (Holm 1979)."""

    @property
    def difference(self) -> float:
        """Accuracy of B minus that of A."""
        return (self.only_b_right - self.only_a_right) / self.rows

    @property
    def verdict(self) -> str:
        """worse or better if the difference is larger than chance, else within chance."""
        if self.p_holm >= SIGNIFICANT:
            return "within chance"
        return "worse" if self.difference < 0 else "better"

    def cells(self) -> dict[str, str]:
        """Return the line of a table."""
        return {
            "Slice": f"{self.kind}: {self.name}",
            "rows": f"{self.rows:,}",
            "accuracy A": f"{self.a_accuracy:.4f}",
            "accuracy B": f"{self.b_accuracy:.4f}",
            "Δ points": f"{100 * self.difference:+.2f}",
            "only A right": f"{self.only_a_right:,}",
            "only B right": f"{self.only_b_right:,}",
            "p (Holm)": f"{self.p_holm:.2g}",
            "verdict": self.verdict,
        }


def as_slice(entries: Mapping[str, Any]) -> SliceComparison:
    """Return a slice of `SliceReport.as_dict`."""
    return SliceComparison(**{field.name: entries[field.name] for field in fields(SliceComparison)})


@dataclass(frozen=True)
class SliceReport:
    """B compared with A on every slice of the test rows, worst first."""

    b: str
    a: str
    rows: int
    slices: tuple[SliceComparison, ...]
    lost: tuple[int, ...]
    """Row numbers, as in the data file, counted from 0, of the test rows that only A labels right."""
    gained: tuple[int, ...]
    """Those that only B labels right."""
    changed: tuple[int, ...]
    """Those to which A and B give different wrong labels."""

    def as_dict(self) -> dict[str, Any]:
        """Return the report for a JSON file, with difference and verdict of each slice."""
        more = [asdict(each) | {"difference": each.difference, "verdict": each.verdict} for each in self.slices]
        return asdict(self) | {"slices": more}


def compare_on_slices(corpus: Corpus, b: Contender, a: Contender, teacher: Contender | None = None) -> SliceReport:
    """Compare B with A on every slice of the test rows, each with its own decision rule.

    teacher: the model that says on which rows it was unsure; None takes A.
    """
    test = corpus.rows("test")
    truth = corpus.labels[test]
    a_labels, b_labels = (each.rule.predict(_probabilities(each, test)) for each in (a, b))
    a_right, b_right = a_labels == truth, b_labels == truth
    found_slices = slices_of(corpus, teacher or a)
    masks = {key: mask for key, mask in found_slices if min(mask.sum(), (~mask).sum()) >= LEAST_ROWS}
    counts = {
        key: (int((a_right & ~b_right & m).sum()), int((b_right & ~a_right & m).sum())) for key, m in masks.items()
    }
    p_values = [mcnemar_p(*count) for count in counts.values()]
    found = [
        SliceComparison(
            kind=kind,
            name=name,
            rows=int(mask.sum()),
            a_accuracy=float(a_right[mask].mean()),
            b_accuracy=float(b_right[mask].mean()),
            only_a_right=counts[kind, name][0],
            only_b_right=counts[kind, name][1],
            p=p,
            p_holm=corrected,
        )
        for ((kind, name), mask), p, corrected in zip(masks.items(), p_values, holm(p_values), strict=True)
    ]
    order = {"worse": 0, "within chance": 1, "better": 2}
    found.sort(key=lambda each: (order[each.verdict], each.difference, each.p))

    def rows(mask: np.ndarray) -> tuple[int, ...]:
        return tuple(test[mask].tolist())

    return SliceReport(
        b=b.name,
        a=a.name,
        rows=len(test),
        slices=tuple(found),
        lost=rows(a_right & ~b_right),
        gained=rows(b_right & ~a_right),
        changed=rows(~a_right & ~b_right & (a_labels != b_labels)),
    )


def slices_of(corpus: Corpus, teacher: Contender) -> Iterator[tuple[tuple[str, str], np.ndarray]]:
    """Yield kind and name of each slice of the test rows with its mask, bool (test rows,). A mask may be empty."""
    test = corpus.rows("test")
    for i, label in enumerate(corpus.label_names):
        yield ("label", label), corpus.labels[test] == i
    for name, mask in corpus.slices.items():
        yield ("slice", name), mask[test]
    words = [corpus.keys[row].split() for row in test]
    lengths = np.array([len(each) for each in words])
    for start, after in zip(LENGTHS, (*LENGTHS[1:], None), strict=True):
        band = f"{start} or more" if after is None else f"{start} to {after - 1}"
        yield ("words", band), (lengths >= start) & (lengths < (after or np.inf))
    scripts = np.array([script_of(corpus.texts[row]) for row in test])
    for each in dict.fromkeys(scripts.tolist()):
        yield ("script", each), scripts == each
    shares = _shares_of_rare_words(corpus, words)
    yield ("rare words", "none"), shares == 0
    yield ("rare words", "some"), (shares > 0) & (shares < MANY_RARE)
    yield ("rare words", f"{MANY_RARE:.0%} of the words or more"), shares >= MANY_RARE
    counts = Counter(corpus.keys)
    repeated = np.array([counts[corpus.keys[row]] > 1 for row in test])
    yield ("duplicates", "the text occurs again"), repeated
    yield ("duplicates", "the text is unique"), ~repeated
    sureness = _probabilities(teacher, test).max(axis=1)
    unsure = np.zeros(len(test), dtype=bool)
    unsure[sureness.argsort(kind="stable")[: round(UNSURE * len(test))]] = True
    yield ("teacher", f"least sure {UNSURE:.0%}"), unsure
    yield ("teacher", "the other rows"), ~unsure


def script_of(text: str) -> str:
    """Return the script of at least ONE_SCRIPT of the letters of `text`, else mixed scripts or no letters."""
    found = Counter((script_name(char) or "other").capitalize() for char in normalize(text) if char.isalpha())
    if not found:
        return "no letters"
    most, count = found.most_common(1)[0]
    return most if count >= ONE_SCRIPT * found.total() else "mixed scripts"


def render_slices(report: SliceReport) -> None:
    """Print the slices as a table on stdout, and the number of rows that flip."""
    title = (
        f"B: {report.b}, against A: {report.a}, on the same {report.rows:,} test rows; exact McNemar test per slice, "
        f"corrected for {len(report.slices)} slices (Holm)"
    )
    lines = [each.cells() for each in report.slices]
    print_table(lines, title, left=("Slice", "verdict"), dispensable=("only A right", "only B right"))


def _shares_of_rare_words(corpus: Corpus, words: list[list[str]]) -> np.ndarray:
    """Return the share of rare words among the words of each text, float (texts,)."""
    rows_with: Counter[str] = Counter()
    for row in corpus.rows("train"):
        rows_with.update(set(corpus.keys[row].split()))
    return np.array([sum(rows_with[word] <= RARE for word in each) / max(1, len(each)) for each in words])


def _probabilities(contender: Contender, rows: np.ndarray) -> np.ndarray:
    return softmax(contender.predictions.of(rows).astype(np.float64))
