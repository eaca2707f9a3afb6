"""Train, distill and package on several labeled files with the same settings, and compare all models in one table.

The settings of training are the same for all files; everything else is chosen by hbt on the validation and out-of-fold
rows of each. Packages that hbt would refuse are measured, too. It takes hours; rerun the same command to resume.

    python -m benchmarks.suite bangla_hate.csv=me5-small-bn tweeteval_emotion.csv=minilm-l6 --out suite
"""

import argparse
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from toolkit.config.recipe import Recipe
from toolkit.config.settings import ExportSettings
from toolkit.config.toml_file import recipe_from
from toolkit.evaluation.comparison import Contender, versus
from toolkit.evaluation.metrics import macro_f1, softmax
from toolkit.evaluation.significance import macro_f1_interval
from toolkit.stages.linear_baseline import NAME as LINEAR_BASELINE_NAME
from toolkit.stages.run_folder import BASELINE, DISTILLATION, LINEAR_BASELINE, Run, export_stage, run_folder
from toolkit.utils.console import print_table, say
from toolkit.utils.errors import InputError
from toolkit.utils.figures import STYLE, save_svg
from toolkit.utils.files import MB, write_lines
from toolkit.workflows.compare import contender
from toolkit.workflows.compress import compress_run
from toolkit.workflows.pipeline import train_pipeline

TEACHER, STUDENT = "teacher, fold ensemble", "transformer student"
SETTINGS: dict[str, Any] = {"pooling": "mean", "folds": 3, "learning_rate": "auto", "epochs": 4}
STUDENT_SETTINGS: dict[str, Any] = {"kd_epochs": 8}
MOST_LAYERS = 4
"""Layers of the transformer student: half of those of its teacher, but not more."""
PUBLISHED = {
    "tweeteval_offensive": {"fastText": 73.4, "RoBERTa-base": 79.5, "BERTweet": 79.5, "TimeLMs-2021": 82.2},
    "tweeteval_emotion": {"fastText": 65.2, "RoBERTa-base": 76.1, "BERTweet": 79.3, "TimeLMs-2021": 80.2},
}
"""Macro-F1 on the same test rows, from the README of TweetEval (Barbieri et al. 2020), as of 2026."""


@dataclass(frozen=True)
class Line:
    """One model on one file; latencies on one thread."""

    file: str
    model: str
    macro_f1: float
    low: float
    high: float
    """95 % bootstrap interval of macro-F1."""
    against_linear: str = ""
    against_teacher: str = ""
    """Difference in points and verdict at a margin of one point."""
    p50_ms: float | None = None
    mean_ms: float | None = None
    """Of a cascade; its median hides the deferred texts."""
    package_mb: float | None = None


def main() -> None:
    given = _arguments()
    lines: list[Line] = []
    for file, _, model in (each.partition("=") for each in given.files):
        lines += lines_of(Path(file), model)
        _write(lines, Path(given.out))
    print_table([_cells(line) for line in lines], "test rows", left=("File", "Model"))


def lines_of(file: Path, model: str) -> list[Line]:
    """Train and package all models for a file, unless they are finished, and return their lines."""
    teacher = recipe_from(None, SETTINGS | {"data": file.as_posix(), "model": model, "name": f"suite-{file.stem}"})
    train_pipeline(teacher)
    run = Run.open(run_folder(teacher))
    linear, ensemble = contender(run, LINEAR_BASELINE, LINEAR_BASELINE_NAME), contender(run, BASELINE, TEACHER)
    found = [_line(run, file.stem, each, linear, ensemble) for each in (linear, ensemble)]
    validation: dict[str, float] = {}
    for name, student, cascade in (
        ("ngram", "ngram", False),
        (STUDENT, _layers(Path(model)), False),
        ("cascade", _layers(Path(model)), True),
    ):
        say(f"{file.stem}: {name}")
        made, stage = packaged(teacher, student, cascade)
        line = _line(made, file.stem, contender(made, stage, name), linear, ensemble)
        details = made.results[stage].details
        mean_ms = details["cascade"]["test"]["mean_ms"] if cascade else None
        found.append(
            replace(line, p50_ms=details["p50_ms"], mean_ms=mean_ms, package_mb=details["package_size_bytes"] / MB)
        )
        validation[name] = made.results[stage].validation_metrics["macro_f1"]
    pick = max(validation, key=validation.__getitem__)
    found.append(replace(next(line for line in found if line.model == pick), model=f"pick on validation rows: {pick}"))
    return found + [
        Line(file.stem, f"published: {name}", score / 100, np.nan, np.nan)
        for name, score in PUBLISHED.get(file.stem, {}).items()
    ]


def packaged(teacher: Recipe, student: str, cascade: bool) -> tuple[Run, str]:
    """Return the run of a student of the teacher's run and the stage of its package, making what is missing."""
    folder = run_folder(teacher)
    name = f"{folder.name}-{student.replace(':', '-')}"
    recipe = recipe_from(
        None, teacher.flat() | STUDENT_SETTINGS | {"student": student, "teacher": (folder.as_posix(),), "name": name}
    )
    train_pipeline(recipe)
    run = Run.open(run_folder(recipe))
    stage = export_stage(recipe.export.target, DISTILLATION, "cascade" if cascade else "")
    if stage not in run.results:
        compress_run(run.folder, ExportSettings(cascade=cascade), None, force=True)
        run = Run.open(run.folder)
    return run, stage


def _layers(model: Path) -> str:
    try:
        layers = json.loads((model / "config.json").read_text("utf-8"))["num_hidden_layers"]
    except (OSError, ValueError, LookupError):
        raise InputError(
            f"{model}: no encoder folder with num_hidden_layers in config.json; give FILE=FOLDER"
        ) from None
    return f"layers:{max(1, min(MOST_LAYERS, layers // 2))}"


def _line(run: Run, file: str, model: Contender, linear: Contender, teacher: Contender) -> Line:
    """Return the accuracy of a model and its comparison with linear baseline and teacher."""
    test = run.corpus.rows("test")
    labels, count = run.corpus.labels[test], len(run.corpus.label_names)
    predicted = model.rule.predict(softmax(model.predictions.of(test).astype(np.float64)))
    low, high = macro_f1_interval(labels, predicted, count)
    against = ["" if other.name == model.name else _verdict(run, model, other) for other in (linear, teacher)]
    return Line(file, model.name, macro_f1(labels, predicted, count), low, high, against[0], against[1])


def _verdict(run: Run, model: Contender, other: Contender) -> str:
    found = versus(run.corpus, model, other).comparison
    return f"{100 * found.macro_f1_difference:+.2f} {found.verdict}"


def _cells(line: Line) -> dict[str, str]:
    def number(value: float | None, digits: int) -> str:
        return "–" if value is None else f"{value:.{digits}f}"

    interval = "–" if np.isnan(line.low) else f"{line.low:.4f} … {line.high:.4f}"
    return {
        "File": line.file,
        "Model": line.model,
        "Macro F1": f"{line.macro_f1:.4f}",
        "95 % interval": interval,
        "against linear baseline": line.against_linear,
        "against teacher": line.against_teacher,
        "p50 ms": number(line.p50_ms, 3),
        "mean ms": number(line.mean_ms, 3),
        "MB": number(line.package_mb, 2),
    }


def _write(lines: Sequence[Line], out: Path) -> None:
    """Write the table as CSV and the figure as SVG."""
    out.parent.mkdir(parents=True, exist_ok=True)
    write_lines([_cells(line) for line in lines], out.with_suffix(".csv"))
    draw(lines, out.with_suffix(".svg"))


def draw(lines: Sequence[Line], file: Path) -> None:
    """Write a figure: macro-F1 with its interval, one panel per file and one line per model."""
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    files = list(dict.fromkeys(line.file for line in lines))
    with matplotlib.rc_context(STYLE):
        fig = Figure((8.0, 0.5 + 1.9 * len(files)), layout="constrained")
        FigureCanvasAgg(fig)
        for axes, name in zip(np.ravel(fig.subplots(len(files), 1, squeeze=False)), files, strict=True):
            shown = [line for line in lines if line.file == name][::-1]
            for height, line in enumerate(shown):
                color = "#777777" if np.isnan(line.low) else "#d55e00" if line.model == "cascade" else "#0072b2"
                axes.plot([line.low, line.high], [height, height], color=color, linewidth=2)
                axes.plot([line.macro_f1], [height], marker="o", color=color)
            axes.set_yticks(range(len(shown)), [line.model for line in shown])
            axes.set_title(f"{name}: macro-F1 on the test rows, 95 % interval", loc="left", fontsize=10)
        save_svg(fig, file)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.suite", description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("files", nargs="+", metavar="FILE=ENCODER", help="labeled file and folder of its encoder")
    parser.add_argument("--out", default="suite", help="files to write, without suffix: OUT.csv and OUT.svg")
    return parser.parse_args()


if __name__ == "__main__":
    main()
