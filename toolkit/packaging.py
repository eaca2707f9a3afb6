"""`hbt compress`: a run, a checkpoint or any Hugging Face classifier becomes a package."""

import shutil
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np

from toolkit import tracking
from toolkit.baseline import predict_rows
from toolkit.classifier import Classifier, load_classifier, load_sequence_classifier
from toolkit.comparisons import ENSEMBLE, TEACHER, Contender, contender, teacher_of
from toolkit.compression import Source, compress, lineage_of, rows_of
from toolkit.corpus import Corpus, load_corpus
from toolkit.errors import InputError, refuse_existing
from toolkit.floor import train_floor
from toolkit.outcome import Outcome, trained_rows, write_summary
from toolkit.progress import say
from toolkit.pruning.anatomy import anatomy
from toolkit.pruning.stage import prune, prune_stage, pruning_in_words, pruning_settings
from toolkit.recipe import CorpusSettings, DistillationSettings, ExportSettings, PruningSettings, Recipe
from toolkit.run_metrics import track_export, track_pruning
from toolkit.runs import (
    BASELINE,
    CACHE,
    DISTILLATION,
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
from toolkit.stage import PREDICTIONS_FILE, RESULT_FILE, Predictions, StageResult, evaluate, whole_folder
from toolkit.summary import Row, file_part
from toolkit.teachers import find_teacher, with_corpus_labels
from toolkit.vocabulary import trimmed


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
    corpus = load_corpus(recipe.corpus)
    if corpus.fingerprint != recorded_fingerprint(folder):
        raise InputError(f"{recipe.corpus.data}: not the file that {folder} was trained on; bring that one back")
    if pruning is not None:
        _refuse_unlike(stage, recipe, force)  # the last check, for it may remove what is there
    run = recipe.run
    with tracking.tracked_run(folder, run.author, run.pipeline, run.experiment) as tracked:
        if pruning is not None and not (stage / RESULT_FILE).is_file():
            prune_run(folder, recipe, corpus, stage, tracked)
        export_stage(folder, recipe, corpus, export, stage, out, tracked)
        return write_summary(recipe, corpus, folder, out, tracked)


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
    say(pruning_in_words(result))
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
        classifier = _pruned(classifier, model, corpus, settings, export, pruning)
        predictions = predict_rows(classifier, corpus, rows, "pruned: predicting")
        validation, metrics, _ = evaluate(corpus, predictions)
        classifier = classifier.with_threshold(validation.get("best_threshold"))
        shown.append(Row(f"pruned {pruning.tag}", metrics, None, classifier.parameters))
        lineage |= {"pruning": pruning.tag}
    classifier, trimming = trimmed(classifier, export, corpus, None)
    how = None if pruning is None else pruning.tag
    source = Source(classifier, name, corpus, predictions, lineage, shown, beside, how, trimming)
    result, _ = compress(source, export.target, out)
    return Outcome(out, [*shown, *rows_of(result)], [], corpus.label_names, out)


def _pruned(
    classifier: Classifier,
    model: str,
    corpus: Corpus,
    settings: CorpusSettings,
    export: ExportSettings,
    pruning: PruningSettings,
) -> Classifier:
    """`classifier` pruned, what it said before being its teacher."""
    how = DistillationSettings(student=model, teacher=(model,))
    recipe = Recipe(corpus=settings, distillation=how, pruning=pruning, export=export)
    anatomy(classifier.network)
    with tempfile.TemporaryDirectory(prefix="hbt-pruning-") as scratch:
        return prune(classifier, find_teacher(how, corpus, None, CACHE), corpus, recipe, Path(scratch), CACHE)[0]


def export_stage(
    folder: Path,
    recipe: Recipe,
    corpus: Corpus,
    export: ExportSettings,
    stage: Path,
    out: Path,
    tracked: tracking.Tracked,
) -> None:
    """Package the checkpoint of a run's `stage` and keep the artefact's result and predictions in the run."""
    result = StageResult.load(stage)
    checkpoint = stage / result.checkpoint
    classifier, trimming = trimmed(load_classifier(checkpoint), export, corpus, recipe.distillation.unlabelled)
    # A baseline's own predictions are those of the ensemble; what is exported is its best fold.
    predictions = Predictions.load(checkpoint / PREDICTIONS_FILE)
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
    pruned = tag_of(stage)
    trained = trained_rows(folder, corpus, [stage] if pruned else [])
    beside = [contender(folder / FLOOR, "floor")]
    if pruned:
        lineage |= {"pruning": pruned, "pruned": pruning_in_words(result)}
        beside.append(contender(last_trained(folder), result.details["source_name"]))
    if (folder / BASELINE / RESULT_FILE).is_file():
        beside.append(contender(folder / BASELINE, ENSEMBLE))
    if (folder / DISTILLATION / RESULT_FILE).is_file() and teacher_of(folder).name == TEACHER:
        beside.append(teacher_of(folder))
    evaluated = _evaluated(predictions, corpus)
    source = Source(classifier, folder.name, corpus, evaluated, lineage, trained, beside, pruned or None, trimming)
    exported, found = compress(source, export.target, out)
    exported = replace(exported, details=exported.details | {"stage": stage.name})
    with whole_folder(export_stage_folder(folder, export.target, stage)) as partial:
        found.save(partial / PREDICTIONS_FILE, corpus)
        exported.save(partial)
    track_export(tracked, exported, corpus.label_names, out)


def _evaluated(predictions: Predictions, corpus: Corpus) -> Predictions:
    """The predictions of validation and test rows alone."""
    rows = np.concatenate([corpus.rows("validation"), corpus.rows("test")])
    return Predictions(rows, predictions.of(rows))
