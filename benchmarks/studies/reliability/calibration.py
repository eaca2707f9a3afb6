"""Measure the calibration error of the stages of runs before and after their logits are scaled.

The scaling is chosen on the validation rows, as `hbt compress` does, and the error is measured on the test rows.
Nothing is trained: the stored predictions of each stage are used.

    python -m benchmarks.studies.reliability.calibration RUN [RUN …] --out calibration.csv
"""

import argparse
from pathlib import Path
from typing import Any

from toolkit.data.corpus import Corpus
from toolkit.evaluation.comparison import Contender
from toolkit.evaluation.metrics import cross_entropy, softmax
from toolkit.evaluation.predictions import Predictions
from toolkit.evaluation.reliability.calibration import calibration_of
from toolkit.evaluation.reliability.scaling import choose_scaling
from toolkit.stages.run_folder import BASELINE, DISTILLATION, LINEAR_BASELINE, Run
from toolkit.utils.console import print_table
from toolkit.utils.files import write_lines
from toolkit.workflows.compare import contender

STAGES = {LINEAR_BASELINE: "linear baseline", BASELINE: "fold ensemble", DISTILLATION: "student"}


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.studies.reliability.calibration", description=(__doc__ or "").split("\n\n")[0]
    )
    parser.add_argument("runs", nargs="+", type=Path, help="run folders")
    parser.add_argument("--out", type=Path, default=Path("calibration.csv"), help="CSV file to write")
    given = parser.parse_args()
    lines: list[dict[str, Any]] = []
    for folder in given.runs:
        run = Run.open(folder)
        for stage, name in STAGES.items():
            if stage in run.results:
                shown = run.recipe.distillation.student if stage == DISTILLATION else name
                lines.append(_line(run.corpus, contender(run, stage, str(shown)), folder.name))
        write_lines(lines, given.out)
    cells = [{key: str(value) for key, value in line.items()} for line in lines]
    print_table(cells, "expected calibration error on test rows", left=("Run", "File", "Model", "Method"))


def _line(corpus: Corpus, model: Contender, run: str) -> dict[str, Any]:
    validation, test = corpus.rows("validation"), corpus.rows("test")
    choice = choose_scaling(corpus.labels[validation], model.predictions.of(validation))
    logits = choice.scaling.apply(model.predictions.logits)
    rule = choice.scaling.moved(model.rule, len(corpus.label_names))
    after = Contender(model.name, Predictions(model.predictions.rows, logits), rule)
    found = [calibration_of(corpus, each) for each in (model, after)]
    losses = [
        cross_entropy(corpus.labels[test], softmax(each.predictions.of(test).astype("float64")))
        for each in (model, after)
    ]
    labels = [each.rule.predict(softmax(each.predictions.of(test).astype("float64"))) for each in (model, after)]
    return {
        "Run": run,
        "File": corpus.name,
        "Model": model.name,
        "Test rows": len(test),
        "Validation rows": len(validation),
        "Method": choice.method,
        "Temperature": round(1 / choice.scaling.scale, 3),
        "Shift": round(choice.scaling.shift, 3),
        "Error before": round(found[0].ece, 4),
        "Interval before": f"{found[0].interval[0]:.4f} … {found[0].interval[1]:.4f}",
        "Error after": round(found[1].ece, 4),
        "Interval after": f"{found[1].interval[0]:.4f} … {found[1].interval[1]:.4f}",
        "By chance": round(found[1].by_chance, 4),
        "Cross-entropy before": round(losses[0], 4),
        "Cross-entropy after": round(losses[1], 4),
        "Labels changed": int((labels[0] != labels[1]).sum()),
    }


if __name__ == "__main__":
    main()
