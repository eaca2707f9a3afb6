"""Measure how often a threshold of `hbt compress --abstain-risk` does not keep the wanted risk.

The validation and test rows of a stage are split again at random, many times, into as many rows to choose the threshold
on and to measure on as before. Groups of duplicates stay together. Reported for each stage and wanted risk: the share
of splits in which a threshold is found, in which the risk on the rows to measure on is above the wanted one, and in
which it is above it by more than these rows' own chance (an exact binomial test at the same confidence), with the mean
coverage. Only stored predictions are used.

    python -m benchmarks.studies.reliability.abstention STAGE [STAGE …] --out abstention.csv
"""

import argparse
from pathlib import Path
from typing import Any

import numpy as np

from toolkit.evaluation.reliability.abstention import choose_threshold
from toolkit.evaluation.reliability.calibration import answers
from toolkit.stages.run_folder import locate
from toolkit.utils.console import print_table
from toolkit.utils.errors import InputError
from toolkit.utils.files import write_lines
from toolkit.workflows.compare import contender

RISKS = (0.05, 0.1, 0.2)


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.studies.reliability.abstention", description=(__doc__ or "").split("\n\n")[0]
    )
    parser.add_argument("stages", nargs="+", type=Path, help="stages of runs, or packages")
    parser.add_argument("--splits", type=int, default=1000, help="number of random splits [default: 1000]")
    parser.add_argument("--confidence", type=float, default=0.95, help="wanted confidence [default: 0.95]")
    parser.add_argument("--out", type=Path, default=Path("abstention.csv"), help="CSV file to write")
    given = parser.parse_args()
    lines: list[dict[str, Any]] = []
    for path in given.stages:
        place = locate(path)
        if place is None or place.stage is None:
            raise InputError(f"{path}: not a stage of a run; name one, such as runs/NAME/2-distillation")
        corpus, model = place.run.corpus, contender(place.run, place.stage, path.as_posix())
        rows = np.concatenate([corpus.rows("validation"), corpus.rows("test")])
        scores, predicted = answers(model, rows)
        right = predicted == corpus.labels[rows]
        _, groups = np.unique([corpus.keys[row] for row in rows], return_inverse=True)
        chosen_on = len(corpus.rows("validation"))
        for risk in RISKS:
            found = resplit(scores, right, groups, chosen_on, risk, given.confidence, given.splits)
            lines.append({"File": corpus.name, "Stage": path.as_posix(), "Risk": risk} | found)
        write_lines(lines, given.out)
    print_table(
        [{key: str(value) for key, value in line.items()} for line in lines],
        f"{given.splits:,} random splits, confidence {given.confidence:g}",
        left=("File", "Stage"),
    )


def resplit(
    scores: np.ndarray,
    right: np.ndarray,
    groups: np.ndarray,
    chosen_on: int,
    risk: float,
    confidence: float,
    splits: int,
) -> dict[str, Any]:
    """Return the figures of one stage and risk. groups: int (rows,), equal for duplicates."""
    from scipy.stats import binom

    random = np.random.default_rng(0)
    coverages, risks, above, clearly = [], [], 0, 0
    for _ in range(splits):
        order = np.argsort(random.random(groups.max() + 1)[groups], kind="stable")
        choosing, measuring = order[:chosen_on], order[chosen_on:]
        found = choose_threshold(scores[choosing], right[choosing], risk, confidence)
        if found is None:
            continue
        answered = scores[measuring] >= found.threshold
        errors = int((~right[measuring][answered]).sum())
        coverages.append(float(answered.mean()))
        risks.append(errors / max(1, int(answered.sum())))
        above += risks[-1] > risk
        clearly += bool(binom.sf(errors - 1, int(answered.sum()), risk) < 1 - confidence)
    return {
        "Rows to choose on": chosen_on,
        "Rows to measure on": len(scores) - chosen_on,
        "Share with a threshold": round(len(coverages) / splits, 4),
        "Risk above": round(above / splits, 4),
        "Risk clearly above": round(clearly / splits, 4),
        "Mean risk": round(float(np.mean(risks)), 4) if risks else "",
        "Mean coverage": round(float(np.mean(coverages)), 4) if coverages else "",
        "Risk of all answers": round(float((~right).mean()), 4),
    }


if __name__ == "__main__":
    main()
