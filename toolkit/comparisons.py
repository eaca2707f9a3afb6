"""Paired comparisons of the stages of a run, from the predictions they left; no model is run for them."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from toolkit.corpus import Corpus
from toolkit.display import print_table
from toolkit.metrics import apply_threshold, softmax
from toolkit.runs import BASELINE, DISTILLATION, EXPORT, FLOOR, pruning_stages, tag_of
from toolkit.significance import MARGIN, Comparison, compare
from toolkit.stage import PREDICTIONS_FILE, RESULT_FILE, Predictions, StageResult

ENSEMBLE, TEACHER = "fold ensemble", "teacher"
"""What taught a student: the baseline's folds as they stand in their own row, or anything else."""
TEACHER_FILE = "teacher.csv"
"""The predictions of a student's teacher, in the folder of the student."""


@dataclass(frozen=True)
class Contender:
    """A model as far as a comparison knows it."""

    name: str
    predictions: Predictions
    threshold: float | None


@dataclass(frozen=True)
class Versus:
    """B against A on the test rows."""

    b: str
    a: str
    comparison: Comparison

    def cells(self) -> dict[str, str]:
        """Column to value, for a table."""
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
        """The same for people, who read the verdict as a whole."""
        cells = self.cells() | {"verdict": self.comparison.verdict_in_words}
        del cells["rows to decide"]
        return cells


def versus(corpus: Corpus, b: Contender, a: Contender, margin: float = MARGIN) -> Versus:
    """Compare two models on the test rows, each at its own threshold."""
    test = corpus.rows("test")
    a_said, b_said = (apply_threshold(softmax(c.predictions.of(test)), c.threshold) for c in (a, b))
    return Versus(b.name, a.name, compare(corpus.labels[test], a_said, b_said, len(corpus.label_names), margin))


def run_comparisons(folder: Path, corpus: Corpus) -> list[Versus]:
    """What each stage of a run won or lost against the floor and against what it came from."""
    floor = contender(folder / FLOOR, "floor")
    found = []
    if (folder / BASELINE / RESULT_FILE).is_file():
        found.append(versus(corpus, contender(folder / BASELINE, ENSEMBLE), floor))
    if (folder / DISTILLATION / RESULT_FILE).is_file():
        source = contender(folder / DISTILLATION, "student")
        teacher = teacher_of(folder)
        if teacher.name == TEACHER:
            found.append(versus(corpus, teacher, floor))
        found += [versus(corpus, source, teacher), versus(corpus, source, floor)]
    else:
        source = best_fold(folder)
    pruned = {stage.name: contender(stage, f"pruned {tag_of(stage)}") for stage in pruning_stages(folder)}
    for each in pruned.values():
        found += [versus(corpus, each, source), versus(corpus, each, floor)]
    for stage in sorted(folder.glob(f"{EXPORT}-*/{RESULT_FILE}")):
        details = StageResult.load(stage.parent).details
        artefact = contender(stage.parent, details["name"])
        found += [versus(corpus, artefact, pruned.get(details["stage"], source)), versus(corpus, artefact, floor)]
    return found


def contender(stage: Path, name: str) -> Contender:
    """The model of a finished stage."""
    result = StageResult.load(stage)
    return Contender(name, Predictions.load(stage / result.predictions), result.threshold)


def teacher_of(folder: Path) -> Contender:
    """The teacher of a run's student: ENSEMBLE for the folds of the run itself as they are, else TEACHER."""
    details = StageResult.load(folder / DISTILLATION).details
    said = Predictions.load(folder / DISTILLATION / TEACHER_FILE)
    return Contender(details["teacher_name"], said, details["teacher_threshold"])


def best_fold(folder: Path) -> Contender:
    """The one network of a baseline that is exported."""
    result = StageResult.load(folder / BASELINE)
    predictions = Predictions.load(folder / BASELINE / result.checkpoint / PREDICTIONS_FILE)
    return Contender("best fold", predictions, result.details["best_fold_threshold"])


def render(found: Sequence[Versus]) -> None:
    """Print the comparisons as a table on stdout."""
    if not found:
        return
    margin = 100 * found[0].comparison.margin
    title = f"paired, on the same {found[0].comparison.rows:,} test rows; verdict at a margin of {margin:g} point"
    left_out = ("only A right", "only B right", "Δ accuracy points")
    lines = [{k: v for k, v in each.shown().items() if k not in left_out} for each in found]
    print_table(lines, title, left=("B", "against A", "verdict"), dispensable=("McNemar p", "same label"))
