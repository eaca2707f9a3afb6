"""The pruning stage: a checkpoint in, a smaller or sparser one out, its accuracy won back from the teacher."""

import copy
import json
import shutil
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from toolkit.config.recipe import Recipe
from toolkit.evaluation.comparison import Contender, versus
from toolkit.evaluation.predictions import PREDICTIONS_FILE, Predictions
from toolkit.modeling.architecture import Sizes, summary_of
from toolkit.modeling.classifier import WEIGHTS_FILE, Classifier, load_classifier
from toolkit.modeling.vocabulary_trimming import trimmed
from toolkit.pruning.plan import Objective
from toolkit.pruning.recovery import Recovery
from toolkit.pruning.structured import budget_of, prune_structured
from toolkit.pruning.unstructured import counted, prune_unstructured
from toolkit.stages.distillation_data import DistillationData
from toolkit.stages.result import StageResult, keep_trained
from toolkit.training.trainer import WatchEpoch, steps_of
from toolkit.utils.errors import InputError
from toolkit.utils.files import MB, whole_folder


def prune_stage(
    checkpoint: Path, name: str, data: DistillationData, out: Path, watch: WatchEpoch | None = None
) -> StageResult:
    """Prune the classifier in the folder `checkpoint` as the recipe of `data` says, and write it as the stage `out`.

    name: what the checkpoint is called in comparisons.
    Raises: InputError if its parts are not known here or the budget is out of reach.
    """
    started = time.monotonic()
    corpus, recipe = data.corpus, data.recipe
    source = load_classifier(checkpoint)
    with whole_folder(out) as partial:
        work = partial / "training"
        try:
            pruned, details = prune(source, data, work, watch)
        except InputError:
            shutil.rmtree(partial)  # refused: there is nothing to resume
            raise
        result, predictions = keep_trained("pruning", "pruned", pruned, corpus, partial, started)
        if recipe.pruning.prune_method != "structured":
            details |= counted(partial / WEIGHTS_FILE, checkpoint / WEIGHTS_FILE, pruned.network, recipe.pruning)
        shutil.rmtree(work, ignore_errors=True)
        own = Contender("pruned", predictions, result.threshold)
        before = Contender(name, Predictions.load(checkpoint / PREDICTIONS_FILE), source.threshold)
        result = replace(
            result,
            details={
                "settings": pruning_settings(recipe),
                "source": checkpoint.as_posix(),
                "source_name": name,
                "teacher": data.teacher.source,
                "versus_source": versus(corpus, own, before).comparison.as_dict(),
            }
            | details,
        )
        result.save(partial)
    return result


def prune(
    source: Classifier, data: DistillationData, work: Path, watch: WatchEpoch | None = None
) -> tuple[Classifier, dict[str, Any]]:
    """Return a pruned copy of `source`, and what was cut, measured and recovered.

    work: folder for checkpoints of the optimizer; an interrupted pruning resumes from there.
    """
    corpus, recipe, pruning = data.corpus, data.recipe, data.recipe.pruning
    _forget_other(work, recipe)
    recover = Recovery(data, work, watch)
    calibration = data.calibration()
    if pruning.prune_method == "structured":
        objective = Objective(calibration, data.training, data.distillation_loss)
        # Megabytes are counted with the vocabulary that ships.
        ships, _ = trimmed(source, recipe.export, corpus, recipe.distillation.unlabelled)
        budget = budget_of(ships, pruning, recipe.export.target, corpus.take(corpus.rows("validation")), data.cache)
        return prune_structured(source, objective, pruning, budget, recover)
    copied = replace(source, network=copy.deepcopy(source.network))
    steps = steps_of(len(data.train.texts), replace(data.training, epochs=1))
    return copied, prune_unstructured(copied, calibration, pruning, steps, recover)


def _forget_other(work: Path, recipe: Recipe) -> None:
    """Empty `work` unless it is that of the very same settings, broken off."""
    file, own = work / "recipe.json", {"recipe": recipe.sha256()}
    if not file.is_file() or json.loads(file.read_text("utf-8")) != own:
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir(parents=True)
        file.write_text(json.dumps(own), "utf-8")


def pruning_settings(recipe: Recipe) -> dict[str, Any]:
    """What decides how a checkpoint is pruned, beside the checkpoint and its teacher."""
    settings, export = recipe.pruning, recipe.export
    measured = settings.prune_to_ms is not None or settings.prune_to_mb is not None
    timed = {"target": export.target, "trim_vocabulary": export.trim_vocabulary} if measured else {}
    return asdict(settings) | timed


def pruning_in_words(told: dict[str, Any], settings: dict[str, Any]) -> str:
    """What was pruned, for card and table. told: what `prune` returned; settings: see `pruning_settings`."""
    if settings["prune_method"] == "structured":
        left = summary_of([Sizes(**size) for size in told["left"]])
        return f"cut by {100 * told['sparsity']:.0f} % of the encoder's weights to {left}"
    compressed = (
        f"; the checkpoint would be {told['zstd_size_bytes'] / MB:.1f} MB compressed (zstd) instead of "
        f"{told['zstd_size_bytes_before'] / MB:.1f}"
        if "zstd_size_bytes" in told
        else ""
    )
    return (
        f"{100 * told['sparsity']:.1f} % zeros in the {settings['prune_layers']} maps ({settings['prune_method']}): "
        f"neither faster nor smaller{compressed}"
    )
