"""What a run came to: the table of its stages, as rows, CSV and JSON."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from toolkit.config.settings import Recipe
from toolkit.data.corpus import Corpus
from toolkit.evaluation.comparison import Versus
from toolkit.export.stage import rows_of
from toolkit.latency.measure import Kind, median_latency_ms
from toolkit.stages.result import RESULT_FILE, StageResult
from toolkit.stages.results_table import Row, write_pipeline_summary
from toolkit.stages.run_folder import BASELINE, DISTILLATION, EXPORT, FLOOR, pruning_stages, tag_of
from toolkit.stages.teachers import TEACHER
from toolkit.utils.console import working
from toolkit.utils.files import without_nan, write_lines
from toolkit.workflows.run_comparisons import run_comparisons
from toolkit.workflows.tracking import Tracked


@dataclass(frozen=True)
class Outcome:
    """What a run came to."""

    folder: Path
    rows: list[Row]
    comparisons: list[Versus]
    labels: tuple[str, ...]
    package: Path | None


def stage_rows(folder: Path, corpus: Corpus) -> list[Row]:
    """The rows of a run's table: what was trained, then artefacts; then the same for each slice."""
    exported = [
        row
        for stage in sorted(folder.glob(f"{EXPORT}-*/{RESULT_FILE}"))
        for row in rows_of(StageResult.load(stage.parent))
    ]
    rows = [*trained_rows(folder, corpus, pruning_stages(folder)), *exported]
    return sorted(rows, key=lambda row: row.slice is not None)


def trained_rows(folder: Path, corpus: Corpus, pruned: Sequence[Path]) -> list[Row]:
    """Rows of floor, fold ensemble, one fold, student and the stages `pruned`; then the same for each slice."""
    texts = corpus.take(corpus.rows("test"))
    rows: list[Row] = []
    parts: list[Row] = []

    def add(name: str, metrics: dict[str, float], slices: dict[str, Any], *figures: Any) -> None:
        rows.append(Row(name, metrics, *figures))
        parts.extend(Row(name, values, slice=part) for part, values in slices.items())

    floor = StageResult.load(folder / FLOOR)
    latency = _latency(folder, "floor", folder / FLOOR, texts)
    add("floor", floor.metrics, floor.slices, floor.size_bytes, floor.parameters, latency)
    if (folder / BASELINE / RESULT_FILE).is_file():
        result = StageResult.load(folder / BASELINE)
        name = f"baseline, {corpus.folds}-fold ensemble"
        add(name, result.metrics, result.slices, result.size_bytes, result.parameters)
        best = result.details
        latency = _latency(folder, "checkpoint", folder / BASELINE / result.checkpoint, texts)
        figures = (best["best_fold_size_bytes"], best["best_fold_parameters"], latency)
        add("baseline, best fold", best["best_fold_metrics"], best["best_fold_slices"], *figures)
    if (folder / DISTILLATION / RESULT_FILE).is_file():
        result = StageResult.load(folder / DISTILLATION)
        if result.details["teacher_name"] == TEACHER:
            add(TEACHER, result.details["teacher_metrics"], result.details["teacher_slices"])
        latency = _latency(folder, "checkpoint", folder / DISTILLATION, texts)
        name = f"student {result.details['student']}"
        add(name, result.metrics, result.slices, result.size_bytes, result.parameters, latency)
    for stage in pruned:
        result = StageResult.load(stage)
        latency = _latency(folder, "checkpoint", stage, texts)
        add(f"pruned {tag_of(stage)}", result.metrics, result.slices, result.size_bytes, result.parameters, latency)
    return [*rows, *parts]


def write_summary(recipe: Recipe, corpus: Corpus, folder: Path, package: Path | None, tracked: Tracked) -> Outcome:
    """pipeline_summary_….csv and comparisons.csv for people, summary.json for machines; returns what they hold."""
    outcome = Outcome(folder, stage_rows(folder, corpus), run_comparisons(folder, corpus), corpus.label_names, package)
    summary = folder / "outputs" / f"pipeline_summary_{recipe.run.pipeline}.csv"
    write_pipeline_summary(outcome.rows, corpus.label_names, summary)
    comparisons = folder / "outputs" / "comparisons.csv"
    write_lines([each.cells() for each in outcome.comparisons], comparisons)
    for file in (summary, comparisons):
        tracked.artifact(file, "outputs")
    text = {
        "rows": [asdict(row) for row in outcome.rows],
        "comparisons": [asdict(each) for each in outcome.comparisons],
    }
    (folder / "summary.json").write_text(json.dumps(without_nan(text), indent=2, ensure_ascii=False) + "\n", "utf-8")
    return outcome


def _latency(folder: Path, kind: Kind, path: Path, texts: list[str]) -> float | None:
    """Measured once a run and kept, so that a resumed run shows the same figure."""
    file = folder / "outputs" / "latency.json"
    known = json.loads(file.read_text("utf-8")) if file.is_file() else {}
    name = path.relative_to(folder).as_posix()
    if name not in known:
        with working(f"{path}: measuring latency"):
            known[name] = median_latency_ms(kind, path, texts)
        file.write_text(json.dumps(known, indent=2) + "\n", "utf-8")
    return known[name]
