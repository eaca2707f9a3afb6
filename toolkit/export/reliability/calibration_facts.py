"""The calibration of a package and of the models beside it, for manifest and card, with a reliability diagram."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from toolkit.data.corpus import Corpus
from toolkit.evaluation.comparison import Contender
from toolkit.evaluation.predictions import Predictions
from toolkit.evaluation.reliability.calibration import calibration_of
from toolkit.evaluation.reliability.scaling import ScalingChoice
from toolkit.utils.figures import STYLE, save_svg

DIAGRAM_FILE = "calibration.svg"
SIZE = (4.8, 4.4)
"""Inches."""


def calibration_facts(
    corpus: Corpus, package: Contender, choice: ScalingChoice | None, beside: Sequence[Contender]
) -> dict[str, Any]:
    """Return the calibration errors on the test rows.

    choice: the scaling that is in the package; None if its parts were scaled by themselves.
    """
    found: dict[str, Any] = {
        "scaling": None if choice is None else choice.as_dict(),
        "package": calibration_of(corpus, package).as_dict(),
        "beside": {each.name: calibration_of(corpus, each).as_dict() for each in beside},
    }
    if choice is not None and choice.method != "none":
        undo, predictions = choice.scaling.inverse, package.predictions
        original = Predictions(predictions.rows, undo.apply(predictions.logits))
        rule = undo.moved(package.rule, len(corpus.label_names))
        found["before"] = calibration_of(corpus, Contender("before", original, rule)).as_dict()
    return found


def draw_reliability(facts: dict[str, Any], folder: Path) -> None:
    """Write DIAGRAM_FILE into `folder`: the share of right answers against the probability that was given."""
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with matplotlib.rc_context(STYLE):
        fig = Figure(SIZE, layout="constrained")
        FigureCanvasAgg(fig)
        axes = fig.add_subplot()
        axes.plot([0, 1], [0, 1], color="#999999", linestyle="--", zorder=1)
        for key, name, color in (("before", "before calibration", "#e69f00"), ("package", "package", "#0072b2")):
            if key in facts:
                probabilities, right, _ = np.array(facts[key]["bins"]).T
                label = f"{name}: error {100 * facts[key]['ece']:.1f} points"
                axes.plot(probabilities, right, color=color, marker="o", markersize=4, zorder=2, label=label)
        low = min(min(min(p, r) for p, r, _ in facts[key]["bins"]) for key in ("before", "package") if key in facts)
        axes.set_xlim(max(0.0, low - 0.05), 1.02)
        axes.set_ylim(max(0.0, low - 0.05), 1.02)
        axes.set_xlabel("Probability of the predicted label")
        axes.set_ylabel("Share of right answers, test rows")
        axes.legend(loc="upper left", frameon=False)
        save_svg(fig, folder / DIAGRAM_FILE)
