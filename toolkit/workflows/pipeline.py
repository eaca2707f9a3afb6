"""`hbt train` and `hbt run`: run the stages of a pipeline in order, skipping those that are finished."""

import shlex
from dataclasses import replace
from pathlib import Path

from toolkit.config.cli_options import options_text
from toolkit.config.recipe import Recipe
from toolkit.config.settings import Pipeline, PruningSettings
from toolkit.data.corpus import Corpus
from toolkit.data.unlabeled import read_unlabeled
from toolkit.export.stage import FALLBACK, fallback_folder, refuse_fallback, refuse_for_ngram, refuse_unready
from toolkit.modeling.architecture import architecture_of
from toolkit.modeling.classifier import Classifier, SequenceClassifier
from toolkit.modeling.encoders import build_classifier
from toolkit.modeling.known_encoders import unfit_encoder
from toolkit.modeling.ngram import is_ngram, rows_of
from toolkit.modeling.students import build_student
from toolkit.stages.distillation import distillation_loss_of
from toolkit.stages.inputs import contents_of_inputs, refuse_changed_inputs
from toolkit.stages.result import predict_rows
from toolkit.stages.run_folder import EXPORT, Run, checkpoint_of, export_stage, package_folder, run_folder
from toolkit.stages.teachers import load_teacher, refuse_other_order
from toolkit.tracking import mlflow_runs as tracking
from toolkit.tracking.tracked_metrics import track_settings
from toolkit.training.trainer import refuse_missing_device
from toolkit.utils.console import say
from toolkit.utils.errors import InputError, NothingPasses
from toolkit.utils.locks import locked
from toolkit.utils.overwrite import refuse_folder
from toolkit.workflows.export_run import export_run, is_of_run, track_exported
from toolkit.workflows.run_summary import SUMMARY_FILE, RunSummary, write_summary
from toolkit.workflows.steps import STEPS, run_step, step_of, track_stage

ORDER_ROWS = 200
"""Validation rows on which the order of an imported teacher's labels is checked before anything is written."""


def run_pipeline(
    recipe: Recipe, force: bool = False, package: Path | None = None, relative: Path | None = None
) -> RunSummary:
    """Run the stages of a recipe's pipeline; skip those that are finished in the run folder.

    force: replace an existing run folder or package; package the best candidate even if none passes the quality gate or
      it is not worth shipping.
    package: folder of the package, if the pipeline exports one.
    relative: run whose linear baseline is copied, if it has the same rows in each split.
    Raises: InputError for invalid settings or data, before anything is written, or if another command works on the run
        or the package; NothingPasses.
    """
    package = package or default_package(recipe)
    Run.of_recipe(recipe, force)  # reports a wrong name before a lock is written
    with locked(run_folder(recipe), "give another --name"):
        if not recipe.exports:
            return _run_pipeline(recipe, force, package, relative)
        with locked(package, "give another path with -o"):
            return _run_pipeline(recipe, force, package, relative)


def _run_pipeline(recipe: Recipe, force: bool, package: Path, relative: Path | None) -> RunSummary:
    """Do the work of `run_pipeline` while nothing else works on the run and the package."""
    run = workable_run(recipe, force, package, relative)
    force = force or run.may_replace(package)
    run.begin(package if force else None, contents_of_inputs(recipe) if run.fingerprint is None else {})
    with tracking.tracked_run(run.folder, recipe.run) as tracked:
        track_settings(tracked, run)
        exported = None
        for stage in recipe.stages:
            if stage == "export":
                exported = _finished_package(run, package)
                if exported is None:
                    exported = _export(run, package, tracked, force)
                else:
                    _track_exports(run, tracked)
            else:
                run_step(STEPS[stage], run, tracked)
        final = exported if exported is not None else run.checkpoint(run.last_stage)
        tracked.parameters({"final_model_path": final.as_posix()})
        summary = write_summary(run, exported, tracked)
    run.finish()
    return summary


def _export(run: Run, package: Path, tracked: tracking.Tracked, force: bool) -> Path:
    """Return the new package. Raises: NothingPasses with the command that makes it of the finished stages."""
    try:
        return export_run(run, run.last_stage, package, tracked, force)
    except NothingPasses as refused:
        options = options_text(run.recipe.export)
        default = package_folder(run.folder.name, replace(run.recipe.export, target=refused.target), run.last_stage)
        place = "" if package == default else f" -o {shlex.quote(package.as_posix())}"
        way_on = f"with hbt compress {shlex.quote(run.folder.as_posix())}{options}{place} --force"
        raise NothingPasses(refused.target, refused.facts, refused.why, way_on) from None


def train_pipeline(recipe: Recipe, force: bool = False, relative: Path | None = None) -> RunSummary:
    """Run the training pipeline; see `training_recipe` and `run_pipeline`."""
    return run_pipeline(training_recipe(recipe), force, None, relative)


def training_recipe(recipe: Recipe) -> Recipe:
    """Return `recipe` without pruning and export: with a baseline and, if it names a student, a distillation."""
    pipeline: Pipeline = "baseline_kd" if recipe.distillation.student else "baseline"
    return replace(recipe, run=replace(recipe.run, pipeline=pipeline), pruning=PruningSettings())


def sync_run(folder: Path) -> None:
    """Send what MLflow does not have yet of a run; a second time, there is nothing left to send.

    Raises: InputError if `folder` is not a run folder, a command works on it, or the MLflow store cannot be used.
    """
    Run.open(folder)  # reports a folder that is not a run before a lock is written
    with locked(folder, "leave it to that command, which logs the run"):
        run = Run.open(folder)
        tracked = tracking.open_run(folder, run.recipe.run)
        track_settings(tracked, run)
        for stage in run.results:
            step = step_of(stage)
            if step is not None:
                track_stage(step, stage, run, tracked)
        _track_exports(run, tracked)
        complete = (folder / SUMMARY_FILE).is_file()
        tracking.send_all(tracked, complete)


def _track_exports(run: Run, tracked: tracking.Tracked) -> None:
    for stage in run.stages(EXPORT):
        track_exported(run, stage, tracked)


def workable_run(recipe: Recipe, force: bool = False, package: Path | None = None, relative: Path | None = None) -> Run:
    """Return the new or resumed run of a recipe after checking that it can run; write nothing.

    Raises: InputError for invalid settings, models or data, or if a folder of run or package already exists.
    """
    _check_stages(recipe)
    run = replace(Run.of_recipe(recipe, force), relative=relative)
    package = package or default_package(recipe)
    if recipe.exports:
        refuse_unready(recipe.export)
        refuse_folder(package, force or run.may_replace(package) or is_of_run(package, run), "package")
    refuse_changed_inputs(run)
    if recipe.corpus.data == "demo":
        say("the data are the embedded demo corpus, synthetic texts in Bangla; give --data FILE for your own")
    last = _try_models(run)
    if recipe.exports and last is not None:
        replaces = force or run.may_replace(package) or is_of_run(fallback_folder(package), run)
        refuse_fallback(last, recipe.export, package, replaces)
    return run


def default_package(recipe: Recipe) -> Path:
    """Return the folder of the package of a run, unless the user names another."""
    return package_folder(run_folder(recipe).name, recipe.export, "")


def _finished_package(run: Run, package: Path) -> Path | None:
    """Return the package that this run has already made, for its target or the fallback target; None without one."""
    for target, place in ((run.recipe.export.target, package), (FALLBACK, fallback_folder(package))):
        if export_stage(target, run.last_stage, run.recipe.export.suffix) in run.results and is_of_run(place, run):
            return place
    return None


def _check_stages(recipe: Recipe) -> None:
    student, pipeline = recipe.distillation.student, recipe.run.pipeline
    recipe.refuse_cascade()
    if recipe.prunes and is_ngram(student):
        raise InputError("--student ngram: has no heads or neurons to prune; use a --pipeline without prune")
    if recipe.distils and student is None:
        raise InputError(f"--pipeline {pipeline}: name the student, such as --student layers:4")
    if not recipe.distils and student is not None:
        raise InputError(f"--student: pipeline {pipeline} does not distil; use one with kd, such as baseline_kd_quant")
    if not recipe.prunes and recipe.pruning != PruningSettings():
        raise InputError(
            f"pruning options: pipeline {pipeline} does not prune; use one with prune, such as baseline_kd_prune_quant"
        )


def _try_models(run: Run) -> Classifier | None:
    """Load or build every model of the run once, so that errors appear before anything is written or trained.

    Returns: the last one, with random weights unless it is a teacher; None for an ngram student, which is not built.
    """
    recipe, corpus, settings = run.recipe, run.corpus, run.recipe.distillation
    refuse_missing_device(recipe.training.device)
    train = corpus.take(corpus.rows("train"))
    if is_ngram(settings.student):
        _check_ngram(recipe)
    if settings.no_teacher:
        return None
    if settings.teacher:
        teachers = [load_teacher(checkpoint_of(Path(given)).as_posix(), corpus) for given in settings.teacher]
        for given, teacher in zip(settings.teacher, teachers, strict=True):
            _try_order(given, teacher, corpus)
        network = teachers[0]
    else:
        problem = unfit_encoder(recipe.model.model, train)
        if problem:
            say(problem)
        network = build_classifier(recipe.model, corpus.label_names, train, corpus.settings.seed)
    if settings.unlabelled is not None:
        read_unlabeled(Path(settings.unlabelled))
    if is_ngram(settings.student):
        return None
    if settings.student is not None:
        student = build_student(settings.student, network, recipe.model, train, corpus.settings.seed)
        distillation_loss_of(settings, network, student)
        network = student
    if recipe.prunes:
        architecture_of(network.network)
    return network


def _try_order(given: str, teacher: Classifier, corpus: Corpus) -> None:
    """Raise InputError if the outputs of an imported teacher fit the labels far better in another order."""
    if isinstance(teacher.network, SequenceClassifier):
        rows = corpus.rows("validation")[:ORDER_ROWS]
        predictions = predict_rows(teacher, corpus, rows, f"--teacher {given}: checking the order of its labels")
        refuse_other_order(teacher, corpus, predictions, f"--teacher {given}")


def _check_ngram(recipe: Recipe) -> None:
    settings = recipe.distillation
    rows_of(str(settings.student))  # raises InputError for an invalid table size
    if settings.kd_method != "logit":
        raise InputError(f"--kd-method {settings.kd_method}: an ngram student has no layers to distil; leave it out")
    if recipe.exports:
        refuse_for_ngram(recipe.export)
    if recipe.export.trim_vocabulary is not None:
        raise InputError("--trim-vocabulary: an ngram student has no vocabulary of pieces to trim; leave it out")
