"""`hbt compress`: make a package from a run, a checkpoint or any Hugging Face classifier."""

import re
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from toolkit.config.recipe import Recipe
from toolkit.config.settings import CorpusSettings, DistillationSettings, ExportSettings, PruningSettings
from toolkit.config.toml_file import recipe_of
from toolkit.data.corpus import Corpus, load_corpus
from toolkit.evaluation.comparison import Contender
from toolkit.evaluation.decision_rule import DecisionRule
from toolkit.evaluation.predictions import evaluate, rule_on
from toolkit.evaluation.standing import standing_in, standing_of
from toolkit.export.stage import Source, compress_or_fall_back, lineage_of, refuse_fallback, refuse_unready, rows_of
from toolkit.modeling.architecture import architecture_of
from toolkit.modeling.classifier import Classifier, load_classifier, load_sequence_classifier
from toolkit.modeling.linear import load_linear
from toolkit.modeling.tokenizer import truncation_in
from toolkit.modeling.vocabulary_trimming import trimmed
from toolkit.pruning.stage import describe_pruning, prune, pruning_settings
from toolkit.stages.distillation_data import prepare_distillation
from toolkit.stages.inputs import refuse_changed_inputs
from toolkit.stages.linear_baseline import NAME as LINEAR_BASELINE_NAME, train_linear_baseline
from toolkit.stages.quantization_aware import quantization_aware
from toolkit.stages.result import predict_rows
from toolkit.stages.results_table import Row
from toolkit.stages.run_folder import (
    LINEAR_BASELINE,
    MODELS,
    Run,
    export_stage,
    is_run,
    package_folder,
    pruning_stage,
)
from toolkit.stages.teachers import refuse_other_order, with_corpus_labels
from toolkit.tracking import mlflow_runs as tracking
from toolkit.training.fake_quantization import quantized_modules
from toolkit.utils.errors import InputError
from toolkit.utils.files import file_part
from toolkit.utils.locks import locked
from toolkit.utils.overwrite import refuse_folder
from toolkit.utils.scratch import scratch_folder
from toolkit.workflows.compare import contender_of
from toolkit.workflows.export_run import export_run, is_of_run
from toolkit.workflows.run_summary import RunSummary, write_summary
from toolkit.workflows.steps import STEPS, run_step

SOURCE = "SOURCE"
"""Name of the argument of `hbt compress`, for messages."""


def compress_source(source: str, given: dict[str, Any], out: Path | None, force: bool) -> RunSummary:
    """Make a package from a run, or from a checkpoint or Hugging Face classifier and labeled rows.

    given: settings by name. The source is pruned first if any pruning setting is among them. `data` is required unless
    the source is a run, where it is the path of its data file, if that has moved.
    Raises: InputError for a setting that the run already defines, for missing `data`, and as `compress_run` and
    `compress_checkpoint`.
    """
    recipe = recipe_of(None, given)
    pruning = recipe.pruning if _names(PruningSettings) & set(given) else None
    if is_run(Path(source)):
        known = {*_names(ExportSettings), *_names(PruningSettings), "data"}
        excess = [name for name in given if name not in known]
        if excess:
            raise InputError(f"--{excess[0].replace('_', '-')}: {source} is a run, which defines it; leave it out")
        return compress_run(Path(source), recipe.export, out, force, pruning, given.get("data"))
    if not Path(source).exists() and re.fullmatch(r"(?!runs/|models/)[\w-][\w.-]*(/[\w.-]+)?", source) is None:
        raise InputError(f"{source}: no such folder; give a run, a checkpoint folder or a hub id")
    if recipe.export.cascade:
        fix = f"hbt run --pipeline baseline_kd_quant --teacher {source} --student layers:2 --cascade"
        raise InputError(f"--cascade: {source} is not a run; distill it in one: {fix} --data FILE")
    if recipe.export.register is not None:
        fix = f"distill it in a run: hbt run --pipeline baseline_kd_quant --teacher {source} --data FILE"
        raise InputError(f"--register: {source} is not a run, and only runs are logged to MLflow; {fix}")
    if recipe.export.budget_kb is not None:
        raise InputError(
            f"--budget-kb: {source} is not a run, whose training texts it needs; give the run, or leave it out"
        )
    if "data" not in given:
        kind = "not a run folder;" if Path(source).exists() else "no such folder; for a hub id,"
        raise InputError(f"{source}: {kind} give labeled rows to evaluate it on with --data FILE")
    longest = recipe.model.max_length if "max_length" in given else None
    return compress_checkpoint(source, recipe.corpus, recipe.export, out, force, pruning, longest)


def _names(settings: type) -> set[str]:
    return {field.name for field in fields(settings)}


def compress_run(
    folder: Path,
    export: ExportSettings,
    out: Path | None,
    force: bool,
    pruning: PruningSettings | None = None,
    data: str | None = None,
) -> RunSummary:
    """Make a package from the last checkpoint of a finished run: its student, else its best fold.

    pruning: settings of a pruning stage that runs first; None exports the last checkpoint unchanged.
    data: path of the data file, if it has moved.
    Raises: InputError if `folder` is not a run folder, its data are missing or changed, `out` exists, or another
        command works on one of them.
    """
    run = Run.open(folder)
    stage = run.last_stage if pruning is None else pruning_stage(pruning)
    out = out or package_folder(folder.name, export, stage)
    _refuse_package(out, run.using(export, pruning), stage, force)
    refuse_unready(export)
    with locked(folder, "compress another run"), locked(out, "give another path with -o"):
        run = replace(Run.open(folder), data=data).using(export, pruning)
        _refuse_package(out, run, stage, force)  # again, since another command may have made it meanwhile
        return _compress_run(run, stage, out, force, pruning)


def _refuse_package(out: Path, run: Run, stage: str, force: bool) -> None:
    """Raise InputError if the package exists, unless the same command was killed before the run could record it."""
    export = run.recipe.export
    unrecorded = export_stage(export.target, stage, export.suffix) not in run.results
    refuse_folder(out, force or (unrecorded and is_of_run(out, run)), "package")


def _compress_run(run: Run, stage: str, out: Path, force: bool, pruning: PruningSettings | None) -> RunSummary:
    """Do the work of `compress_run` while nothing else works on the run and the package."""
    run.require_rows()
    export = run.recipe.export
    run.recipe.refuse_cascade()
    trains = pruning is not None or export.quant_method == "qat" or export.cascade
    texts = ["--unlabelled"] if trains or export.trim_vocabulary is not None else []
    refuse_changed_inputs(run, ["--teacher", *texts] if trains else texts)
    if pruning is not None:
        _refuse_other_pruning(run, stage, force)
    refuse_fallback(load_classifier(run.checkpoint(run.last_trained)), export, out, force)
    with tracking.tracked_run(run.folder, run.recipe.run) as tracked:
        if pruning is not None:
            run_step(STEPS["pruning"], run, tracked)
        package = export_run(run, stage, out, tracked, force)
        return write_summary(run, package, tracked)


def _refuse_other_pruning(run: Run, stage: str, force: bool) -> None:
    """Raise InputError if the stage was pruned with other settings; with `force`, forget its result instead."""
    if stage not in run.results:
        return
    before, now = run.results[stage].details["settings"], pruning_settings(run.recipe)
    differ = [name for name, value in now.items() if before.get(name) != value]
    if not differ:
        return
    if not force:
        raise InputError(
            f"{run.folder / stage}: pruned with a different {', '.join(differ)}; give the same, or --force to prune "
            "again"
        )
    del run.results[stage]  # its folder is replaced when the new one is complete


def compress_checkpoint(
    model: str,
    settings: CorpusSettings,
    export: ExportSettings,
    out: Path | None,
    force: bool,
    pruning: PruningSettings | None = None,
    max_length: int | None = None,
) -> RunSummary:
    """Make a package from a checkpoint or a Hugging Face sequence classifier, evaluated on labeled rows.

    pruning: prune the classifier first, with the unpruned classifier as the teacher; None does not prune.
    max_length: maximum number of tokens per text; None takes that of the model.
    Raises: InputError if the model cannot be loaded or its labels are not those of the rows.
    """
    out = out or MODELS / "-".join([file_part(model), export.target, *([] if pruning is None else [pruning.tag])])
    refuse_folder(out, force, "package")
    refuse_unready(export)
    with locked(out, "give another path with -o"):
        refuse_folder(out, force, "package")  # again, since another command may have made it meanwhile
        return _compress_checkpoint(model, settings, export, out, force, pruning, max_length)


def _compress_checkpoint(
    model: str,
    settings: CorpusSettings,
    export: ExportSettings,
    out: Path,
    force: bool,
    pruning: PruningSettings | None,
    max_length: int | None,
) -> RunSummary:
    """Do the work of `compress_checkpoint` while nothing else works on the package."""
    corpus = load_corpus(settings)
    classifier = _load(model, max_length)
    refuse_fallback(classifier, export, out, force)
    classifier = with_corpus_labels(classifier, corpus, model)
    name, lineage = file_part(model), lineage_of(corpus, model=model)
    rows = np.concatenate([corpus.rows("validation"), corpus.rows("test")])
    predictions = predict_rows(classifier, corpus, rows, f"{model}: evaluating in PyTorch")
    refuse_other_order(classifier, corpus, predictions, model)
    with scratch_folder() as scratch:
        linear_result = train_linear_baseline(corpus, scratch / LINEAR_BASELINE)
        linear = contender_of(scratch / LINEAR_BASELINE, linear_result, LINEAR_BASELINE_NAME)
        linear_model = load_linear(scratch / LINEAR_BASELINE)
    if classifier.rule is None:
        classifier = classifier.with_rule(rule_on(corpus, predictions).rule)
    rule = classifier.rule or DecisionRule()
    _, metrics, _ = evaluate(corpus, predictions, rule)
    original = Contender(f"{name} in torch", predictions, rule)
    rows_before_export = [
        Row(LINEAR_BASELINE_NAME, linear_result.metrics),
        Row(f"{name} in torch", metrics, None, classifier.parameters, standing=standing_of(corpus, original, linear)),
    ]
    references = [linear]
    if pruning is not None:
        references.append(original)
        recipe = _recipe_of_checkpoint(model, settings, export, pruning)
        classifier, details = _pruned(classifier, corpus, recipe)
        predictions = predict_rows(classifier, corpus, rows, "pruned: predicting")
        rule = rule_on(corpus, predictions, inherited=rule).rule
        classifier = classifier.with_rule(rule)
        _, metrics, _ = evaluate(corpus, predictions, rule)
        pruned = Contender(f"pruned {pruning.tag}", predictions, rule)
        standing = standing_of(corpus, pruned, linear)
        rows_before_export.append(Row(pruned.name, metrics, None, classifier.parameters, standing=standing))
        lineage |= {"pruning": pruning.tag, "pruned": describe_pruning(details, pruning_settings(recipe))}
    classifier, trimming = trimmed(classifier, export, corpus, None)
    tag = None if pruning is None else pruning.tag
    source = Source(
        classifier, name, corpus, predictions, lineage, rows_before_export, references, tag, trimming, linear_model
    )
    with scratch_folder() as work:
        tuned = None
        if export.quant_method == "qat":
            recipe = _recipe_of_checkpoint(model, settings, export, pruning)
            quantized_modules(classifier.network)
            tuned, _ = quantization_aware(classifier, prepare_distillation(recipe, corpus, None), work)
        result, _ = compress_or_fall_back(source, export, out, force, tuned)
    package = Path(result.details["package"])
    shown, details = [*rows_before_export, *rows_of(result)], result.details
    labels, description = corpus.label_names, ""
    return RunSummary(package, shown, [], labels, package, description, standing_in(details), truncation_in(details))


def _load(model: str, max_length: int | None) -> Classifier:
    """Return the classifier in a folder or with a hub id, which reads at most `max_length` tokens unless that is None.

    Raises: InputError if it cannot be loaded or cannot read so many tokens.
    """
    own = Path(model).is_dir()
    classifier = load_classifier(Path(model), option=SOURCE) if own else load_sequence_classifier(model, option=SOURCE)
    longest = classifier.max_length
    if max_length is not None:
        if longest is None:
            raise InputError(f"--max-length: {model} reads texts of any length; leave it out")
        if max_length > longest:
            raise InputError(
                f"--max-length {max_length}: {model} reads at most {longest} tokens; give {longest} or less"
            )
        classifier.tokenizer.enable_truncation(max_length)
    return classifier


def _recipe_of_checkpoint(
    model: str, settings: CorpusSettings, export: ExportSettings, pruning: PruningSettings | None
) -> Recipe:
    """Return a recipe for training a classifier outside a run further, with the original classifier as the teacher."""
    distillation = DistillationSettings(student=model, teacher=(model,))
    return Recipe(corpus=settings, distillation=distillation, pruning=pruning or PruningSettings(), export=export)


def _pruned(classifier: Classifier, corpus: Corpus, recipe: Recipe) -> tuple[Classifier, dict[str, Any]]:
    """Return a pruned copy of `classifier` and the details of the pruning."""
    architecture_of(classifier.network)
    data = prepare_distillation(recipe, corpus, None)
    with scratch_folder() as scratch:
        return prune(classifier, data, scratch)
