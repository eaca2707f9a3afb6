"""`hbt compress`: a run, a checkpoint or any Hugging Face classifier becomes a package."""

import shutil
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from toolkit.config.settings import CorpusSettings, DistillationSettings, ExportSettings, PruningSettings, Recipe
from toolkit.data.corpus import Corpus, load_corpus
from toolkit.evaluation.comparison import Contender
from toolkit.evaluation.predictions import PREDICTIONS_FILE, Predictions, evaluate
from toolkit.export.stage import Source, compress_or_stand_in, lineage_of, refuse_unready, rows_of
from toolkit.modeling.architecture import anatomy
from toolkit.modeling.classifier import Classifier, load_classifier, load_sequence_classifier
from toolkit.modeling.vocabulary_trimming import trimmed
from toolkit.pruning.stage import prune, prune_stage, pruning_in_words, pruning_settings
from toolkit.stages.linear_baseline import train_floor
from toolkit.stages.quantization_aware import quantization_aware
from toolkit.stages.result import RESULT_FILE, StageResult, predict_rows
from toolkit.stages.results_table import Row
from toolkit.stages.run_folder import (
    BASELINE,
    CACHE,
    DISTILLATION,
    EXPORT,
    FLOOR,
    MODELS,
    export_stage_folder,
    last_stage,
    last_trained,
    pruning_stage,
    read_run_recipe,
    recorded_fingerprint,
    tag_of,
)
from toolkit.stages.teachers import ENSEMBLE, TEACHER, find_teacher, with_corpus_labels
from toolkit.utils.console import say
from toolkit.utils.errors import InputError, NothingPasses, refuse_existing
from toolkit.utils.files import file_part, whole_folder, write_lines
from toolkit.workflows import tracking
from toolkit.workflows.run_comparisons import contender, teacher_of
from toolkit.workflows.run_summary import Outcome, trained_rows, write_summary
from toolkit.workflows.tracked_metrics import track_export, track_pruning


def compress_run(
    folder: Path, export: ExportSettings, out: Path | None, force: bool, pruning: PruningSettings | None = None
) -> Outcome:
    """Make a package of the last checkpoint of a finished run: its student, else its best fold.

    pruning: prune what was trained first, in a stage of its own; None takes the last checkpoint as it is.
    Raises: InputError if `folder` is no run, its data are gone or changed, or `out` is in the way.
    """
    recipe = replace(read_run_recipe(folder), export=export)
    stage = last_stage(folder)
    if pruning is not None:
        recipe = replace(recipe, pruning=pruning)
        stage = pruning_stage(folder, pruning)
    out = out or MODELS / "-".join(filter(None, [folder.name, export.target, tag_of(stage)]))
    refuse_existing(out, force)
    refuse_unready(export)
    corpus = load_corpus(recipe.corpus)
    if corpus.fingerprint != recorded_fingerprint(folder):
        raise InputError(f"{recipe.corpus.data}: not the file that {folder} was trained on; bring that one back")
    if pruning is not None:
        _refuse_unlike(stage, recipe, force)  # the last check, for it may remove what is there
    run = recipe.run
    with tracking.tracked_run(folder, run.author, run.pipeline, run.experiment) as tracked:
        if pruning is not None and not (stage / RESULT_FILE).is_file():
            prune_run(folder, recipe, corpus, stage, tracked)
        made = export_stage(folder, recipe, corpus, stage, out, tracked, force)
        return write_summary(recipe, corpus, folder, made, tracked)


def _refuse_unlike(stage: Path, recipe: Recipe, force: bool) -> None:
    """Raises InputError if the stage was pruned by other settings; `force` removes it."""
    if not (stage / RESULT_FILE).is_file():
        return
    before, now = StageResult.load(stage).details["settings"], pruning_settings(recipe)
    differ = [name for name, value in now.items() if before.get(name) != value]
    if not differ:
        say(f"{stage}: finished before")
    elif force:
        shutil.rmtree(stage)
    else:
        raise InputError(f"{stage}: pruned with another {', '.join(differ)}; give the same, or --force to prune anew")


def prune_run(folder: Path, recipe: Recipe, corpus: Corpus, out: Path, tracked: tracking.Tracked) -> StageResult:
    """Prune what a run trained, as its student or best fold, into the stage `out`."""
    trained = last_trained(folder)
    name = "student" if recipe.distillation.student is not None else "best fold"
    child = tracked.child(f"pruning {tag_of(out)}")

    def watch(epoch: int, metrics: dict[str, float]) -> None:
        say(f"pruned, epoch {epoch}: validation macro-F1 {metrics['val_macro_f1']:.4f}")
        child.metrics(metrics, epoch)

    baseline = None if recipe.distillation.teacher else folder / BASELINE
    teacher = find_teacher(recipe.distillation, corpus, baseline, CACHE)
    checkpoint = trained / StageResult.load(trained).checkpoint
    result = prune_stage(checkpoint, name, teacher, corpus, recipe, out, CACHE, watch)
    child.finish()
    say(pruning_in_words(result.details, result.details["settings"]))
    track_pruning(tracked, result, corpus.label_names)
    return result


def compress_checkpoint(
    model: str,
    settings: CorpusSettings,
    export: ExportSettings,
    out: Path | None,
    force: bool,
    pruning: PruningSettings | None = None,
) -> Outcome:
    """Make a package of a checkpoint or a Hugging Face sequence-classification model, checked on labelled rows.

    pruning: prune it first, with itself as the teacher.
    Raises: InputError if the model cannot be had or its labels are not those of the rows.
    """
    out = out or MODELS / "-".join([file_part(model), export.target, *([] if pruning is None else [pruning.tag])])
    refuse_existing(out, force)
    refuse_unready(export)
    corpus = load_corpus(settings)
    classifier = load_classifier(Path(model)) if Path(model).is_dir() else load_sequence_classifier(model)
    classifier = with_corpus_labels(classifier, corpus, model)
    name, lineage = file_part(model), lineage_of(corpus, model=model)
    rows = np.concatenate([corpus.rows("validation"), corpus.rows("test")])
    predictions = predict_rows(classifier, corpus, rows, f"{model}: evaluating in torch")
    with tempfile.TemporaryDirectory(prefix="hbt-floor-") as scratch:
        floor_result = train_floor(corpus, Path(scratch) / FLOOR)
        floor = contender(Path(scratch) / FLOOR, "floor")
    _, metrics, _ = evaluate(corpus, predictions, classifier.threshold)
    shown = [Row("floor", floor_result.metrics), Row(f"{name} in torch", metrics, None, classifier.parameters)]
    beside = [floor]
    if pruning is not None:
        beside.append(Contender(f"{name} in torch", predictions, classifier.threshold))
        own = _own_recipe(model, settings, export, pruning)
        classifier, told = _pruned(classifier, corpus, own)
        predictions = predict_rows(classifier, corpus, rows, "pruned: predicting")
        validation, metrics, _ = evaluate(corpus, predictions)
        classifier = classifier.with_threshold(validation.get("best_threshold"))
        shown.append(Row(f"pruned {pruning.tag}", metrics, None, classifier.parameters))
        lineage |= {"pruning": pruning.tag, "pruned": pruning_in_words(told, pruning_settings(own))}
    classifier, trimming = trimmed(classifier, export, corpus, None)
    how = None if pruning is None else pruning.tag
    source = Source(classifier, name, corpus, predictions, lineage, shown, beside, how, trimming)
    with tempfile.TemporaryDirectory(prefix="hbt-qat-") as work:
        tuned = None
        if export.quant_method == "qat":
            own = _own_recipe(model, settings, export, pruning)
            teacher = find_teacher(own.distillation, corpus, None, CACHE)
            tuned, _ = quantization_aware(classifier, teacher, corpus, own, Path(work), CACHE)
        result, _ = compress_or_stand_in(source, export, out, force, tuned)
    made = Path(result.details["package"])
    return Outcome(made, [*shown, *rows_of(result)], [], corpus.label_names, made)


def _own_recipe(
    model: str, settings: CorpusSettings, export: ExportSettings, pruning: PruningSettings | None
) -> Recipe:
    """The recipe of further training of a lone classifier: what it said before is its teacher."""
    how = DistillationSettings(student=model, teacher=(model,))
    return Recipe(corpus=settings, distillation=how, pruning=pruning or PruningSettings(), export=export)


def _pruned(classifier: Classifier, corpus: Corpus, recipe: Recipe) -> tuple[Classifier, dict[str, Any]]:
    """`classifier` pruned, and what was cut."""
    anatomy(classifier.network)
    teacher = find_teacher(recipe.distillation, corpus, None, CACHE)
    with tempfile.TemporaryDirectory(prefix="hbt-pruning-") as scratch:
        return prune(classifier, teacher, corpus, recipe, Path(scratch), CACHE)


def export_stage(
    folder: Path, recipe: Recipe, corpus: Corpus, stage: Path, out: Path, tracked: tracking.Tracked, force: bool
) -> Path:
    """Package the checkpoint of a run's `stage` and keep the artefact's result and predictions in the run.

    force: ship the least bad form if none passes its gate.
    Returns: the package, which is not `out` if torch-int8 had to stand in for onnx-int8.
    """
    export = recipe.export
    result = StageResult.load(stage)
    checkpoint = stage / result.checkpoint
    classifier, trimming = trimmed(load_classifier(checkpoint), export, corpus, recipe.distillation.unlabelled)
    # A baseline's own predictions are those of the ensemble; what is exported is its best fold.
    predictions = _evaluated(Predictions.load(checkpoint / PREDICTIONS_FILE), corpus)
    trained = trained_rows(folder, corpus, [stage] if tag_of(stage) else [])
    source = Source(
        classifier,
        folder.name,
        corpus,
        predictions,
        _lineage(folder, recipe, corpus, stage, result),
        trained,
        _beside(folder, stage, result),
        tag_of(stage) or None,
        trimming,
    )
    work = folder / "-".join(filter(None, [EXPORT, "qat", tag_of(stage)]))
    tuned = _tuned(folder, recipe, corpus, classifier, work, tracked) if export.quant_method == "qat" else None
    try:
        exported, found = compress_or_stand_in(source, export, out, force, tuned)
    except NothingPasses as refused:
        _keep_trials(folder, stage, refused.target, refused.facts, tracked)
        raise
    shutil.rmtree(work, ignore_errors=True)
    exported = replace(exported, details=exported.details | {"stage": stage.name})
    target, made = exported.details["target"], Path(exported.details["package"])
    with whole_folder(export_stage_folder(folder, target, stage)) as partial:
        found.save(partial / PREDICTIONS_FILE, corpus)
        exported.save(partial)
    _keep_trials(folder, stage, target, exported.details["gate"], tracked)
    track_export(tracked, exported, corpus.label_names, made)
    return made


def _lineage(folder: Path, recipe: Recipe, corpus: Corpus, stage: Path, result: StageResult) -> dict[str, Any]:
    """Where a package of a run comes from."""
    lineage = lineage_of(
        corpus,
        run=folder.as_posix(),
        recipe_sha256=recipe.sha256(),
        mlflow_run_id=tracking.run_of(folder) or "",
        model=recipe.model.model,
        pipeline=recipe.run.pipeline,
    )
    if recipe.distillation.student is not None:
        lineage |= {"student": recipe.distillation.student, "teacher": result.details["teacher"]}
    if tag_of(stage):
        lineage |= {"pruning": tag_of(stage), "pruned": pruning_in_words(result.details, result.details["settings"])}
    return lineage


def _beside(folder: Path, stage: Path, result: StageResult) -> list[Contender]:
    """What an artefact of a run is compared with."""
    beside = [contender(folder / FLOOR, "floor")]
    if tag_of(stage):
        beside.append(contender(last_trained(folder), result.details["source_name"]))
    if (folder / BASELINE / RESULT_FILE).is_file():
        beside.append(contender(folder / BASELINE, ENSEMBLE))
    if (folder / DISTILLATION / RESULT_FILE).is_file() and teacher_of(folder).name == TEACHER:
        beside.append(teacher_of(folder))
    return beside


def _tuned(
    folder: Path, recipe: Recipe, corpus: Corpus, classifier: Classifier, work: Path, tracked: tracking.Tracked
) -> Classifier:
    """`classifier` after quantization-aware training with the teacher of its run."""
    child = tracked.child("quantization-aware training")

    def watch(epoch: int, metrics: dict[str, float]) -> None:
        say(f"fake int8, epoch {epoch}: validation macro-F1 {metrics['val_macro_f1']:.4f}")
        child.metrics(metrics, epoch)

    baseline = None if recipe.distillation.teacher else folder / BASELINE
    teacher = find_teacher(recipe.distillation, corpus, baseline, CACHE)
    tuned, _ = quantization_aware(classifier, teacher, corpus, recipe, work, CACHE, watch)
    child.finish()
    return tuned


def _keep_trials(folder: Path, stage: Path, target: str, facts: dict[str, Any], tracked: tracking.Tracked) -> None:
    """The table of the forms that were tried, in the run and its page, whether one of them ships or none."""
    name = export_stage_folder(folder, target, stage).name.removeprefix(f"{EXPORT}-")
    file = folder / "outputs" / f"forms_{name}.csv"
    write_lines([trial | {"in_float": " ".join(trial["in_float"])} for trial in facts["trials"]], file)
    tracked.artifact(file, "outputs")


def _evaluated(predictions: Predictions, corpus: Corpus) -> Predictions:
    """The predictions of validation and test rows alone."""
    rows = np.concatenate([corpus.rows("validation"), corpus.rows("test")])
    return Predictions(rows, predictions.of(rows))
