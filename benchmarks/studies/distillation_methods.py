"""Compare distillation methods: `python -m benchmarks.studies.distillation_methods --teacher RUN --student layers:2`.

Trains the same student with every distillation method and on labels only, with several seeds, and compares the macro-F1
of the best epoch on validation rows. Test rows are not used. Each finished training appends one line to --out and is
not repeated, so several processes may run in parallel with different --methods. Prints a table of all lines in the
file.
"""

import argparse
import statistics
import tempfile
import time
from collections import defaultdict
from dataclasses import replace
from pathlib import Path
from typing import Any, cast, get_args

from benchmarks.studies import results_log
from toolkit.config.recipe import Recipe
from toolkit.config.settings import DistillationSettings, Method, TrainingSettings
from toolkit.config.toml_file import recipe_from
from toolkit.data.corpus import Corpus, load_corpus
from toolkit.latency.timing import fixed_order
from toolkit.modeling.students import build_student
from toolkit.stages.distillation import distillation_loss_of
from toolkit.stages.run_folder import BASELINE, CACHE, RECIPE_FILE
from toolkit.stages.teachers import Teacher, find_teacher, load_teacher
from toolkit.training.dataset import Examples
from toolkit.training.trainer import fit
from toolkit.utils.console import print_table

LABELS = "labels alone"
"""Name of training without a teacher, also in existing result files."""


def main() -> None:
    given = _arguments()
    run = Path(given.teacher)
    recipe = recipe_from(run / RECIPE_FILE, {"data": given.data} if given.data else {})
    recipe = replace(recipe, training=replace(recipe.training, epochs=given.epochs, learning_rate=given.learning_rate))
    corpus = load_corpus(recipe.corpus)
    settings = DistillationSettings(student=given.student, teacher=(given.teacher,))
    teacher = find_teacher(settings, corpus, run / BASELINE, CACHE)
    file = Path(given.out)
    for seed in range(1, given.seeds + 1):
        for method in given.methods:
            key = {"student": given.student, "method": method, "seed": seed, "rows": given.rows, "epochs": given.epochs}
            key["learning_rate"] = given.learning_rate
            if not results_log.contains(file, key):
                results_log.append(file, key | train(method, seed, given.rows, teacher, corpus, recipe, settings))
    report(results_log.lines(file))


def train(
    method: str,
    seed: int,
    rows: int | None,
    teacher: Teacher,
    corpus: Corpus,
    recipe: Recipe,
    settings: DistillationSettings,
) -> dict[str, Any]:
    """Train one student and return the validation metrics of its best epoch, and the training time in seconds."""
    teacher_network = load_teacher(teacher.checkpoint.as_posix(), corpus)
    assert settings.student is not None
    train_rows, validation_rows = corpus.rows("train"), corpus.rows("validation")
    train_rows = train_rows[fixed_order(corpus.take(train_rows))[:rows]]  # spread over the file
    texts, labels = corpus.take(train_rows), corpus.labels[train_rows]
    student = build_student(settings.student, teacher_network, recipe.model, texts, seed)
    distillation_loss = None
    logits, validation_logits = None, None
    if method != LABELS:
        settings = replace(settings, kd_method=cast(Method, method))
        distillation_loss = distillation_loss_of(settings, teacher_network, student)
        logits, validation_logits = (teacher.predictions.of(each) for each in (train_rows, validation_rows))
    validation = Examples(corpus.take(validation_rows), corpus.labels[validation_rows], validation_logits)
    with tempfile.TemporaryDirectory(prefix="hbt-methods-") as work:
        started = time.monotonic()
        training: TrainingSettings = recipe.training
        found = fit(student, Examples(texts, labels, logits), validation, training, seed, Path(work), distillation_loss)
    best = max(found.history, key=lambda epoch: epoch["val_macro_f1"])
    metrics = {name: best[f"val_{name}"] for name in ("macro_f1", "roc_auc") if f"val_{name}" in best}
    return metrics | {"best_epoch": int(best["epoch"]), "seconds": time.monotonic() - started}


def report(lines: list[dict[str, Any]]) -> None:
    """Print one line per student and method: mean over seeds, and difference to training on labels only."""
    by_method: dict[tuple[Any, ...], list[dict[str, Any]]] = defaultdict(list)
    for line in lines:
        by_method[line["student"], line["rows"], line["epochs"], line["method"]].append(line)
    table = []
    for (student, rows, epochs, method), found in by_method.items():
        mean = statistics.mean(line["macro_f1"] for line in found)
        on_labels = [line["macro_f1"] for line in by_method.get((student, rows, epochs, LABELS), [])]
        table.append(
            {
                "Student": student,
                "Method": method,
                "Rows": "all" if rows is None else str(rows),
                "Epochs": str(epochs),
                "Seeds": str(len(found)),
                "Macro F1": f"{mean:.4f}",
                "Per seed": " ".join(f"{line['macro_f1']:.4f}" for line in found),
                "ROC-AUC": f"{statistics.mean(line['roc_auc'] for line in found):.4f}",
                "vs labels only": f"{100 * (mean - statistics.mean(on_labels)):+.2f}" if on_labels else "–",
            }
        )
    print_table(table, "validation rows, best epoch, mean over seeds", left=("Student", "Method", "Per seed"))


def _arguments() -> argparse.Namespace:
    methods = [LABELS, *get_args(Method)]
    summary = (__doc__ or "").split("\n\n")[1]
    parser = argparse.ArgumentParser(prog="python -m benchmarks.studies.distillation_methods", description=summary)
    parser.add_argument("--teacher", required=True, help="run folder with a finished baseline")
    parser.add_argument("--data", help="data file of the run, if it was moved")
    parser.add_argument("--student", default="layers:2", help="as for hbt train (default layers:2)")
    parser.add_argument(
        "--methods", nargs="+", default=methods, choices=methods, help="methods to train (default: all)"
    )
    parser.add_argument("--seeds", type=int, default=3, help="number of seeds per method (default 3)")
    parser.add_argument("--rows", type=int, help="number of training rows (default: all)")
    parser.add_argument("--epochs", type=int, default=3, help="training epochs (default 3)")
    parser.add_argument("--learning-rate", type=float, default=2e-4, help="learning rate (default 2e-4)")
    parser.add_argument("--out", default="distillation-methods.jsonl", help="file to append to")
    return parser.parse_args()


if __name__ == "__main__":
    main()
