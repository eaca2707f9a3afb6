"""`hbt compare A B`: is B worse than A on the same test rows? The stored predictions are compared; no model is run."""

from pathlib import Path

from toolkit.evaluation.comparison import Versus, versus
from toolkit.evaluation.significance import MARGIN
from toolkit.package import MANIFEST_FILE
from toolkit.stages.run_folder import Place, locate
from toolkit.utils.errors import InputError
from toolkit.workflows.run_comparisons import contender


def compare_stages(a: Path, b: Path, margin: float = MARGIN) -> Versus:
    """Compare B with A, each a run, a stage of one, or a package that a run made.

    Raises: InputError if one is none of these, or they were not split alike.
    """
    places = [_place(path) for path in (a, b)]
    if places[0].run.fingerprint != places[1].run.fingerprint:
        raise InputError(f"{b}: its rows were split otherwise than those of {a}, so they cannot be compared in pairs")
    found, other = (
        contender(place.run, place.stage or place.run.last_stage, path.as_posix())
        for place, path in zip(places, (a, b), strict=True)
    )
    return versus(places[0].run.corpus, other, found, margin)


def _place(path: Path) -> Place:
    place = locate(path)
    if place is not None:
        return place
    if (path / MANIFEST_FILE).is_file():
        raise InputError(f"{path}: the run that made it is not here any more (or made another since); name its stage")
    raise InputError(f"{path}: no run, no stage of a run and no package; name one, such as runs/NAME/2-distillation")
