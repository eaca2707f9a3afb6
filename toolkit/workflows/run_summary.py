"""The results of a run: metrics of its stages and paired comparisons, as rows, CSV and JSON."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from toolkit.config.recipe import DESCRIPTIONS
from toolkit.evaluation.comparison import Versus
from toolkit.export.stage import rows_of
from toolkit.latency.measure import Kind, median_latency_ms
from toolkit.stages.linear_baseline import NAME as LINEAR_BASELINE_NAME
from toolkit.stages.results_table import Row, write_pipeline_summary
from toolkit.stages.run_folder import BASELINE, DISTILLATION, EXPORT, LINEAR_BASELINE, PRUNING, Run, tag_of
from toolkit.stages.teachers import TEACHER
from toolkit.utils.console import working
from toolkit.utils.files import read_json, without_nan, write_lines, write_text
from toolkit.workflows.run_comparisons import run_comparisons
from toolkit.workflows.tracking import Tracked

SUMMARY_FILE = "summary.json"
"""Written last, so a run that has it is complete."""


@dataclass(frozen=True)
class RunSummary:
    """The results of a run."""

    folder: Path
    rows: list[Row]
    """One row per stage on the test rows, then one per stage and slice."""
    comparisons: list[Versus]
    labels: tuple[str, ...]
    package: Path | None
    description: str = ""
    """Description of the pipeline."""


def stage_rows(run: Run) -> list[Row]:
    """Return the rows of the results table: trained models, then artifacts; then the same on each slice."""
    exported = [row for stage in run.stages(EXPORT) for row in rows_of(run.results[stage])]
    rows = [*trained_rows(run, run.stages(PRUNING)), *exported]
    return sorted(rows, key=lambda row: row.slice is not None)


def trained_rows(run: Run, pruned: Sequence[str]) -> list[Row]:
    """Return the rows of all trained models, with the pruning stages `pruned`; then the same on each slice."""
    rows: list[Row] = []
    slice_rows: list[Row] = []

    def add(name: str, metrics: dict[str, float], slices: dict[str, Any], *size_and_latency: Any) -> None:
        rows.append(Row(name, metrics, *size_and_latency))
        slice_rows.extend(Row(name, values, slice=part) for part, values in slices.items())

    linear = run.results[LINEAR_BASELINE]
    latency = _latency(run, "linear", LINEAR_BASELINE)
    add(LINEAR_BASELINE_NAME, linear.metrics, linear.slices, linear.size_bytes, linear.parameters, latency)
    if BASELINE in run.results:
        result = run.results[BASELINE]
        name = f"baseline, {run.corpus.folds}-fold ensemble"
        add(name, result.metrics, result.slices, result.size_bytes, result.parameters)
        best = result.details
        latency = _latency(run, "checkpoint", f"{BASELINE}/{result.checkpoint}")
        size_and_latency = (best["best_fold_size_bytes"], best["best_fold_parameters"], latency)
        add("baseline, best fold", best["best_fold_metrics"], best["best_fold_slices"], *size_and_latency)
    if DISTILLATION in run.results:
        result = run.results[DISTILLATION]
        if result.details["teacher_name"] == TEACHER:
            add(TEACHER, result.details["teacher_metrics"], result.details["teacher_slices"])
        latency = _latency(run, "checkpoint", DISTILLATION)
        name = f"student {result.details['student']}"
        add(name, result.metrics, result.slices, result.size_bytes, result.parameters, latency)
    for stage in pruned:
        result = run.results[stage]
        latency = _latency(run, "checkpoint", stage)
        add(f"pruned {tag_of(stage)}", result.metrics, result.slices, result.size_bytes, result.parameters, latency)
    return [*rows, *slice_rows]


def write_summary(run: Run, package: Path | None, tracked: Tracked) -> RunSummary:
    """Write pipeline_summary_….csv, comparisons.csv and summary.json, and return their contents."""
    description = DESCRIPTIONS[run.recipe.run.pipeline]
    outcome = RunSummary(
        run.folder, stage_rows(run), run_comparisons(run), run.corpus.label_names, package, description
    )
    summary = run.folder / "outputs" / f"pipeline_summary_{run.recipe.run.pipeline}.csv"
    write_pipeline_summary(outcome.rows, run.corpus.label_names, summary)
    comparisons = run.folder / "outputs" / "comparisons.csv"
    write_lines([each.cells() for each in outcome.comparisons], comparisons)
    for file in (summary, comparisons):
        tracked.artifact(file, "outputs")
    record = {
        "rows": [asdict(row) for row in outcome.rows],
        "comparisons": [asdict(each) for each in outcome.comparisons],
    }
    text = json.dumps(without_nan(record), indent=2, ensure_ascii=False)
    write_text(run.folder / SUMMARY_FILE, text + "\n")
    return outcome


def _latency(run: Run, kind: Kind, name: str) -> float | None:
    """Return the p50 latency in ms, measured once per run and stored, so that a resumed run reports the same value.

    name: path relative to the run folder.
    """
    file = run.folder / "outputs" / "latency.json"
    known = read_json(file) or {}
    if name not in known:
        texts = run.corpus.take(run.corpus.rows("test"))
        with working(f"{run.folder / name}: measuring latency"):
            known[name] = median_latency_ms(kind, run.folder / name, texts)
        write_text(file, json.dumps(known, indent=2) + "\n")
    return known[name]
