"""`hbt compare`, and the comparisons in the summary of a run: paired, from stored predictions; no model runs."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from toolkit.data.corpus import Corpus
from toolkit.evaluation.comparison import Contender, Versus, versus
from toolkit.evaluation.decision_rule import rule_from
from toolkit.evaluation.predictions import PREDICTIONS_FILE, Predictions
from toolkit.evaluation.significance import MARGIN
from toolkit.evaluation.slices import SliceReport, compare_on_slices
from toolkit.manifest import MANIFEST_FILE
from toolkit.stages.linear_baseline import NAME as LINEAR_BASELINE_NAME
from toolkit.stages.result import StageResult
from toolkit.stages.run_folder import (
    BASELINE,
    DISTILLATION,
    EXPORT,
    LINEAR_BASELINE,
    PRUNING,
    Place,
    Run,
    locate,
    tag_of,
)
from toolkit.stages.teachers import ENSEMBLE, TEACHER, TEACHER_FILE
from toolkit.utils.errors import InputError, require


def compare_stages(a: Path, b: Path, margin: float = MARGIN, data: str | None = None) -> Versus:
    """Compare B with A, each a run, a stage of a run, or a package made from a run.

    margin: difference in macro-F1 below which the two count as equivalent.
    data: path of the data file, if it has moved.
    Raises: InputError if a path is none of these or the two have different splits.
    """
    require(0 < margin <= 1, "--margin", f"{margin} is outside (0, 1]")
    corpus, first, second = _both([_place(path) for path in (a, b)], (a, b), data)
    return versus(corpus, second, first, margin)


def compare_stages_on_slices(a: Path, b: Path, data: str | None = None) -> SliceReport:
    """Compare B with A on each slice of the test rows; arguments and errors as `compare_stages`.

    The rows on which the teacher was unsure are those of the teacher of B's run, else of A's, else of A itself.
    """
    places = [_place(path) for path in (a, b)]
    corpus, first, second = _both(places, (a, b), data)
    taught = [place.run for place in reversed(places) if DISTILLATION in place.run.results]
    return compare_on_slices(corpus, second, first, teacher_of(taught[0]) if taught else None)


def _both(places: Sequence[Place], paths: tuple[Path, Path], data: str | None) -> tuple[Corpus, Contender, Contender]:
    """Return the corpus that A and B share, and their predictions, named after their paths."""
    if places[0].run.fingerprint != places[1].run.fingerprint:
        raise InputError(f"{paths[1]}: split differently from {paths[0]}; compare models with the same split")
    first, second = (
        contender(place.run, place.stage or place.run.last_stage, path.as_posix())
        for place, path in zip(places, paths, strict=True)
    )
    return replace(places[0].run, data=data).corpus, first, second


def _place(path: Path) -> Place:
    place = locate(path)
    if place is not None:
        return place
    if (path / MANIFEST_FILE).is_file():
        raise InputError(f"{path}: its run is missing or has made another package since; name a stage instead")
    raise InputError(f"{path}: not a run, a stage of a run or a package; name one, such as runs/NAME/2-distillation")


def run_comparisons(run: Run) -> list[Versus]:
    """Compare each stage of a run with the linear baseline and with its teacher or source."""
    corpus, linear = run.corpus, contender(run, LINEAR_BASELINE, LINEAR_BASELINE_NAME)
    found = []
    if BASELINE in run.results:
        found.append(versus(corpus, contender(run, BASELINE, ENSEMBLE), linear))
    if DISTILLATION in run.results:
        source = contender(run, DISTILLATION, "student")
        teacher = teacher_of(run)
        if teacher.name == TEACHER:
            found.append(versus(corpus, teacher, linear))
        if teacher.name != LINEAR_BASELINE_NAME:
            found.append(versus(corpus, source, teacher))
        found.append(versus(corpus, source, linear))
    else:
        source = best_fold(run)
    pruned = {stage: contender(run, stage, f"pruned {tag_of(stage)}") for stage in run.stages(PRUNING)}
    for each in pruned.values():
        found += [versus(corpus, each, source), versus(corpus, each, linear)]
    for stage in run.stages(EXPORT):
        details = run.results[stage].details
        artifact = contender(run, stage, details["name"])
        found += [versus(corpus, artifact, pruned.get(details["stage"], source)), versus(corpus, artifact, linear)]
    return found


def contender(run: Run, stage: str, name: str) -> Contender:
    """Return the predictions of a finished stage for comparison, under `name`."""
    return contender_of(run.folder / stage, run.results[stage], name)


def contender_of(folder: Path, result: StageResult, name: str) -> Contender:
    """Return the predictions of a stage outside a run for comparison, under `name`."""
    return Contender(name, Predictions.load(folder / result.predictions), result.rule)


def teacher_of(run: Run) -> Contender:
    """Return the predictions of the teacher of a run's student, under the name ENSEMBLE or TEACHER."""
    details = run.results[DISTILLATION].details
    predictions = Predictions.load(run.folder / DISTILLATION / TEACHER_FILE)
    return Contender(details["teacher_name"], predictions, rule_from(details["teacher_rule"]))


def best_fold(run: Run) -> Contender:
    """Return the predictions of the best fold of a baseline, the one that is exported."""
    predictions = Predictions.load(run.checkpoint(BASELINE) / PREDICTIONS_FILE)
    return Contender("best fold", predictions, rule_from(run.results[BASELINE].details["best_fold_rule"]))
