"""The results of a run: metrics of its stages and paired comparisons, as rows, CSV and JSON."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from exporters.loaders.base.routing import TRANSFORMER
from toolkit.config.recipe import DESCRIPTIONS
from toolkit.evaluation.comparison import Contender, Versus
from toolkit.evaluation.standing import Standing, standing_of
from toolkit.export.cascade import describe_cascade
from toolkit.export.stage import rows_of
from toolkit.latency.measure import Kind, median_latency_ms
from toolkit.modeling.classifier import TOKENIZER_FILE
from toolkit.modeling.tokenizer import Truncation, read_tokenizer, truncation_of
from toolkit.stages.linear_baseline import NAME as LINEAR_BASELINE_NAME
from toolkit.stages.result import StageResult
from toolkit.stages.results_table import Row, write_pipeline_summary
from toolkit.stages.run_folder import (
    BASELINE,
    CASCADE_NGRAM,
    DISTILLATION,
    EXPORT,
    LINEAR_BASELINE,
    PRUNING,
    Run,
    tag_of,
)
from toolkit.stages.teachers import TEACHER
from toolkit.tracking.mlflow_runs import Tracked
from toolkit.utils.console import working
from toolkit.utils.files import read_json, without_nan, write_lines, write_text
from toolkit.workflows.compare import best_fold, contender, run_comparisons, teacher_of

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
    standing: Standing | None = None
    """What the package or, without one, the checkpoint to export is worth beside the linear baseline."""
    truncation: Truncation | None = None
    """How many test texts the same model cuts; None if it reads texts of any length."""
    cascade: str = ""
    """What the package does with the texts, if it is a cascade."""


def stage_rows(run: Run) -> list[Row]:
    """Return the rows of the results table: trained models, then artifacts; then the same on each slice."""
    exported = [row for stage in run.stages(EXPORT) for row in _exported_rows(run, stage)]
    rows = [*trained_rows(run, run.stages(PRUNING), cascade=True), *exported]
    return sorted(rows, key=lambda row: row.slice is not None)


def trained_rows(run: Run, pruned: Sequence[str], cascade: bool) -> list[Row]:
    """Return the rows of all trained models; then the same on each slice.

    pruned: the pruning stages that have a row. cascade: whether the n-gram student of a cascade has one.
    """
    rows: list[Row] = []
    slice_rows: list[Row] = []

    linear_predictions = contender(run, LINEAR_BASELINE, LINEAR_BASELINE_NAME)

    def add(
        kind: str, name: str, model: Contender | None, metrics: dict[str, float], slices: dict[str, Any],
        *size_and_latency: Any,
    ) -> None:  # fmt: skip
        standing = None if model is None else standing_of(run.corpus, model, linear_predictions)
        rows.append(replace(Row(name, metrics, *size_and_latency), kind=kind, standing=standing))
        slice_rows.extend(Row(name, values, slice=part, kind=kind) for part, values in slices.items())

    def add_stage(kind: str, model: Contender | None, result: StageResult, latency: float | None) -> None:
        name = LINEAR_BASELINE_NAME if model is None else model.name
        add(kind, name, model, result.metrics, result.slices, result.size_bytes, result.parameters, latency)

    add_stage("Linear Baseline", None, run.results[LINEAR_BASELINE], _latency(run, "linear", LINEAR_BASELINE))
    if BASELINE in run.results:
        result = run.results[BASELINE]
        add_stage("Baseline", contender(run, BASELINE, f"baseline, {run.corpus.folds}-fold ensemble"), result, None)
        best = result.details
        latency = _latency(run, "checkpoint", f"{BASELINE}/{result.checkpoint}")
        size_and_latency = (best["best_fold_size_bytes"], best["best_fold_parameters"], latency)
        metrics, slices = best["best_fold_metrics"], best["best_fold_slices"]
        add("Baseline", "baseline, best fold", best_fold(run), metrics, slices, *size_and_latency)
    if DISTILLATION in run.results:
        result = run.results[DISTILLATION]
        if result.details["teacher_name"] == TEACHER:
            metrics, slices = result.details["teacher_metrics"], result.details["teacher_slices"]
            add("Teacher", TEACHER, teacher_of(run), metrics, slices)
        student = contender(run, DISTILLATION, f"student {result.details['student']}")
        add_stage("KD Student", student, result, _latency(run, "checkpoint", DISTILLATION))
    if cascade and CASCADE_NGRAM in run.results:
        student = contender(run, CASCADE_NGRAM, "student ngram, for the cascade")
        add_stage("KD Student", student, run.results[CASCADE_NGRAM], _latency(run, "checkpoint", CASCADE_NGRAM))
    for stage in pruned:
        model = contender(run, stage, f"pruned {tag_of(stage)}")
        add_stage("Pruned", model, run.results[stage], _latency(run, "checkpoint", stage))
    return [*rows, *slice_rows]


def write_summary(run: Run, package: Path | None, tracked: Tracked) -> RunSummary:
    """Write pipeline_summary_….csv, comparisons.csv and summary.json, and return their contents."""
    outcome = summary_of(run, package)
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


def summary_of(run: Run, package: Path | None) -> RunSummary:
    """Return the results of a run that made `package`, or none."""
    return RunSummary(
        run.folder,
        stage_rows(run),
        run_comparisons(run),
        run.corpus.label_names,
        package,
        DESCRIPTIONS[run.recipe.run.pipeline],
        _standing(run, package),
        truncation_of(_tokenizer(run, package), run.corpus.take(run.corpus.rows("test"))),
        _cascade(run, package),
    )


def _standing(run: Run, package: Path | None) -> Standing | None:
    """Return the standing of a package of the run or, without one, of the checkpoint that an export would use."""
    if package is None:
        return [row for row in trained_rows(run, run.stages(PRUNING), cascade=False) if row.slice is None][-1].standing
    stage = export_of(run, package)
    return None if stage is None else _exported_rows(run, stage)[0].standing


def _cascade(run: Run, package: Path | None) -> str:
    """Return the line on a cascade; empty for any other package."""
    stage = None if package is None else export_of(run, package)
    facts = None if stage is None else run.results[stage].details.get("cascade")
    return "" if facts is None else describe_cascade(facts)


def export_of(run: Run, package: Path) -> str | None:
    """Return the export stage that made a package; None if a later run has replaced it."""
    made = [stage for stage in run.stages(EXPORT) if run.results[stage].details["package"] == package.as_posix()]
    return made[0] if made else None


def _exported_rows(run: Run, stage: str) -> list[Row]:
    """Return the rows of an export stage, with the standing of the artifact also if it is older than this figure."""
    own, *slices = rows_of(run.results[stage])
    linear = contender(run, LINEAR_BASELINE, LINEAR_BASELINE_NAME)
    return [replace(own, standing=standing_of(run.corpus, contender(run, stage, own.stage), linear)), *slices]


def _tokenizer(run: Run, package: Path | None) -> Tokenizer:
    """Return the tokenizer of a package or, without one, of the checkpoint that an export would use."""
    folder = package or run.checkpoint(run.last_stage)
    second = folder / TRANSFORMER  # of a cascade, the part that cuts texts
    return read_tokenizer((second if second.is_dir() else folder) / TOKENIZER_FILE)[0]


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
