"""What compression forgot, for manifest and card: each step and the whole of the compression, slice by slice."""

from collections.abc import Sequence
from typing import Any

from toolkit.data.corpus import Corpus
from toolkit.evaluation.comparison import Contender
from toolkit.evaluation.slices import compare_on_slices
from toolkit.stages.teachers import ENSEMBLE, TEACHER


def slice_reports(
    corpus: Corpus, package: Contender, original: Contender, beside: Sequence[Contender]
) -> list[dict[str, Any]]:
    """Return reports of `compare_on_slices` as dicts; the first, which the card shows, is that of the package.

    original: the classifier that was exported, in single precision.
    beside: other models of the run; if the teacher is among them, the package and the original are compared with it.
    """
    teacher = next((each for each in beside if each.name in (ENSEMBLE, TEACHER)), None)
    others = [each for each in beside if each is not teacher]
    pairs = [(package, original), *((package, other) for other in others)]
    if teacher is not None:
        pairs = [(package, teacher), (original, teacher), *pairs]
    return [compare_on_slices(corpus, b, a, teacher or original).as_dict() for b, a in pairs]
