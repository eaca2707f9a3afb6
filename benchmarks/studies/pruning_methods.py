"""Structured pruning methods at equal latency: `python -m benchmarks.studies.pruning_methods RUN --layers 2 1`.

Prunes the student of a run to the latency that it would have with fewer layers, with three methods: dropping layers;
removing the heads and neurons with the smallest weights; and `--prune-method structured`. Each pruned student recovers
for the same number of epochs with the same teacher and is evaluated on validation rows. The exported students are timed
in turns on the same texts. Test rows are not used. Each result appends one line to --out and is not repeated.
"""

import argparse
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.studies import results_log
from toolkit.evaluation.metrics import calculate_metrics_with_threshold_exploration, softmax
from toolkit.modeling.architecture import Sizes, sizes, summary_of
from toolkit.modeling.classifier import Classifier, load_classifier
from toolkit.modeling.surgery import Kept
from toolkit.pruning.cost_model import measure_shapes, measured_costs
from toolkit.pruning.importance import magnitude_importance
from toolkit.pruning.plan import Objective, Trial, cut_copy, most_promising, plans_within, scores_of
from toolkit.pruning.recovery import Recovery
from toolkit.pruning.selection import Costs, choose
from toolkit.stages.distillation_data import prepare_distillation
from toolkit.stages.run_folder import CACHE, Run
from toolkit.utils.console import print_table, say

METHODS = ("layers", "magnitude", "structured")


def main() -> None:
    given = _arguments()
    run, file = Run.open(Path(given.run)), Path(given.out)
    student = load_classifier(run.checkpoint(run.last_trained))
    texts = run.corpus.take(run.corpus.rows("validation"))
    target = run.recipe.export.target
    costs = measured_costs(student, target, texts, CACHE).ms
    objective, recover, trial = _training(run)
    for layers in given.layers:
        for method in given.methods:
            key = {"run": run.folder.name, "layers": layers, "method": method, "epochs": given.epochs}
            if not results_log.contains(file, key):
                kept = prune_to_same_latency(student, objective, trial, costs, layers, method)
                pruned = cut_copy(student, kept)
                left = sizes(pruned.network)
                with tempfile.TemporaryDirectory(prefix="hbt-methods-") as work:
                    found = recover(Path(work), pruned, given.epochs)
                loss = objective.loss_of(cut_copy(student, kept))
                results_log.append(
                    file, key | {"left": [asdict(size) for size in left], "loss_after_cut": loss} | found
                )
    _time(student, target, texts, file, run.folder.name)
    report(results_log.lines(file))


def prune_to_same_latency(
    student: Classifier, objective: Objective, trial: Trial, costs: Costs, layers: int, method: str
) -> Sequence[Kept | None]:
    """Return the units to keep by `method` so that `student` is as fast as with `layers` full layers (cost model)."""
    scores = scores_of(student, objective)
    full = [Kept(tuple(range(size.heads)), tuple(range(size.neurons))) for size in sizes(student.network)]
    dropped = scores.layers[: len(full) - layers]
    by_layers = [None if place in dropped else units for place, units in enumerate(full)]
    budget = costs.of([Sizes(len(units.heads), len(units.neurons)) for units in by_layers if units is not None])
    if method == "layers":
        return by_layers
    if method == "magnitude":
        by_magnitude = choose(magnitude_importance(student), costs, budget)
        assert by_magnitude is not None
        return by_magnitude
    plans = plans_within(student, objective, scores, costs, budget)
    plan, losses = most_promising(student, plans, trial)
    say(f"layers dropped {[each.dropped for each in plans]}: loss {[each.loss for each in plans]}, trials {losses}")
    return plan.kept


def _training(run: Run) -> tuple[Objective, Any, Trial]:
    """Return the objective for plans, a function that recovers and evaluates a pruned student, and the trial."""
    data = prepare_distillation(run.recipe, run.corpus, run.baseline_folder)

    def recover(work: Path, pruned: Classifier, epochs: int) -> dict[str, Any]:
        details = Recovery(data, work)(pruned, epochs, "recovery")
        probabilities = softmax(pruned.predict_logits(data.validation.texts))
        found = calculate_metrics_with_threshold_exploration(data.validation.labels, probabilities)
        best = details["history"][details["best_epoch"] - 1]
        return {"macro_f1": found["macro_f1"], "roc_auc": found["roc_auc"], "loss": best["val_loss"]}

    return Objective(data.calibration(), data.training, data.distillation_loss), recover, Recovery(data, Path()).trial


def _time(student: Classifier, target: str, texts: list[str], file: Path, run: str) -> None:
    """Add measured latency and size to all lines of `run`, timed in turns with the unpruned student."""
    lines = results_log.lines(file)
    of_run = [line for line in lines if line["run"] == run]
    lefts = [tuple(sizes(student.network)), *(tuple(Sizes(**size) for size in line["left"]) for line in of_run)]
    distinct = list(dict.fromkeys(lefts))
    measured = dict(zip(distinct, measure_shapes(student, distinct, target, texts), strict=True))
    for line, left in zip(of_run, lefts[1:], strict=True):
        line |= {"ms": measured[left].ms, "mb": measured[left].mb, "uncut_ms": measured[lefts[0]].ms}
    file.unlink()
    for line in lines:
        results_log.append(file, line)


def report(lines: list[dict[str, Any]]) -> None:
    """Print one line per result, grouped by latency."""
    table = [
        {
            "As fast as": f"{line['layers']} layer{'s' * (line['layers'] > 1)}",
            "Method": line["method"],
            "ms": f"{line['ms']:.2f}",
            "relative to unpruned": f"{line['ms'] / line['uncut_ms']:.2f}",
            "MB": f"{line['mb']:.2f}",
            "Loss after pruning": f"{line['loss_after_cut']:.4f}",
            "Loss": f"{line['loss']:.4f}",
            "Macro F1": f"{line['macro_f1']:.4f}",
            "ROC-AUC": f"{line['roc_auc']:.4f}",
            "Left": summary_of([Sizes(**size) for size in line["left"]]),
        }
        for line in sorted(lines, key=lambda line: (-line["layers"], METHODS.index(line["method"])))
    ]
    print_table(table, "validation rows, after recovery", left=("As fast as", "Method", "Left"))


def _arguments() -> argparse.Namespace:
    summary = (__doc__ or "").split("\n\n")[1]
    parser = argparse.ArgumentParser(prog="python -m benchmarks.studies.pruning_methods", description=summary)
    parser.add_argument("run", help="run folder with a finished student")
    parser.add_argument(
        "--layers", type=int, nargs="+", default=[2, 1], help="latencies to prune to, in full layers (default 2 1)"
    )
    parser.add_argument(
        "--methods", nargs="+", default=list(METHODS), choices=METHODS, help="methods to compare (default: all)"
    )
    parser.add_argument("--epochs", type=int, default=2, help="epochs of recovery (default 2)")
    parser.add_argument("--out", default="pruning-methods.jsonl", help="file to append to")
    return parser.parse_args()


if __name__ == "__main__":
    main()
