"""The request and the answer of Perspective's `comments:analyze`, so that its clients change one URL."""

from collections.abc import Mapping, Sequence
from typing import Any

from toolkit.serving.errors import Refused
from toolkit.utils.errors import InputError

ROUTE = "/v1alpha1/comments:analyze"
DEFAULT = "TOXICITY"
_NAMES = ("toxi", "hate", "offens", "abus", "insult")
_NOT = ("non", "not", "no_", "no-", "no ")


def attribute_labels(given: Sequence[tuple[str, tuple[str, ...]]], labels: Sequence[str]) -> dict[str, tuple[int, ...]]:
    """Return the places of the labels whose probabilities each attribute sums.

    given: what `--attribute` states. Without it, TOXICITY is the second of two labels, to which the threshold of the
    package applies, or the sum of those of more labels whose names say so.
    Raises: InputError for a label that the package does not have.
    """
    places = {label: place for place, label in enumerate(labels)}
    for attribute, wanted in given:
        for label in wanted:
            if label not in places:
                raise InputError(f"--attribute {attribute}: no label {label!r}; the labels are {', '.join(labels)}")
    if given:
        return {attribute: tuple(places[label] for label in wanted) for attribute, wanted in given}
    if len(labels) == 2:
        return {DEFAULT: (1,)}
    named = [label for label in labels if any(name in label.lower() for name in _NAMES)]
    found = tuple(places[label] for label in named if not label.lower().startswith(_NOT))
    return {DEFAULT: found} if found else {}


def comment_of(body: Any) -> str:
    """Return the text of a request. Raises: Refused (400) if there is none."""
    comment = body.get("comment")
    text = comment.get("text") if isinstance(comment, dict) else None
    if not isinstance(text, str) or not text.strip():
        raise Refused(400, "comment.text is missing or empty")
    if comment.get("type", "PLAIN_TEXT") not in ("PLAIN_TEXT", "TEXT_TYPE_UNSPECIFIED"):
        raise Refused(400, "comment.type: only PLAIN_TEXT is supported")
    return text


def attributes_of(body: Any, known: Mapping[str, tuple[int, ...]]) -> dict[str, float]:
    """Return the requested attributes with the threshold of each. Raises: Refused (400) if one is not known."""
    wanted = body.get("requestedAttributes")
    if not isinstance(wanted, dict) or not wanted:
        raise Refused(400, "requestedAttributes is missing or empty")
    found = {}
    for name, how in wanted.items():
        if name not in known:
            raise Refused(400, f"attribute {name[:100]!r} is not served; served: {', '.join(known) or 'none'}")
        threshold = how.get("scoreThreshold", 0.0) if isinstance(how, dict) else 0.0
        if not isinstance(threshold, int | float) or isinstance(threshold, bool):
            raise Refused(400, f"scoreThreshold of {name!r} is not a number")
        found[name] = float(threshold)
    return found


def answer(body: Any, text: str, scores: Mapping[str, float], thresholds: Mapping[str, float]) -> dict[str, Any]:
    """Return the response: a score of the whole text, which is also its only span."""
    languages = body.get("languages")
    known = [each for each in languages if isinstance(each, str)] if isinstance(languages, list) else []
    shown: dict[str, Any] = {
        "attributeScores": {
            name: {
                "spanScores": [{"begin": 0, "end": len(text), "score": {"value": scores[name], "type": "PROBABILITY"}}],
                "summaryScore": {"value": scores[name], "type": "PROBABILITY"},
            }
            for name, threshold in thresholds.items()
            if scores[name] >= threshold
        },
        "languages": known,
    }
    if isinstance(body.get("clientToken"), str):
        shown["clientToken"] = body["clientToken"]
    return shown
