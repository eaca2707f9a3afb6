"""Package the checkpoint of a run: the export stage with everything that the run knows about it."""

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from toolkit.data.corpus import Corpus
from toolkit.evaluation.comparison import Contender
from toolkit.evaluation.predictions import PREDICTIONS_FILE, Predictions
from toolkit.export.budget import within_budget
from toolkit.export.cascade import compress_cascade
from toolkit.export.stage import Source, compress_or_fall_back, lineage_of
from toolkit.manifest import MANIFEST_FILE, read_manifest
from toolkit.modeling.classifier import Classifier, load_classifier
from toolkit.modeling.linear import load_linear
from toolkit.modeling.vocabulary_trimming import trimmed
from toolkit.pruning.stage import describe_pruning
from toolkit.stages.linear_baseline import NAME as LINEAR_BASELINE_NAME
from toolkit.stages.quantization_aware import quantization_aware
from toolkit.stages.result import StageResult
from toolkit.stages.run_folder import (
    BASELINE,
    CASCADE_NGRAM,
    DISTILLATION,
    EXPORT,
    LINEAR_BASELINE,
    Run,
    export_stage,
    tag_of,
)
from toolkit.stages.teachers import ENSEMBLE, TEACHER
from toolkit.tracking import mlflow_runs as tracking
from toolkit.tracking.tracked_metrics import track_export
from toolkit.training.fake_quantization import quantized_modules
from toolkit.utils.errors import CannotExport, InputError, NothingPasses
from toolkit.utils.files import whole_folder, write_lines
from toolkit.utils.scratch import remove_folder
from toolkit.utils.tracking_queue import id_of
from toolkit.workflows.compare import contender, teacher_of
from toolkit.workflows.run_summary import trained_rows
from toolkit.workflows.steps import STEPS, distillation_of, run_step, watch_epoch


def export_run(run: Run, stage: str, out: Path, tracked: tracking.Tracked, force: bool) -> Path:
    """Package the checkpoint of a run's `stage` and save the result and predictions of the artifact in the run.

    force: package the best candidate even if none passes the quality gate.
    Returns: the folder of the package, which differs from `out` if the fallback target torch-int8 was used.
    Raises: NothingPasses if no candidate passes the quality gate.
    """
    export, corpus, result = run.recipe.export, run.corpus, run.results[stage]
    if export.cascade:  # first, since the card has a row for it
        run_step(STEPS["cascade_ngram"], run, tracked)
    checkpoint = run.checkpoint(stage)
    unlabeled = run.located.distillation.unlabelled
    classifier, trimming = trimmed(load_classifier(checkpoint), export, corpus, unlabeled)
    source = Source(
        classifier,
        run.folder.name,
        corpus,
        # The predictions of the baseline stage are those of the ensemble, but the best fold is exported.
        _evaluated(Predictions.load(checkpoint / PREDICTIONS_FILE), corpus),
        _lineage(run, stage, result),
        trained_rows(run, [stage] if tag_of(stage) else [], export.cascade),
        _references(run, stage, result),
        tag_of(stage) or None,
        trimming,
        load_linear(run.folder / LINEAR_BASELINE),
    )
    if export.budget_kb is not None:
        source = within_budget(source, result, lambda: distillation_of(run), export.budget_kb, export.target)
    work = run.folder / "-".join(filter(None, [EXPORT, "qat", tag_of(stage)]))
    tuned = _tuned(run, classifier, work, tracked) if export.quant_method == "qat" else None
    try:
        if export.cascade:
            exported, predictions = _cascade(run, source, out, force, tuned)
        else:
            exported, predictions = compress_or_fall_back(source, export, out, force, tuned)
    except NothingPasses as refused:
        _save_candidates(run, export_stage(refused.target, stage, export.suffix), refused.facts, tracked)
        raise
    remove_folder(work)
    exported = replace(exported, details=exported.details | {"stage": stage})
    name = export_stage(exported.details["target"], stage, export.suffix)
    package = Path(exported.details["package"])
    with whole_folder(run.folder / name) as partial:
        predictions.save(partial / PREDICTIONS_FILE, corpus)
        exported.save(partial)
    run.results[name] = exported
    track_exported(run, name, tracked)
    return package


def is_of_run(package: Path, run: Run) -> bool:
    """Return whether a package was made by this run with the same recipe, so that resuming may reuse or replace it."""
    if id_of(run.folder) is None and tracking.run_of(run.folder) is None:
        return False  # a new run
    if not (package / MANIFEST_FILE).is_file():
        return False
    lineage = read_manifest(package).get("lineage", {})
    if "run_id" in lineage:
        own, recorded = id_of(run.folder), lineage["run_id"]
    else:  # an older package, which has the id of MLflow only
        own, recorded = tracking.run_of(run.folder), lineage.get("mlflow_run_id")
    return own is not None and recorded == own and lineage.get("recipe_sha256") == run.recipe.sha256()


def _cascade(
    run: Run, source: Source, out: Path, force: bool, tuned: Classifier | None
) -> tuple[StageResult, Predictions]:
    """Package the n-gram student of a cascade together with a transformer.

    Raises: InputError if a part cannot be exported; NothingPasses.
    """
    folder = run.folder / CASCADE_NGRAM
    predictions = _evaluated(Predictions.load(folder / PREDICTIONS_FILE), run.corpus)
    ngram = replace(source, classifier=load_classifier(folder), predictions=predictions, pruned=None, trimming=None)
    try:
        return compress_cascade(ngram, source, run.recipe.export, out, force, tuned)
    except CannotExport as error:
        fix = "leave out --cascade"
        raise InputError(f"--cascade: cannot export this classifier to ONNX ({error}); {fix}") from error


def track_exported(run: Run, stage: str, tracked: tracking.Tracked) -> None:
    """Log a finished export unless it was logged before, and write the table of its candidates."""
    result = run.results[stage]
    _save_candidates(run, stage, result.details["gate"], tracked)
    with tracked.part(run.version_of(stage)) as owed:
        if owed:
            package, register = Path(result.details["package"]), run.recipe.export.register
            track_export(tracked, result, run.corpus.label_names, package, register)
    tracked.send()


def _lineage(run: Run, stage: str, result: StageResult) -> dict[str, Any]:
    """Return the origin of a package made from a run, for the manifest and the card."""
    recipe = run.recipe
    lineage = lineage_of(
        run.corpus,
        run=run.folder.as_posix(),
        recipe_sha256=recipe.sha256(),
        run_id=id_of(run.folder) or "",
        mlflow_run_id=tracking.run_of(run.folder) or "",
        model=recipe.model.model,
        pipeline=recipe.run.pipeline,
    )
    if recipe.distillation.student is not None:
        lineage |= {"student": recipe.distillation.student, "teacher": result.details["teacher"]}
    if tag_of(stage):
        lineage |= {"pruning": tag_of(stage), "pruned": describe_pruning(result.details, result.details["settings"])}
    return lineage


def _references(run: Run, stage: str, result: StageResult) -> list[Contender]:
    """Return the models that an artifact of a run is compared with."""
    references = [contender(run, LINEAR_BASELINE, LINEAR_BASELINE_NAME)]
    if tag_of(stage):
        references.append(contender(run, run.last_trained, result.details["source_name"]))
    if BASELINE in run.results:
        references.append(contender(run, BASELINE, ENSEMBLE))
    if DISTILLATION in run.results and teacher_of(run).name == TEACHER:
        references.append(teacher_of(run))
    return references


def _tuned(run: Run, classifier: Classifier, work: Path, tracked: tracking.Tracked) -> Classifier:
    """Return `classifier` after quantization-aware training with the teacher of its run."""
    quantized_modules(classifier.network)  # fail before the teacher logits are computed, which takes minutes
    name = "quantization-aware training"
    tuned, _ = quantization_aware(classifier, distillation_of(run), work, partial(watch_epoch, tracked, name))
    tracked.child(name).finish()
    return tuned


def _save_candidates(run: Run, stage: str, facts: dict[str, Any], tracked: tracking.Tracked) -> None:
    """Write the table of the evaluated candidates to the run and to MLflow, also if none passed the quality gate."""
    file = run.folder / "outputs" / f"forms_{stage.removeprefix(f'{EXPORT}-')}.csv"
    write_lines([trial | {"in_float": " ".join(trial["in_float"])} for trial in facts["trials"]], file)
    tracked.artifact(file, "outputs")


def _evaluated(predictions: Predictions, corpus: Corpus) -> Predictions:
    """Return the predictions of validation and test rows only."""
    rows = np.concatenate([corpus.rows("validation"), corpus.rows("test")])
    return Predictions(rows, predictions.of(rows))
