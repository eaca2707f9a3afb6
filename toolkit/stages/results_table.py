"""The results tables of a run, per stage and per fold, for the terminal and as CSV."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from toolkit.config.recipe import Recipe
from toolkit.evaluation.label_keys import label_keys, label_titles
from toolkit.evaluation.standing import Standing
from toolkit.stages.cross_validation import FoldResult
from toolkit.utils.console import print_table
from toolkit.utils.files import MB, file_part, write_lines

UNSLICED = ("Size MB", "Parameters", "Latency p50 ms")


@dataclass(frozen=True)
class Row:
    """One line of the results table: a model evaluated on the test rows or on a slice of them."""

    stage: str
    metrics: dict[str, float]
    size_bytes: int | None = None
    parameters: int | None = None
    p50_ms: float | None = None
    """End-to-end latency (tokenization included) of one text on one thread; None if not measured."""
    slice: str | None = None
    """Name of the slice; None for all test rows."""
    standing: Standing | None = None
    """What the model is worth beside the linear baseline; None for the linear baseline and for slices."""
    kind: str = ""
    """Kind of stage in the published tables: Baseline, KD Student, Pruned or Quantized; others have names of ours."""


def cells(row: Row, labels: Sequence[str]) -> dict[str, Any]:
    """Return a row as a dict from column to value; a missing value is an empty string."""

    def rounded(value: float | None, digits: int) -> Any:
        return "" if value is None or value != value else round(value, digits)

    metrics = row.metrics
    line: dict[str, Any] = {"Stage": row.stage}
    line |= {name: rounded(metrics[key], 6) for name, key in (("Accuracy", "accuracy"), ("Macro F1", "macro_f1"))}
    line |= {f"F1 ({title})": rounded(metrics[f"f1_{key}"], 6) for title, key in positive_first(labels)}
    return line | {
        "ROC-AUC": rounded(metrics["roc_auc"], 6),
        "Size MB": rounded(None if row.size_bytes is None else row.size_bytes / MB, 3),
        "Parameters": "" if row.parameters is None else row.parameters,
        "Latency p50 ms": rounded(row.p50_ms, 3),
    }


def shown(heading: str, value: Any) -> str:
    """Return a cell formatted for display."""
    if value == "":
        return "–"
    if heading == "Parameters":
        return f"{value:,}"
    if heading in ("Size MB", "Latency p50 ms"):
        return f"{value:.2f}"
    return value if isinstance(value, str) else f"{value:.4f}"


def shown_line(row: Row, labels: Sequence[str]) -> dict[str, str]:
    """Return a row formatted for display; a problem of the model follows its name."""
    line = {heading: shown(heading, value) for heading, value in cells(row, labels).items()}
    if row.standing is not None and row.standing.short:
        line["Stage"] += f" ({row.standing.short})"
    return line


def write_pipeline_summary(rows: Sequence[Row], labels: Sequence[str], file: Path) -> None:
    """Write `pipeline_summary_….csv`: one line per model and slice; Stage is its kind, Model the name of the row."""
    own = ({"Stage": row.kind, "Slice": row.slice or "", "Model": row.stage} for row in rows)
    write_lines([cells(row, labels) | more for row, more in zip(rows, own, strict=True)], file)


def render(rows: Sequence[Row], labels: Sequence[str], title: str) -> None:
    """Print the rows as a table on stdout, followed by a table of the slices."""
    # With many labels, one F1 column per label does not fit a terminal; the CSV has them.
    hidden = [f"F1 ({title})" for title in label_titles(labels)] if len(labels) > 2 else []
    whole = [row for row in rows if row.slice is None]
    slices = [{"Slice": row.slice} | shown_line(row, labels) for row in rows if row.slice is not None]
    slices.sort(key=lambda line: line["Slice"])
    red = [i for i, row in enumerate(whole) if row.standing is not None and row.standing.short]
    _print([shown_line(row, labels) for row in whole], hidden, title, red)
    _print(slices, [*hidden, *UNSLICED], "by slice")


def _print(lines: Sequence[dict[str, str]], left_out: Sequence[str], title: str, red: Sequence[int] = ()) -> None:
    shown_lines = [{k: v for k, v in line.items() if k not in left_out} for line in lines]
    if shown_lines:
        dispensable = [h for h in shown_lines[0] if h.startswith("F1 (") or h == "Parameters"]
        print_table(shown_lines, title, left=("Stage", "Slice"), dispensable=dispensable, red=red)


def write_fold_summaries(
    recipe: Recipe, labels: Sequence[str], folds: Sequence[FoldResult], out: Path, finished: datetime
) -> list[Path]:
    """Write `fold_summary_….csv` and `best_metrics_….csv`, and return their paths.

    The first has one line per fold, the mean and the standard deviation; the second has the line of the best fold.

    finished: when the folds were finished, for the names of the files.
    """
    lines = [_fold_cells(recipe, labels, fold) for fold in folds]
    best = lines[max(range(len(folds)), key=lambda k: folds[k].val["macro_f1"])]
    numbers = [name for name in lines[0] if name not in ("Model", "Batch Size", "Learning Rate", "Epochs", "Fold")]
    numbers = [name for name in numbers if lines[0][name] != ""]
    fixed = {name: lines[0][name] for name in ("Model", "Batch Size", "Learning Rate", "Epochs")}
    mean = fixed | {"Fold": "Mean"} | {n: statistics.mean(line[n] for line in lines) for n in numbers}
    deviation = fixed | {"Fold": "Std"} | {n: statistics.stdev(line[n] for line in lines) for n in numbers}
    tail = (
        f"{file_part(recipe.model.model)}_batch{recipe.training.batch_size}_lr{recipe.training.learning_rate}"
        f"_{finished:%Y%m%d-%H%M%S}.csv"
    )
    files = [out / f"fold_summary_{tail}", out / f"best_metrics_{tail}"]
    write_lines([*lines, mean, deviation], files[0])
    write_lines([best], files[1])
    return files


def positive_first(labels: Sequence[str]) -> list[tuple[str, str]]:
    """Return title and key of each label in the order of the columns; of two labels, the positive one comes first."""
    named = list(zip(label_titles(labels), label_keys(labels), strict=True))
    return named[::-1] if len(labels) == 2 else named


def _fold_cells(recipe: Recipe, labels: Sequence[str], fold: FoldResult) -> dict[str, Any]:
    line: dict[str, Any] = {
        "Model": recipe.model.model,
        "Batch Size": recipe.training.batch_size,
        "Learning Rate": recipe.training.learning_rate,
        "Epochs": recipe.training.epochs,
        "Fold": fold.fold + 1,
        "Best Epoch": fold.best_epoch,
    }
    line |= _metric_cells("Val", fold.val, labels)
    line["Best Threshold"] = fold.val.get("best_threshold", "")
    line |= _metric_cells("Train", fold.train, labels)
    return line | {"total_parameters": fold.total_parameters, "trainable_parameters": fold.trainable_parameters}


def _metric_cells(split: str, metrics: dict[str, float], labels: Sequence[str]) -> dict[str, Any]:
    line = {f"{split} Accuracy": metrics["accuracy"]}
    for title, key in positive_first(labels):
        for name in ("precision", "recall", "f1"):
            line[f"{split} {name.title()} ({title})"] = metrics[f"{name}_{key}"]
    return line | {
        f"{split} Macro F1": metrics["macro_f1"],
        f"{split} ROC-AUC": metrics["roc_auc"],
        f"{split} Loss": metrics["loss"],
    }
