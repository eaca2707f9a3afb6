"""Paired comparison of two models on the same test rows, as a table."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from toolkit.data.corpus import Corpus
from toolkit.evaluation.decision_rule import DecisionRule
from toolkit.evaluation.metrics import softmax
from toolkit.evaluation.predictions import Predictions
from toolkit.evaluation.significance import MARGIN, Comparison, compare
from toolkit.utils.console import print_table


@dataclass(frozen=True)
class Contender:
    """A model in a comparison."""

    name: str
    predictions: Predictions
    rule: DecisionRule


@dataclass(frozen=True)
class Versus:
    """Comparison of B with A on the test rows."""

    b: str
    a: str
    comparison: Comparison

    def cells(self) -> dict[str, str]:
        """Return the value of each column, for a CSV file."""
        found = self.comparison
        low, high = found.interval
        return {
            "B": self.b,
            "against A": self.a,
            "Δ macro-F1 points": f"{100 * found.macro_f1_difference:+.2f}",
            "95 % interval": f"{100 * low:+.2f} … {100 * high:+.2f}",
            "McNemar p": f"{found.mcnemar_p:.2g}",
            "only A right": str(found.only_a_right),
            "only B right": str(found.only_b_right),
            "Δ accuracy points": f"{100 * found.accuracy_difference:+.2f}",
            "same label": f"{100 * found.agreement:.2f} %",
            "verdict": found.verdict,
            "rows to decide": "" if found.rows_to_decide is None else str(found.rows_to_decide),
        }

    def shown(self) -> dict[str, str]:
        """Return the cells with verdict and rows to decide in one column, for a printed table."""
        cells = self.cells() | {"verdict": self.comparison.verdict_text}
        del cells["rows to decide"]
        return cells


def versus(corpus: Corpus, b: Contender, a: Contender, margin: float = MARGIN) -> Versus:
    """Compare two models on the test rows, each with its own decision rule."""
    test = corpus.rows("test")
    a_labels, b_labels = (c.rule.predict(softmax(c.predictions.of(test).astype(np.float64))) for c in (a, b))
    return Versus(b.name, a.name, compare(corpus.labels[test], a_labels, b_labels, len(corpus.label_names), margin))


def render(found: Sequence[Versus]) -> None:
    """Print the comparisons as a table on stdout."""
    if not found:
        return
    margin = 100 * found[0].comparison.margin
    points = f"{margin:g} point{'s' * (margin != 1)}"
    title = f"paired comparison on the same {found[0].comparison.rows:,} test rows; verdict at a margin of {points}"
    omitted = ("only A right", "only B right", "Δ accuracy points")
    lines = [{k: v for k, v in each.shown().items() if k not in omitted} for each in found]
    print_table(lines, title, left=("B", "against A", "verdict"), dispensable=("McNemar p", "same label"))
