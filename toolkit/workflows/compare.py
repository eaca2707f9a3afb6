"""`hbt compare A B`: paired comparison of two models on the same test rows, from stored predictions; no model runs."""

from dataclasses import replace
from pathlib import Path

from toolkit.config.settings import require
from toolkit.evaluation.comparison import Versus, versus
from toolkit.evaluation.significance import MARGIN
from toolkit.manifest import MANIFEST_FILE
from toolkit.stages.run_folder import Place, locate
from toolkit.utils.errors import InputError
from toolkit.workflows.run_comparisons import contender


def compare_stages(a: Path, b: Path, margin: float = MARGIN, data: str | None = None) -> Versus:
    """Compare B with A, each a run, a stage of a run, or a package made from a run.

    margin: difference in macro-F1 below which the two count as equivalent.
    data: path of the data file, if it has moved.
    Raises: InputError if a path is none of these or the two have different splits.
    """
    require(0 < margin <= 1, "--margin", f"{margin} is outside (0, 1]")
    places = [_place(path) for path in (a, b)]
    if places[0].run.fingerprint != places[1].run.fingerprint:
        raise InputError(f"{b}: split differently from {a}; compare models with the same split")
    first, second = (
        contender(place.run, place.stage or place.run.last_stage, path.as_posix())
        for place, path in zip(places, (a, b), strict=True)
    )
    return versus(replace(places[0].run, data=data).corpus, second, first, margin)


def _place(path: Path) -> Place:
    place = locate(path)
    if place is not None:
        return place
    if (path / MANIFEST_FILE).is_file():
        raise InputError(f"{path}: its run is missing or has made another package since; name a stage instead")
    raise InputError(f"{path}: not a run, a stage of a run or a package; name one, such as runs/NAME/2-distillation")
