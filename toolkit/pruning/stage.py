"""The pruning stage: prune a checkpoint and recover its accuracy by fine-tuning on the teacher's logits."""

import copy
import json
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from toolkit.config.recipe import Recipe
from toolkit.evaluation.comparison import Contender, versus
from toolkit.evaluation.decision_rule import DecisionRule
from toolkit.evaluation.predictions import PREDICTIONS_FILE, Predictions
from toolkit.modeling.architecture import Sizes, summary_of
from toolkit.modeling.classifier import WEIGHTS_FILE, Classifier, load_classifier
from toolkit.modeling.vocabulary_trimming import trimmed
from toolkit.pruning.plan import Objective
from toolkit.pruning.recovery import Recovery
from toolkit.pruning.structured import budget_of, prune_structured
from toolkit.pruning.unstructured import prune_unstructured, sparsity_and_size
from toolkit.stages.distillation_data import DistillationData
from toolkit.stages.result import StageResult, keep_trained
from toolkit.training.trainer import WatchEpoch, steps_of
from toolkit.utils.errors import InputError
from toolkit.utils.files import MB, read_json, whole_folder, write_text
from toolkit.utils.scratch import remove_folder


def prune_stage(
    checkpoint: Path, name: str, data: DistillationData, out: Path, watch: WatchEpoch | None = None
) -> StageResult:
    """Prune the classifier in the folder `checkpoint` by the recipe of `data`, and write the stage `out`.

    name: name of the checkpoint in comparisons.
    Raises: InputError if its architecture is not supported or the budget cannot be met.
    """
    started = time.monotonic()
    corpus, recipe = data.corpus, data.recipe
    source = load_classifier(checkpoint)
    with whole_folder(out) as partial:
        work = partial / "training"
        try:
            pruned, details = prune(source, data, work, watch)
        except InputError:
            remove_folder(partial)  # invalid settings: there is nothing to resume
            raise
        result, predictions = keep_trained("pruning", "pruned", pruned, corpus, partial, started, inherited=source.rule)
        if recipe.pruning.prune_method != "structured":
            files = (partial / WEIGHTS_FILE, checkpoint / WEIGHTS_FILE)
            details |= sparsity_and_size(*files, pruned.network, recipe.pruning)
        remove_folder(work)
        after = Contender("pruned", predictions, result.rule)
        before = Contender(name, Predictions.load(checkpoint / PREDICTIONS_FILE), source.rule or DecisionRule())
        result = replace(
            result,
            details=result.details
            | {
                "settings": pruning_settings(recipe),
                "source": checkpoint.as_posix(),
                "source_name": name,
                "teacher": data.teacher.source,
                "versus_source": versus(corpus, after, before).comparison.as_dict(),
            }
            | details,
        )
        result.save(partial)
    return result


def prune(
    source: Classifier, data: DistillationData, work: Path, watch: WatchEpoch | None = None
) -> tuple[Classifier, dict[str, Any]]:
    """Return a pruned copy of `source`, and details: what was removed, measured and recovered.

    work: folder for plans and optimizer checkpoints; an interrupted pruning resumes from there.
    Raises: InputError if the architecture is not supported or the budget cannot be met.
    """
    corpus, recipe, pruning = data.corpus, data.recipe, data.recipe.pruning
    _reset_other_recipe(work, recipe)
    recover = Recovery(data, work, watch)
    calibration = data.calibration()
    if pruning.prune_method == "structured":
        objective = Objective(calibration, data.training, data.distillation_loss)
        # The budget is for the exported model, whose vocabulary may be trimmed.
        exported, _ = trimmed(source, recipe.export, corpus, recipe.distillation.unlabelled)
        budget = budget_of(exported, pruning, recipe.export.target, corpus.take(corpus.rows("validation")), data.cache)
        return prune_structured(source, objective, pruning, budget, recover)
    copied = replace(source, network=copy.deepcopy(source.network))
    steps = steps_of(len(data.train.texts), replace(data.training, epochs=1))
    return copied, prune_unstructured(copied, calibration, pruning, steps, recover)


def _reset_other_recipe(work: Path, recipe: Recipe) -> None:
    """Empty the folder `work` unless it holds an interrupted pruning with the same recipe."""
    file, own = work / "recipe.json", {"recipe": recipe.sha256()}
    if read_json(file) != own:
        remove_folder(work)
        write_text(file, json.dumps(own))


def pruning_settings(recipe: Recipe) -> dict[str, Any]:
    """Return the settings that determine the pruning of a given checkpoint."""
    settings, export = recipe.pruning, recipe.export
    measured = settings.prune_to_ms is not None or settings.prune_to_mb is not None
    timed = {"target": export.target, "trim_vocabulary": export.trim_vocabulary} if measured else {}
    return asdict(settings) | timed


def describe_pruning(details: dict[str, Any], settings: dict[str, Any]) -> str:
    """Return a description of the pruning for model card and messages.

    details: as returned by `prune`; settings: as returned by `pruning_settings`.
    """
    if settings["prune_method"] == "structured":
        left = summary_of([Sizes(**size) for size in details["left"]])
        return f"pruned by {100 * details['sparsity']:.0f} % of the encoder's weights to {left}"
    compressed = (
        f"; the checkpoint compresses to {details['zstd_size_bytes'] / MB:.1f} MB (zstd) instead of "
        f"{details['zstd_size_bytes_before'] / MB:.1f}"
        if "zstd_size_bytes" in details
        else ""
    )
    return (
        f"{100 * details['sparsity']:.1f} % zeros in {settings['prune_layers']} linear layers "
        f"({settings['prune_method']}): neither faster nor smaller{compressed}"
    )
