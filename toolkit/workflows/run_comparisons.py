"""Paired comparisons of the stages of a run, from the predictions they left; no model is run for them."""

from pathlib import Path

from toolkit.data.corpus import Corpus
from toolkit.evaluation.comparison import Contender, Versus, versus
from toolkit.evaluation.predictions import PREDICTIONS_FILE, Predictions
from toolkit.stages.result import RESULT_FILE, StageResult
from toolkit.stages.run_folder import BASELINE, DISTILLATION, EXPORT, FLOOR, pruning_stages, tag_of
from toolkit.stages.teachers import ENSEMBLE, TEACHER, TEACHER_FILE


def run_comparisons(folder: Path, corpus: Corpus) -> list[Versus]:
    """What each stage of a run won or lost against the floor and against what it came from."""
    floor = contender(folder / FLOOR, "floor")
    found = []
    if (folder / BASELINE / RESULT_FILE).is_file():
        found.append(versus(corpus, contender(folder / BASELINE, ENSEMBLE), floor))
    if (folder / DISTILLATION / RESULT_FILE).is_file():
        source = contender(folder / DISTILLATION, "student")
        teacher = teacher_of(folder)
        if teacher.name == TEACHER:
            found.append(versus(corpus, teacher, floor))
        found += [versus(corpus, source, teacher), versus(corpus, source, floor)]
    else:
        source = best_fold(folder)
    pruned = {stage.name: contender(stage, f"pruned {tag_of(stage)}") for stage in pruning_stages(folder)}
    for each in pruned.values():
        found += [versus(corpus, each, source), versus(corpus, each, floor)]
    for stage in sorted(folder.glob(f"{EXPORT}-*/{RESULT_FILE}")):
        details = StageResult.load(stage.parent).details
        artefact = contender(stage.parent, details["name"])
        found += [versus(corpus, artefact, pruned.get(details["stage"], source)), versus(corpus, artefact, floor)]
    return found


def contender(stage: Path, name: str) -> Contender:
    """The model of a finished stage."""
    result = StageResult.load(stage)
    return Contender(name, Predictions.load(stage / result.predictions), result.threshold)


def teacher_of(folder: Path) -> Contender:
    """The teacher of a run's student: ENSEMBLE for the folds of the run itself as they are, else TEACHER."""
    details = StageResult.load(folder / DISTILLATION).details
    said = Predictions.load(folder / DISTILLATION / TEACHER_FILE)
    return Contender(details["teacher_name"], said, details["teacher_threshold"])


def best_fold(folder: Path) -> Contender:
    """The one network of a baseline that is exported."""
    result = StageResult.load(folder / BASELINE)
    predictions = Predictions.load(folder / BASELINE / result.checkpoint / PREDICTIONS_FILE)
    return Contender("best fold", predictions, result.details["best_fold_threshold"])
