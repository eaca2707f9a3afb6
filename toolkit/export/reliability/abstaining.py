"""Abstention of a package: the threshold in its config.json, and what it does on the test rows."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from toolkit.config.settings import ExportSettings
from toolkit.data.corpus import Corpus
from toolkit.evaluation.comparison import Contender
from toolkit.evaluation.reliability.abstention import Abstention, choose_threshold, fewest_rows, risk_curve
from toolkit.evaluation.reliability.calibration import answers
from toolkit.package import CONFIG_FILE
from toolkit.utils.errors import InputError
from toolkit.utils.figures import STYLE, save_svg

CURVE_FILE = "abstention.svg"
SIZE = (6.0, 3.8)
"""Inches."""


def add_abstention(corpus: Corpus, package: Contender, export: ExportSettings, folder: Path) -> Abstention | None:
    """Choose the threshold on the validation rows and write it into config.json; None if no risk is wanted.

    Raises: InputError if no threshold is known to keep the risk.
    """
    if export.abstain_risk is None:
        return None
    rows = corpus.rows("validation")
    scores, predicted = answers(package, rows)
    right = predicted == corpus.labels[rows]
    found = choose_threshold(scores, right, export.abstain_risk, export.confidence)
    if found is None:
        least = fewest_rows(export.abstain_risk, export.confidence)
        raise InputError(
            f"--abstain-risk {export.abstain_risk:g}: the {len(rows):,} validation rows do not show with confidence "
            f"{export.confidence:g} that any threshold keeps it (at least {least:,} must be answered, and of all rows "
            f"{1 - right.mean():.1%} are wrong); give a larger risk, a smaller --confidence or more rows"
        )
    config = json.loads((folder / CONFIG_FILE).read_text("utf-8"))
    config["abstain"] = {"below": found.threshold, "risk": found.risk, "confidence": found.confidence}
    (folder / CONFIG_FILE).write_text(json.dumps(config, indent=2, ensure_ascii=False) + "\n", "utf-8")
    return found


def abstention_facts(corpus: Corpus, package: Contender, found: Abstention) -> dict[str, Any]:
    """Return the threshold, its evidence, and coverage and realized risk on the test rows."""
    from scipy.stats import beta

    rows = corpus.rows("test")
    scores, predicted = answers(package, rows)
    right = predicted == corpus.labels[rows]
    answered = scores >= found.threshold
    count, errors = int(answered.sum()), int((answered & ~right).sum())
    test = {
        "rows": len(rows),
        "answered": count,
        "errors": errors,
        "coverage": count / len(rows),
        "risk": errors / count if count else None,
        "interval": [
            float(beta.ppf(0.025, errors, count - errors + 1)) if errors else 0.0,
            float(beta.ppf(0.975, errors + 1, count - errors)) if errors < count else 1.0,
        ],
        "risk_of_all": float((~right).mean()),
    }
    return found.as_dict() | {"test": test, "curve": risk_curve(scores, right)}


def draw_risk(facts: dict[str, Any], folder: Path) -> None:
    """Write CURVE_FILE into `folder`: the share of wrong answers against the share of rows that are answered."""
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with matplotlib.rc_context(STYLE):
        fig = Figure(SIZE, layout="constrained")
        FigureCanvasAgg(fig)
        axes = fig.add_subplot()
        coverages, risks = 100 * np.array(facts["curve"]).T
        axes.plot(coverages, risks, color="#0072b2", zorder=2)
        axes.axhline(100 * facts["risk"], color="#999999", linestyle="--", zorder=1)
        test = facts["test"]
        if test["risk"] is not None:
            axes.scatter([100 * test["coverage"]], [100 * test["risk"]], s=70, color="#d55e00", zorder=3)
        axes.set_xlim(0, 101)
        axes.set_ylim(bottom=0)
        axes.set_xlabel("Answered, % of the test rows")
        axes.set_ylabel("Wrong, % of the answers")
        save_svg(fig, folder / CURVE_FILE)
