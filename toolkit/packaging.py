"""`hbt compress`: a run, a checkpoint or any Hugging Face classifier becomes a package."""

import tempfile
from pathlib import Path

import numpy as np

from exporters.registry import targets
from toolkit import tracking
from toolkit.baseline import predict_rows
from toolkit.classifier import Classifier, load_classifier, load_sequence_classifier
from toolkit.comparisons import ENSEMBLE, contender, teacher_apart
from toolkit.compression import Source, compress, lineage_of, rows_of
from toolkit.corpus import Corpus, load_corpus
from toolkit.errors import InputError, refuse_existing
from toolkit.floor import train_floor
from toolkit.lessons import read_unlabelled
from toolkit.outcome import Outcome, stage_rows, write_summary
from toolkit.progress import working
from toolkit.recipe import CorpusSettings, ExportSettings, Recipe
from toolkit.run_metrics import track_export
from toolkit.runs import BASELINE, EXPORT, FLOOR, MODELS, last_stage, read_run_recipe, recorded_fingerprint
from toolkit.stage import PREDICTIONS_FILE, RESULT_FILE, Predictions, StageResult, evaluate, whole_folder
from toolkit.summary import Row, file_part
from toolkit.teachers import with_corpus_labels
from toolkit.vocabulary import Trimming, trim_vocabulary


def compress_run(folder: Path, export: ExportSettings, out: Path | None, force: bool) -> Outcome:
    """Make a package of the last checkpoint of a finished run: its student, else its best fold.

    Raises: InputError if `folder` is no run, its data are gone or changed, or `out` is in the way.
    """
    recipe = read_run_recipe(folder)
    out = out or MODELS / f"{folder.name}-{export.target}"
    refuse_existing(out, force)
    corpus = load_corpus(recipe.corpus)
    if corpus.fingerprint != recorded_fingerprint(folder):
        raise InputError(f"{recipe.corpus.data}: not the file that {folder} was trained on; bring that one back")
    run = recipe.run
    with tracking.tracked_run(folder, run.author, run.pipeline, run.experiment) as tracked:
        export_stage(folder, recipe, corpus, export, out, tracked)
        return write_summary(recipe, corpus, folder, out, tracked)


def compress_checkpoint(
    model: str, settings: CorpusSettings, export: ExportSettings, out: Path | None, force: bool
) -> Outcome:
    """Make a package of a checkpoint or a Hugging Face sequence-classification model, checked on labelled rows.

    Raises: InputError if the model cannot be had or its labels are not those of the rows.
    """
    out = out or MODELS / f"{file_part(model)}-{export.target}"
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
    classifier, trimming = _trimmed(classifier, export, corpus, None)
    source = Source(classifier, name, corpus, predictions, lineage, shown, [floor], trimming)
    result, _ = compress(source, export.target, out)
    return Outcome(out, [*shown, *rows_of(result)], [], corpus.label_names, out)


def export_stage(
    folder: Path, recipe: Recipe, corpus: Corpus, export: ExportSettings, out: Path, tracked: tracking.Tracked
) -> None:
    """Package the last checkpoint of a run and keep the artefact's result and predictions in the run."""
    stage = last_stage(folder)
    result = StageResult.load(stage)
    checkpoint = stage / result.checkpoint
    classifier, trimming = _trimmed(load_classifier(checkpoint), export, corpus, recipe.distillation.unlabelled)
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
    trained = [row for row in stage_rows(folder, corpus) if row.stage not in targets()]
    beside = [contender(folder / FLOOR, "floor")]
    if (folder / BASELINE / RESULT_FILE).is_file():
        beside.append(contender(folder / BASELINE, ENSEMBLE))
    teacher = teacher_apart(folder)
    if teacher is not None:
        beside.append(teacher)
    evaluated = _evaluated(predictions, corpus)
    source = Source(classifier, folder.name, corpus, evaluated, lineage, trained, beside, trimming)
    exported, found = compress(source, export.target, out)
    with whole_folder(folder / f"{EXPORT}-{export.target}") as partial:
        found.save(partial / PREDICTIONS_FILE, corpus)
        exported.save(partial)
    track_export(tracked, exported, corpus.label_names, out)


def _trimmed(
    classifier: Classifier, export: ExportSettings, corpus: Corpus, unlabelled: str | None
) -> tuple[Classifier, Trimming | None]:
    """`classifier` with the vocabulary of the corpus and of the unlabelled texts, if that is asked for."""
    if export.trim_vocabulary is None:
        return classifier, None
    further = [] if unlabelled is None else read_unlabelled(Path(unlabelled))
    with working("trimming the vocabulary"):
        return trim_vocabulary(classifier, [*corpus.texts, *further], export.trim_vocabulary)


def _evaluated(predictions: Predictions, corpus: Corpus) -> Predictions:
    """The predictions of validation and test rows alone."""
    rows = np.concatenate([corpus.rows("validation"), corpus.rows("test")])
    return Predictions(rows, predictions.of(rows))
