"""Is a model worth shipping? Its macro-F1 beside the linear baseline and beside chance, on the same test rows.

A predictor that ignores the text reaches a macro-F1 of 1 / labels at most, which it does by drawing labels as often as
they occur; a constant label scores less.
"""

from dataclasses import dataclass
from typing import Any

from toolkit.data.corpus import Corpus
from toolkit.evaluation.comparison import Contender
from toolkit.evaluation.metrics import macro_f1, softmax
from toolkit.evaluation.significance import compare, macro_f1_interval


@dataclass(frozen=True)
class Standing:
    """What a model is worth on the test rows; intervals are 95 % bootstrap intervals."""

    rows: int
    macro_f1: float
    interval: tuple[float, float]
    """Of the macro-F1."""
    linear_macro_f1: float
    difference_interval: tuple[float, float]
    """Of the macro-F1 minus that of the linear baseline, paired."""
    chance: float
    """The macro-F1 that a predictor reaches that ignores the text."""

    @property
    def needs_force(self) -> bool:
        """Whether the model is not worth shipping: chance is not beaten, or the linear baseline is better."""
        return self.interval[0] <= self.chance or self.difference_interval[1] < 0

    @property
    def short(self) -> str:
        """The problem in a few words for a table; empty if the model is at least as good as the linear baseline."""
        if self.interval[0] <= self.chance:
            return "near chance"
        if self.difference_interval[1] < 0:
            return "worse than linear baseline"
        return "below linear baseline" if self.macro_f1 < self.linear_macro_f1 else ""

    @property
    def problem(self) -> str:
        """The problem in one sentence without its subject; empty if there is none."""
        if not self.short:
            return ""
        low, high = self.difference_interval
        beside = (
            f"macro-F1 {self.macro_f1:.4f} against {self.linear_macro_f1:.4f} on the same {self.rows:,} test rows "
            f"({100 * (self.macro_f1 - self.linear_macro_f1):+.2f} points, 95 % interval {100 * low:+.2f} … "
            f"{100 * high:+.2f})"
        )
        if self.interval[0] <= self.chance:
            return (
                f"near chance: macro-F1 {self.macro_f1:.4f} on {self.rows:,} test rows, 95 % interval "
                f"{self.interval[0]:.4f} … {self.interval[1]:.4f}; ignoring the text gives {self.chance:.4f}, the "
                f"linear baseline {self.linear_macro_f1:.4f}"
            )
        if high < 0:
            return f"worse than the linear baseline: {beside}"
        return f"below the linear baseline, a difference within chance: {beside}"


def standing_of(corpus: Corpus, model: Contender, linear: Contender) -> Standing:
    """Return the standing of `model` on the test rows, each model with its own decision rule."""
    test, labels = corpus.rows("test"), len(corpus.label_names)
    truth = corpus.labels[test]
    own, other = (each.rule.predict(softmax(each.predictions.of(test))) for each in (model, linear))
    return Standing(
        rows=len(test),
        macro_f1=macro_f1(truth, own, labels),
        interval=macro_f1_interval(truth, own, labels),
        linear_macro_f1=macro_f1(truth, other, labels),
        difference_interval=compare(truth, other, own, labels).interval,
        chance=1 / labels,
    )


def standing_in(details: dict[str, Any]) -> Standing | None:
    """Return the standing in the details of an exported stage; None if they are older than this figure."""
    if "standing" not in details:
        return None
    values = details["standing"]
    intervals = {name: tuple(values[name]) for name in ("interval", "difference_interval")}  # JSON has lists
    return Standing(**values | intervals)
