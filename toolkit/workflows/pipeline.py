"""Which stages, in which order; what is finished is not done again."""

from collections.abc import Callable
from pathlib import Path

from toolkit.config.settings import PruningSettings, Recipe
from toolkit.data.corpus import Corpus, load_corpus
from toolkit.data.unlabeled import read_unlabelled
from toolkit.export.stage import FALLBACK, fallback_folder, refuse_for_ngram, refuse_unready
from toolkit.modeling.architecture import anatomy
from toolkit.modeling.encoders import build_classifier
from toolkit.modeling.ngram import is_ngram, rows_of
from toolkit.modeling.students import build_student
from toolkit.package import MANIFEST_FILE, read_manifest
from toolkit.stages.cross_validation import FoldResult, train_baseline
from toolkit.stages.distillation import distil, imitation_of
from toolkit.stages.linear_baseline import train_floor
from toolkit.stages.result import RESULT_FILE, StageResult
from toolkit.stages.results_table import write_fold_summaries
from toolkit.stages.run_folder import (
    BASELINE,
    CACHE,
    DISTILLATION,
    FLOOR,
    MODELS,
    checkpoint_behind,
    export_stage_folder,
    last_checkpoint,
    last_stage,
    open_folder,
    pruning_stage,
    refuse_other_recipe,
    run_folder,
)
from toolkit.stages.teachers import find_teacher, load_teacher
from toolkit.training.trainer import refuse_missing_device
from toolkit.utils.console import say
from toolkit.utils.errors import InputError, refuse_existing
from toolkit.workflows import tracking
from toolkit.workflows.compress import export_stage, prune_run
from toolkit.workflows.run_summary import Outcome, write_summary
from toolkit.workflows.tracked_metrics import track_baseline, track_distillation, track_epoch, track_settings
from toolkit.workflows.tracking import Tracked


def run_pipeline(recipe: Recipe, force: bool = False, package_folder: Path | None = None) -> Outcome:
    """Run the stages of `recipe.run.pipeline`; those that are finished in the run's folder are not run again.

    force: remove a folder of the same name first.
    package_folder: where the package goes, if the pipeline makes one.
    Raises: InputError, before anything is written, for settings or data that cannot work.
    """
    folder = run_folder(recipe)
    quantizes = recipe.run.pipeline.endswith("quant")
    package_folder = package_folder or MODELS / f"{folder.name}-{recipe.export.target}"
    corpus = workable_corpus(recipe, force, package_folder)
    open_folder(folder, recipe, corpus, force)
    run = recipe.run
    with tracking.tracked_run(folder, run.author, run.pipeline, run.experiment) as tracked:
        track_settings(tracked, recipe, corpus, folder)
        _train_stages(recipe, corpus, folder, tracked)
        stage = last_stage(folder)
        if quantizes:
            finished = _finished_package(recipe, folder, stage, package_folder)
            package_folder = finished or export_stage(folder, recipe, corpus, stage, package_folder, tracked, force)
        final = package_folder if quantizes else last_checkpoint(folder)
        tracked.parameters({"final_model_path": final.as_posix()})
        return write_summary(recipe, corpus, folder, package_folder if quantizes else None, tracked)


def workable_corpus(recipe: Recipe, force: bool = False, package_folder: Path | None = None) -> Corpus:
    """The rows of a recipe that can be run; nothing is written.

    Raises: InputError for settings, models or data that cannot work, or a folder that is in the way.
    """
    _check_stages(recipe)
    folder = run_folder(recipe)
    refuse_other_recipe(folder, recipe, force)
    package_folder = package_folder or MODELS / f"{folder.name}-{recipe.export.target}"
    if recipe.run.pipeline.endswith("quant"):
        refuse_unready(recipe.export)
        refuse_existing(package_folder, force or _is_of_run(package_folder, folder, recipe))
    corpus = load_corpus(recipe.corpus)
    _try_models(recipe, corpus)
    return corpus


def _finished_package(recipe: Recipe, folder: Path, stage: Path, package: Path) -> Path | None:
    """The package that this very run has made, under the name of its target or of the one that took its place."""
    for target, place in ((recipe.export.target, package), (FALLBACK, fallback_folder(package))):
        if export_stage_folder(folder, target, stage).is_dir() and _is_of_run(place, folder, recipe):
            return place
    return None


def _is_of_run(package: Path, folder: Path, recipe: Recipe) -> bool:
    """Whether a package was made by this very run, so that the same command may find it there."""
    known = tracking.run_of(folder)
    if known is None or not (package / MANIFEST_FILE).is_file():
        return False
    lineage = read_manifest(package).get("lineage", {})
    return lineage.get("mlflow_run_id") == known and lineage.get("recipe_sha256") == recipe.sha256()


def _check_stages(recipe: Recipe) -> None:
    distils = "kd" in recipe.run.pipeline
    if recipe.prunes and is_ngram(recipe.distillation.student):
        raise InputError("--student ngram: has no heads or neurons to prune; leave pruning out of --pipeline")
    if distils and recipe.distillation.student is None:
        raise InputError(f"--pipeline {recipe.run.pipeline}: name the student, such as --student layers:4")
    if not distils and recipe.distillation.student is not None:
        raise InputError(
            f"--student: pipeline {recipe.run.pipeline} has none; take one with kd, such as baseline_kd_quant"
        )
    if not recipe.prunes and recipe.pruning != PruningSettings():
        raise InputError(
            f"--prune-method and its kin: pipeline {recipe.run.pipeline} does not prune; take one with prune, such as "
            "baseline_kd_prune_quant"
        )


def _try_models(recipe: Recipe, corpus: Corpus) -> None:
    """Build what will be trained once, so that a model that cannot be had is known before anything is written."""
    refuse_missing_device(recipe.training.device)
    train = corpus.take(corpus.rows("train"))
    how = recipe.distillation
    if how.teacher:
        teachers = [load_teacher(checkpoint_behind(Path(given)).as_posix(), corpus) for given in how.teacher]
        teaching = teachers[0]
    else:
        teaching = build_classifier(recipe.model, corpus.label_names, train, corpus.settings.seed)
    if how.unlabelled is not None:
        read_unlabelled(Path(how.unlabelled))
    if is_ngram(how.student):
        rows_of(str(how.student))
        if how.kd_method != "logit":
            raise InputError(f"--kd-method {how.kd_method}: an ngram student has no layers to compare; leave it out")
        if recipe.run.pipeline.endswith("quant"):
            refuse_for_ngram(recipe.export)
        if recipe.export.trim_vocabulary is not None:
            raise InputError("--trim-vocabulary: an ngram student has characters and no pieces to drop; leave it out")
    elif how.student is not None:
        student = build_student(how.student, teaching, recipe.model, train, corpus.settings.seed)
        imitation_of(how, teaching, student)
        teaching = student
    if recipe.prunes:
        anatomy(teaching.network)


def _train_stages(recipe: Recipe, corpus: Corpus, folder: Path, tracked: Tracked) -> None:
    """Floor, baseline, distillation and pruning, as far as the recipe has them."""
    _stage(folder / FLOOR, lambda: train_floor(corpus, folder / FLOOR))
    if not recipe.distillation.teacher:
        _stage(folder / BASELINE, lambda: _baseline(recipe, corpus, folder, tracked))
    if recipe.distillation.student is not None:
        _stage(folder / DISTILLATION, lambda: _distil(recipe, corpus, folder, tracked))
    if recipe.prunes:
        out = pruning_stage(folder, recipe.pruning)
        _stage(out, lambda: prune_run(folder, recipe, corpus, out, tracked))


def _stage(folder: Path, run: Callable[[], StageResult]) -> None:
    if (folder / RESULT_FILE).is_file():
        say(f"{folder}: finished before")
        return
    say(f"{folder}")
    result = run()
    say(f"{folder}: macro-F1 {result.metrics['macro_f1']:.4f} on the test rows, {result.seconds:.0f} s")


def _baseline(recipe: Recipe, corpus: Corpus, folder: Path, tracked: Tracked) -> StageResult:
    def watch(fold: int, epoch: int, metrics: dict[str, float]) -> None:
        say(f"fold {fold + 1}, epoch {epoch}: validation macro-F1 {metrics['val_macro_f1']:.4f}")
        track_epoch(tracked, fold, epoch, metrics)

    result = train_baseline(corpus, recipe.model, recipe.training, folder / BASELINE, watch)
    folds = [FoldResult.load(folder / BASELINE / f"fold-{k + 1}") for k in range(corpus.folds)]
    track_baseline(tracked, folds, result)
    for file in write_fold_summaries(recipe, corpus.label_names, folds, folder / "outputs"):
        tracked.artifact(file, "outputs")
    return result


def _distil(recipe: Recipe, corpus: Corpus, folder: Path, tracked: Tracked) -> StageResult:
    child = tracked.child("distillation")

    def watch(epoch: int, metrics: dict[str, float]) -> None:
        say(f"student, epoch {epoch}: validation macro-F1 {metrics['val_macro_f1']:.4f}")
        child.metrics(metrics, epoch)

    baseline = None if recipe.distillation.teacher else folder / BASELINE
    result = distil(
        find_teacher(recipe.distillation, corpus, baseline, CACHE),
        corpus,
        recipe.distillation,
        recipe.model,
        recipe.student_training(),
        folder / DISTILLATION,
        CACHE,
        watch,
    )
    child.finish()
    track_distillation(tracked, result, corpus.label_names)
    return result
