"""Which stages, in which order: a run folder that can be broken off and gone on with, and its summary."""

import json
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from benchmarks import floor as floor_model
from toolkit import tracking
from toolkit.baseline import FoldResult, train_baseline
from toolkit.classifier import Classifier, load_classifier
from toolkit.compression import Source, compress, lineage_of
from toolkit.corpus import Corpus, describe_split, load_corpus
from toolkit.distillation import Teacher, baseline_stage, distil, teacher_of_checkpoint, teacher_of_stage
from toolkit.encoders import build_classifier
from toolkit.errors import InputError, refuse_existing
from toolkit.latency import median_latency_ms
from toolkit.progress import say
from toolkit.recipe import DESCRIPTIONS, CorpusSettings, Recipe, recipe_from, write_recipe
from toolkit.stage import PREDICTIONS_FILE, RESULT_FILE, Predictions, StageResult, evaluate, whole_folder
from toolkit.students import build_student
from toolkit.summary import MB, Row, file_part, write_fold_summaries, write_pipeline_summary

RUNS, MODELS = Path("runs"), Path("models")
RECIPE_FILE, CORPUS_FILE = "recipe.toml", "corpus.json"
FLOOR, BASELINE, DISTILLATION = "0-floor", "1-baseline", "2-distillation"


@dataclass(frozen=True)
class Outcome:
    """What a run came to."""

    folder: Path
    rows: list[Row]
    labels: tuple[str, ...]
    package: Path | None


def run_folder(recipe: Recipe) -> Path:
    """The folder of a run, named in the recipe or after data and model."""
    data = "demo" if recipe.corpus.data == "demo" else Path(recipe.corpus.data).stem
    return RUNS / (recipe.run.name or f"{file_part(data)}-{file_part(recipe.model.model)}")


def run_pipeline(recipe: Recipe, force: bool = False, package_folder: Path | None = None) -> Outcome:
    """Run the stages of `recipe.run.pipeline`; those that are finished in the run's folder are not run again.

    force: remove a folder of the same name first.
    package_folder: where the package goes, if the pipeline makes one.
    Raises: InputError, before anything is written, for settings or data that cannot work.
    """
    _check_stages(recipe)
    folder = run_folder(recipe)
    quantizes = recipe.run.pipeline.endswith("quant")
    package_folder = package_folder or MODELS / f"{folder.name}-{recipe.export.target}"
    if quantizes:
        refuse_existing(package_folder, force or _is_of_run(package_folder, folder))
    _refuse_other_recipe(folder, recipe, force)
    corpus = load_corpus(recipe.corpus)
    _try_models(recipe, corpus)
    _open_folder(folder, recipe, corpus, force)
    name = f"{recipe.run.author}_{recipe.run.pipeline}"
    description = DESCRIPTIONS[recipe.run.pipeline]
    with tracking.tracked_run(folder, name, recipe.run.experiment, description) as tracked:
        _track_settings(tracked, recipe, corpus, folder)
        rows = _train_stages(recipe, corpus, folder, tracked)
        if quantizes:
            rows = _export_stage(folder, recipe, corpus, recipe.export.target, package_folder, tracked)
        _summarise(recipe, corpus, folder, rows, tracked)
        final = package_folder if quantizes else last_checkpoint(folder)
        tracked.parameters({"final_model_path": final.as_posix()})
    return Outcome(folder, rows, corpus.label_names, package_folder if quantizes else None)


def compress_run(folder: Path, target: str, out: Path | None, force: bool) -> Outcome:
    """Make a package of the last checkpoint of a finished run: its student, else its best fold.

    Raises: InputError if `folder` is no run, its data are gone or changed, or `out` is in the way.
    """
    recipe = read_run_recipe(folder)
    out = out or MODELS / f"{folder.name}-{target}"
    refuse_existing(out, force)
    corpus = load_corpus(recipe.corpus)
    recorded = json.loads((folder / CORPUS_FILE).read_text("utf-8"))["fingerprint"]
    if corpus.fingerprint != recorded:
        raise InputError(f"{recipe.corpus.data}: not the file that {folder} was trained on; bring that one back")
    name = f"{recipe.run.author}_{recipe.run.pipeline}"
    with tracking.tracked_run(folder, name, recipe.run.experiment, "") as tracked:
        rows = _export_stage(folder, recipe, corpus, target, out, tracked)
        _summarise(recipe, corpus, folder, rows, tracked)
    return Outcome(folder, rows, corpus.label_names, out)


def compress_checkpoint(model: str, settings: CorpusSettings, target: str, out: Path | None, force: bool) -> Outcome:
    """Make a package of a checkpoint or a Hugging Face sequence-classification model, checked on labelled rows.

    Raises: InputError if the model cannot be had or its labels are not those of the rows.
    """
    from toolkit.classifier import load_sequence_classifier

    out = out or MODELS / f"{file_part(model)}-{target}"
    refuse_existing(out, force)
    corpus = load_corpus(settings)
    classifier = load_classifier(Path(model)) if Path(model).is_dir() else load_sequence_classifier(model)
    classifier = with_corpus_labels(classifier, corpus, model)
    rows = _checkpoint_rows(classifier, model, corpus)
    _, _, table = compress(
        Source(classifier, file_part(model), corpus, rows[0], rows[1], lineage_of(corpus, model=model)), target, out
    )
    return Outcome(out, table, corpus.label_names, out)


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


def read_run_recipe(folder: Path) -> Recipe:
    """The recipe of a run folder. Raises InputError if it is none or has no finished training stage."""
    if not (folder / RECIPE_FILE).is_file():
        raise InputError(f"{folder}: not a run (no {RECIPE_FILE}); make one with hbt train")
    last_checkpoint(folder)
    return recipe_from(folder / RECIPE_FILE, {})


def last_stage(folder: Path) -> Path:
    """The last finished training stage of a run. Raises InputError if there is none."""
    for stage in (folder / DISTILLATION, folder / BASELINE):
        if (stage / RESULT_FILE).is_file():
            return stage
    raise InputError(f"{folder}: no finished stage; go on with the hbt train command that began it")


def last_checkpoint(folder: Path) -> Path:
    """The checkpoint that a run came to: its student, else its best fold."""
    stage = last_stage(folder)
    return stage / StageResult.load(stage).checkpoint


def teacher_checkpoint(folder: Path) -> Path | None:
    """The best fold of a run, or the checkpoint that it was given as the teacher; None if that is gone."""
    if (folder / BASELINE / RESULT_FILE).is_file():
        return folder / BASELINE / StageResult.load(folder / BASELINE).checkpoint
    given = recipe_from(folder / RECIPE_FILE, {}).distillation.teacher
    if given is None or not Path(given).is_dir():
        return None
    stage = baseline_stage(Path(given))
    return stage / StageResult.load(stage).checkpoint if stage else Path(given)


def _is_of_run(package: Path, folder: Path) -> bool:
    """Whether a package was made by this very run, so that the same command may find it there."""
    file = package / "manifest.json"
    return file.is_file() and json.loads(file.read_text("utf-8"))["lineage"].get("run") == folder.as_posix()


def _check_stages(recipe: Recipe) -> None:
    distils = "kd" in recipe.run.pipeline
    if distils and recipe.distillation.student is None:
        raise InputError(f"--pipeline {recipe.run.pipeline}: name the student, such as --student layers:4")
    if not distils and recipe.distillation.student is not None:
        raise InputError(f"--student: pipeline {recipe.run.pipeline} has none; take baseline_kd or baseline_kd_quant")


def _refuse_other_recipe(folder: Path, recipe: Recipe, force: bool) -> None:
    if force or not (folder / RECIPE_FILE).is_file():
        if folder.exists() and not force:
            raise InputError(f"{folder}: exists and is no run; give another --name, or --force to remove it")
        return
    before, now = recipe_from(folder / RECIPE_FILE, {}), recipe
    if before.sha256() != now.sha256():
        differ = [key for key, value in now.flat().items() if before.flat()[key] != value]
        raise InputError(
            f"{folder}: a run with another {', '.join(differ)}; give another --name, or --force to remove it"
        )


def _try_models(recipe: Recipe, corpus: Corpus) -> None:
    """Build what will be trained once, so that a model that cannot be had is known before anything is written."""
    train = corpus.take(corpus.rows("train"))
    how = recipe.distillation
    if how.teacher is None:
        teaching = build_classifier(recipe.model, corpus.label_names, train, corpus.settings.seed)
    else:
        stage = baseline_stage(Path(how.teacher))
        checkpoint = stage / StageResult.load(stage).checkpoint if stage else Path(how.teacher)
        teaching = load_classifier(checkpoint)
        if teaching.labels != corpus.label_names:
            raise InputError(
                f"--teacher {how.teacher}: its labels are {', '.join(teaching.labels)} and those of the corpus "
                f"{', '.join(corpus.label_names)}; name them alike with --label-names"
            )
    if how.student is not None:
        build_student(how.student, teaching, recipe.model, train, corpus.settings.seed)


def _open_folder(folder: Path, recipe: Recipe, corpus: Corpus, force: bool) -> None:
    if force and folder.exists():
        shutil.rmtree(folder)
    if (folder / CORPUS_FILE).is_file():
        recorded = json.loads((folder / CORPUS_FILE).read_text("utf-8"))["fingerprint"]
        if recorded != corpus.fingerprint:
            raise InputError(f"{folder}: began with other rows in {recipe.corpus.data}; give --force or another --name")
        return
    (folder / "outputs").mkdir(parents=True, exist_ok=True)
    (folder / CORPUS_FILE).write_text(json.dumps(describe_split(corpus), ensure_ascii=False) + "\n", "utf-8")
    write_recipe(recipe, folder / RECIPE_FILE)


def _train_stages(recipe: Recipe, corpus: Corpus, folder: Path, tracked: tracking.Tracked) -> list[Row]:
    """Floor, baseline and distillation, as far as the recipe has them; returns the rows of the table so far."""
    _stage(folder / FLOOR, lambda: _fit_floor(corpus, folder / FLOOR))
    if recipe.distillation.teacher is None:
        _stage(folder / BASELINE, lambda: _baseline(recipe, corpus, folder, tracked))
    if recipe.distillation.student is not None:
        _stage(folder / DISTILLATION, lambda: _distil(recipe, corpus, folder, tracked))
    return stage_rows(folder, corpus)


def _stage(folder: Path, run: Callable[[], StageResult]) -> None:
    if (folder / RESULT_FILE).is_file():
        say(f"{folder}: finished before")
        return
    say(f"{folder}")
    result = run()
    say(f"{folder}: macro-F1 {result.metrics['macro_f1']:.4f} on the test rows, {result.seconds:.0f} s")


def _fit_floor(corpus: Corpus, folder: Path) -> StageResult:
    import time

    import numpy as np

    started = time.monotonic()
    with whole_folder(folder) as partial:
        floor = floor_model.fit_floor(corpus)
        floor_model.save(floor, partial)
        rows = np.concatenate([corpus.rows("validation"), corpus.rows("test")])
        # Probabilities are kept as logits, as every stage keeps them: softmax(log p) is p.
        probabilities = floor.predict_proba(corpus.take(rows)).astype(np.float64)
        predictions = Predictions(rows, np.log(np.maximum(probabilities, 1e-12)).astype(np.float32))
        predictions.save(partial / PREDICTIONS_FILE, corpus)
        validation, test, slices = evaluate(corpus, predictions, floor.threshold)
        result = StageResult(
            stage="floor",
            checkpoint=".",
            metrics=test,
            validation_metrics=validation,
            threshold=floor.threshold,
            parameters=int(floor.classifier.coef_.size + floor.classifier.intercept_.size),
            size_bytes=sum(file.stat().st_size for file in partial.glob("floor.*")),
            seconds=time.monotonic() - started,
            slices=slices,
        )
        result.save(partial)
    return result


def _baseline(recipe: Recipe, corpus: Corpus, folder: Path, tracked: tracking.Tracked) -> StageResult:
    def watch(fold: int, epoch: int, metrics: dict[str, float]) -> None:
        say(f"fold {fold + 1}, epoch {epoch}: validation macro-F1 {metrics['val_macro_f1']:.4f}")
        tracked.child(f"fold-{fold + 1}").metrics(metrics, epoch)
        named = {name: value for name, value in metrics.items() if name != "epoch" and "_th_" not in name}
        tracked.metrics({f"fold_{fold + 1}_epoch_{epoch}_{name}": value for name, value in named.items()})

    result = train_baseline(corpus, recipe.model, recipe.training, folder / BASELINE, watch)
    folds = [FoldResult.load(folder / BASELINE / f"fold-{k + 1}") for k in range(corpus.folds)]
    for fold in folds:
        child = tracked.child(f"fold-{fold.fold + 1}")
        child.metrics({f"best_val_{name}": value for name, value in fold.val.items()})
        child.metrics({f"best_train_{name}": value for name, value in fold.train.items()})
        child.finish()
    _track_folds(tracked, folds, result)
    for file in write_fold_summaries(recipe, corpus.label_names, folds, folder / "outputs"):
        tracked.artifact(file, "outputs")
    return result


def _track_folds(tracked: tracking.Tracked, folds: list[FoldResult], result: StageResult) -> None:
    import statistics

    for name in folds[0].val:
        values = [fold.val[name] for fold in folds]
        tracked.metrics({f"mean_val_{name}": statistics.mean(values), f"std_val_{name}": statistics.stdev(values)})
    tracked.metrics({f"baseline_{name}": value for name, value in result.metrics.items()})
    details = result.details
    tracked.metrics({"best_fold": details["best_fold"] + 1, "total_parameters": folds[0].total_parameters})
    _track_teacher(tracked, details["best_fold_parameters"], details["best_fold_size_bytes"])


def _track_teacher(tracked: tracking.Tracked, parameters: int, size_bytes: int) -> None:
    tracked.metrics({"teacher_total_params": parameters, "teacher_size_mb": size_bytes / MB})


def _distil(recipe: Recipe, corpus: Corpus, folder: Path, tracked: tracking.Tracked) -> StageResult:
    child = tracked.child("distillation")

    def watch(epoch: int, metrics: dict[str, float]) -> None:
        say(f"student, epoch {epoch}: validation macro-F1 {metrics['val_macro_f1']:.4f}")
        child.metrics(metrics, epoch)

    result = distil(
        _teacher(recipe, corpus, folder),
        corpus,
        recipe.distillation,
        recipe.model,
        recipe.student_training(),
        folder / DISTILLATION,
        watch,
    )
    child.finish()
    details = result.details
    _track_teacher(tracked, details["teacher_parameters"], details["teacher_size_bytes"])
    tracked.metrics(_named_metrics("kd", result, corpus.label_names) | {"kd_agreement": details["agreement"]})
    tracked.metrics(
        {
            "student_total_params": result.parameters,
            "student_size_mb": result.size_bytes / MB,
            "compression_ratio": details["teacher_size_bytes"] / result.size_bytes,
        }
    )
    return result


def _teacher(recipe: Recipe, corpus: Corpus, folder: Path) -> Teacher:
    given = recipe.distillation.teacher
    if given is None:
        return teacher_of_stage(folder / BASELINE)
    stage = baseline_stage(Path(given))
    if stage is None:
        return teacher_of_checkpoint(Path(given), corpus, folder / "cache")
    record = stage.parent / CORPUS_FILE
    same = record.is_file() and json.loads(record.read_text("utf-8"))["fingerprint"] == corpus.fingerprint
    if same:
        return teacher_of_stage(stage)
    return teacher_of_checkpoint(stage / StageResult.load(stage).checkpoint, corpus, folder / "cache")


def stage_rows(folder: Path, corpus: Corpus) -> list[Row]:
    """The rows of a run's table: floor, fold ensemble, one fold, student; then the same for each slice."""
    texts = corpus.take(corpus.rows("test"))
    rows: list[Row] = []
    parts: list[Row] = []

    def add(name: str, metrics: dict[str, float], slices: dict[str, Any], *figures: Any) -> None:
        rows.append(Row(name, metrics, *figures))
        parts.extend(Row(f"{name}, {part}", values) for part, values in slices.items())

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
        latency = _latency(folder, "checkpoint", folder / DISTILLATION, texts)
        name = f"student {result.details['student']}"
        add(name, result.metrics, result.slices, result.size_bytes, result.parameters, latency)
    return [*rows, *parts]


def _latency(folder: Path, kind: Any, path: Path, texts: list[str]) -> float | None:
    """Measured once a run and kept, so that a resumed run shows the same figure."""
    file = folder / "outputs" / "latency.json"
    known = json.loads(file.read_text("utf-8")) if file.is_file() else {}
    name = path.relative_to(folder).as_posix()
    if name not in known:
        say(f"{path}: measuring latency")
        known[name] = median_latency_ms(kind, path, texts)
        file.write_text(json.dumps(known, indent=2) + "\n", "utf-8")
    return known[name]


def _export_stage(
    folder: Path, recipe: Recipe, corpus: Corpus, target: str, out: Path, tracked: tracking.Tracked
) -> list[Row]:
    """Package the last checkpoint and keep the artefact's result and predictions in the run."""
    stage = last_stage(folder)
    result = StageResult.load(stage)
    checkpoint = stage / result.checkpoint
    predictions = Predictions.load((checkpoint if result.stage == "baseline" else stage) / PREDICTIONS_FILE)
    rows = stage_rows(folder, corpus)
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
    source = Source(load_classifier(checkpoint), folder.name, corpus, _evaluated(predictions, corpus), rows, lineage)
    child = tracked.child(f"export {target}")
    exported, found, rows = compress(source, target, out)
    with whole_folder(folder / f"3-export-{target}") as partial:
        found.save(partial / PREDICTIONS_FILE, corpus)
        exported.save(partial)
    child.metrics(exported.metrics)
    child.finish()
    if exported.stage == "quantization":
        tracked.metrics(_named_metrics("quantization", exported, corpus.label_names))
        tracked.metrics({"quantization_size_mb": exported.size_bytes / MB})
    tracked.metrics({"package_size_mb": exported.details["package_size_bytes"] / MB})
    tracked.artifact(out, "package")
    tracked.artifact(out / "README.md", "model_card")
    return rows


def _evaluated(predictions: Predictions, corpus: Corpus) -> Predictions:
    """The predictions of validation and test rows alone."""
    import numpy as np

    rows = np.concatenate([corpus.rows("validation"), corpus.rows("test")])
    return Predictions(rows, predictions.of(rows))


def _checkpoint_rows(classifier: Classifier, model: str, corpus: Corpus) -> tuple[Predictions, list[Row]]:
    """Predictions of a lone checkpoint, and floor and checkpoint as the rows of its table."""
    import numpy as np

    rows = np.concatenate([corpus.rows("validation"), corpus.rows("test")])
    say(f"{model}: evaluating in torch on {len(rows)} rows")
    predictions = Predictions(rows, classifier.predict_logits(corpus.take(rows)))
    floor = floor_model.fit_floor(corpus)
    test = corpus.rows("test")
    from toolkit.metrics import calculate_metrics_with_threshold_exploration as measure

    floor_metrics = measure(
        corpus.labels[test], floor.predict_proba(corpus.take(test)), floor.threshold, corpus.label_names
    )
    _, metrics, _ = evaluate(corpus, predictions, classifier.threshold)
    return predictions, [
        Row("floor", floor_metrics),
        Row(f"{file_part(model)} in torch", metrics, None, classifier.parameters),
    ]


def _named_metrics(prefix: str, result: StageResult, labels: tuple[str, ...]) -> dict[str, float]:
    names = ["accuracy", "macro_f1", *(f"f1_{label}" for label in labels), "roc_auc", "best_threshold"]
    return {f"{prefix}_{name}": result.metrics[name] for name in names if name in result.metrics}


def _track_settings(tracked: tracking.Tracked, recipe: Recipe, corpus: Corpus, folder: Path) -> None:
    flat = recipe.flat()
    tracked.parameters(
        {
            "pipeline_description": DESCRIPTIONS[recipe.run.pipeline],
            "enable_kd": recipe.distillation.student is not None,
            "enable_pruning": False,
            "enable_quantization": recipe.run.pipeline.endswith("quant"),
            "model_path": recipe.model.model,
            "student_path": recipe.distillation.student or "",
            "kd_method": "logit",
            "quant_method": "dynamic" if recipe.export.target == "onnx-int8" else "none",
            "quant_dtype": recipe.export.target.split("-")[-1],
            "corpus_fingerprint": corpus.fingerprint,
            "recipe_sha256": recipe.sha256(),
            "run_folder": folder.as_posix(),
        }
        | {name: "" if value is None else value for name, value in flat.items()}
    )
    tracked.corpus(corpus, describe_split(corpus)["counts"])
    tracked.artifact(folder / RECIPE_FILE)
    tracked.artifact(folder / CORPUS_FILE)


def _summarise(recipe: Recipe, corpus: Corpus, folder: Path, rows: list[Row], tracked: tracking.Tracked) -> None:
    file = folder / "outputs" / f"pipeline_summary_{recipe.run.pipeline}.csv"
    write_pipeline_summary(rows, corpus.label_names, file)
    tracked.artifact(file, "outputs")
    (folder / "summary.json").write_text(
        json.dumps([asdict(row) for row in rows], indent=2, ensure_ascii=False) + "\n", "utf-8"
    )
