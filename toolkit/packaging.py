"""`hbt compress`: a run, a checkpoint or any Hugging Face classifier becomes a package."""

from dataclasses import replace
from pathlib import Path

import numpy as np

from benchmarks import floor as floor_model
from exporters.registry import targets
from toolkit import tracking
from toolkit.classifier import Classifier, load_classifier, load_sequence_classifier
from toolkit.compression import Source, compress, lineage_of, rows_of
from toolkit.corpus import Corpus, load_corpus
from toolkit.errors import InputError, refuse_existing
from toolkit.metrics import calculate_metrics_with_threshold_exploration
from toolkit.outcome import Outcome, stage_rows, write_summary
from toolkit.progress import say
from toolkit.recipe import CorpusSettings, Recipe
from toolkit.run_metrics import track_export
from toolkit.runs import EXPORT, MODELS, last_stage, read_run_recipe, recorded_fingerprint
from toolkit.stage import PREDICTIONS_FILE, Predictions, StageResult, evaluate, whole_folder
from toolkit.summary import Row, file_part


def compress_run(folder: Path, target: str, out: Path | None, force: bool) -> Outcome:
    """Make a package of the last checkpoint of a finished run: its student, else its best fold.

    Raises: InputError if `folder` is no run, its data are gone or changed, or `out` is in the way.
    """
    recipe = read_run_recipe(folder)
    out = out or MODELS / f"{folder.name}-{target}"
    refuse_existing(out, force)
    corpus = load_corpus(recipe.corpus)
    if corpus.fingerprint != recorded_fingerprint(folder):
        raise InputError(f"{recipe.corpus.data}: not the file that {folder} was trained on; bring that one back")
    name = f"{recipe.run.author}_{recipe.run.pipeline}"
    with tracking.tracked_run(folder, name, recipe.run.experiment, "") as tracked:
        export_stage(folder, recipe, corpus, target, out, tracked)
        rows = stage_rows(folder, corpus)
        write_summary(recipe, corpus, folder, rows, tracked)
    return Outcome(folder, rows, corpus.label_names, out)


def compress_checkpoint(model: str, settings: CorpusSettings, target: str, out: Path | None, force: bool) -> Outcome:
    """Make a package of a checkpoint or a Hugging Face sequence-classification model, checked on labelled rows.

    Raises: InputError if the model cannot be had or its labels are not those of the rows.
    """
    out = out or MODELS / f"{file_part(model)}-{target}"
    refuse_existing(out, force)
    corpus = load_corpus(settings)
    classifier = load_classifier(Path(model)) if Path(model).is_dir() else load_sequence_classifier(model)
    classifier = with_corpus_labels(classifier, corpus, model)
    predictions, rows = _checkpoint_rows(classifier, model, corpus)
    source = Source(classifier, file_part(model), corpus, predictions, rows, lineage_of(corpus, model=model))
    result, _ = compress(source, target, out)
    return Outcome(out, [*rows, *rows_of(result)], corpus.label_names, out)


def with_corpus_labels(classifier: Classifier, corpus: Corpus, model: str) -> Classifier:
    """`classifier` under the label names of the corpus, where its own are the same or say nothing.

    Raises: InputError if they differ.
    """
    mine, theirs = corpus.label_names, classifier.labels
    nameless = all(name == f"LABEL_{i}" for i, name in enumerate(theirs))
    if len(mine) != len(theirs) or (mine != theirs and not nameless):
        raise InputError(
            f"{model}: its labels are {', '.join(theirs)} and those of the data {', '.join(mine)}; "
            "name them in the model's order with --label-names"
        )
    return replace(classifier, labels=mine)


def export_stage(
    folder: Path, recipe: Recipe, corpus: Corpus, target: str, out: Path, tracked: tracking.Tracked
) -> None:
    """Package the last checkpoint of a run and keep the artefact's result and predictions in the run."""
    stage = last_stage(folder)
    result = StageResult.load(stage)
    checkpoint = stage / result.checkpoint
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
        lineage |= {"student": recipe.distillation.student}
    trained = [row for row in stage_rows(folder, corpus) if row.stage not in targets()]
    classifier = load_classifier(checkpoint)
    source = Source(classifier, folder.name, corpus, _evaluated(predictions, corpus), trained, lineage)
    exported, found = compress(source, target, out)
    with whole_folder(folder / f"{EXPORT}-{target}") as partial:
        found.save(partial / PREDICTIONS_FILE, corpus)
        exported.save(partial)
    track_export(tracked, exported, corpus.label_names, out)


def _evaluated(predictions: Predictions, corpus: Corpus) -> Predictions:
    """The predictions of validation and test rows alone."""
    rows = np.concatenate([corpus.rows("validation"), corpus.rows("test")])
    return Predictions(rows, predictions.of(rows))


def _checkpoint_rows(classifier: Classifier, model: str, corpus: Corpus) -> tuple[Predictions, list[Row]]:
    """Predictions of a lone checkpoint, and floor and checkpoint as the rows of its table."""
    rows = np.concatenate([corpus.rows("validation"), corpus.rows("test")])
    say(f"{model}: evaluating in torch on {len(rows)} rows")
    predictions = Predictions(rows, classifier.predict_logits(corpus.take(rows)))
    floor = floor_model.fit_floor(corpus)
    test = corpus.rows("test")
    floor_metrics = calculate_metrics_with_threshold_exploration(
        corpus.labels[test], floor.predict_proba(corpus.take(test)), floor.threshold, corpus.label_names
    )
    _, metrics, _ = evaluate(corpus, predictions, classifier.threshold)
    return predictions, [
        Row("floor", floor_metrics),
        Row(f"{file_part(model)} in torch", metrics, None, classifier.parameters),
    ]
