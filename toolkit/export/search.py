"""Which form of a target ships: the fastest that loses little enough on validation rows.

A form passes if it loses at most `--max-drop` of the macro-F1 of the classifier in single precision, and keeps the
target's promise: to be faster, or smaller. Of those that pass, one whose labels do not depend on what else is in a
batch comes first. If none does because too much is lost, the parts that eight bits hurt most
stay in float (`toolkit.sensitivity`).
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from exporters.registry import NOTHING, Candidate, Evidence, Exporter
from toolkit.config.settings import ExportSettings
from toolkit.export.candidates import (
    MAX_FLIPPED_SHARE,
    CandidateResult,
    EvaluatedCandidate,
    Gate,
    cells,
    judge,
    logits_of_some,
    measure,
)
from toolkit.export.reference import make_reference
from toolkit.modeling.classifier import Classifier
from toolkit.utils.console import bar, print_table, say
from toolkit.utils.errors import NothingPasses

SIMILAR_LATENCY = 1.1
"""Medians of a quick look that are closer than this are told apart by nothing but noise."""


QAT = "after qat: "
"""Before the name of a form of the classifier after quantization-aware training."""


@dataclass(frozen=True)
class SelectedCandidate:
    """The form that ships."""

    folder: Path
    """A loadable folder without card and manifest."""
    size_bytes: int
    """Of the artifact."""
    facts: dict[str, Any]
    """What exporters found, and under "gate" how the form was chosen."""


def choose(
    target: Exporter,
    classifier: Classifier,
    evidence: Evidence,
    settings: ExportSettings,
    scratch: Path,
    force: bool,
    tuned: Classifier | None = None,
) -> SelectedCandidate:
    """Write and measure the forms of a target below the folder `scratch`, and print them as a table.

    force: let the least bad one ship if none passes.
    tuned: the classifier after quantization-aware training, whose forms are tried as well.
    Raises: NothingPasses; CannotExport if the classifier in single precision cannot be had.
    """
    reference = make_reference(target, classifier, evidence, scratch)
    gate = Gate(target, evidence, settings.max_drop, reference, scratch)
    threads = torch.get_num_threads()  # which a candidate in torch sets for the whole process
    found = _measure_all(
        gate, target.candidates(classifier, evidence, settings, reference.folder), classifier, settings
    )
    if tuned is not None:
        after = make_reference(target, tuned, evidence, scratch / "tuned")
        forms = target.candidates(tuned, evidence, settings, after.folder)
        found += _measure_all(gate, [replace(form, name=QAT + form.name) for form in forms], tuned, settings)
    results, reference_ms = judge(gate, found)
    base = _to_keep_in_float(found, results)
    if settings.search != "off" and base is not None and all(result.fails for result in results):
        found += keep_fewest_in_float(gate, base)
        results, reference_ms = judge(gate, found)
    torch.set_num_threads(threads)
    winner = _winner(results, force)
    facts = {
        "rows": len(evidence.labels),
        "max_drop": settings.max_drop,
        "search": settings.search,
        "reference": {"macro_f1": gate.macro_f1(reference.logits), "p50_ms": reference_ms},
        "ships": winner,
        "trials": [asdict(result) for result in results],
    }
    _render(target.name, facts)
    if tuned is not None:
        say(qat_summary(results))
    if winner is None:
        raise NothingPasses(target.name, facts)
    chosen = found[winner]
    return SelectedCandidate(chosen.folder, chosen.size_bytes, reference.facts | chosen.facts | {"gate": facts})


def _measure_all(
    gate: Gate, candidates: Sequence[Candidate], classifier: Classifier, settings: ExportSettings
) -> list[EvaluatedCandidate]:
    """Every candidate, or the first alone if nothing is to be searched."""
    chosen = candidates[:1] if settings.search == "off" else candidates
    found = []
    with bar(f"{gate.target.name}: measuring {len(chosen)} forms", len(chosen)) as advance:
        for candidate in chosen:
            found.append(measure(gate, candidate, classifier, NOTHING))
            advance(1)
    return found


def _to_keep_in_float(
    found: Sequence[EvaluatedCandidate], results: Sequence[CandidateResult]
) -> EvaluatedCandidate | None:
    """The form that loses least of those that could lose less."""
    able = [i for i, each in enumerate(found) if each.candidate.parts and "slower" not in results[i].fails]
    return found[min(able, key=lambda i: (results[i].drop, results[i].mean_logit_shift))] if able else None


def _winner(results: Sequence[CandidateResult], force: bool) -> int | None:
    """Which result ships: the fastest that passes, or by force the least bad one.

    After quantization-aware training: its best if that has a higher macro-F1 than the best without.
    """
    passing = [i for i, result in enumerate(results) if not result.fails]
    tuned = [i for i in passing if results[i].form.startswith(QAT)]
    alone = [i for i in passing if i not in tuned]
    if not passing:
        order = range(len(results)) if force else []
        return min(order, key=lambda i: ("slower" in results[i].fails, results[i].drop), default=None)
    if tuned and (not alone or results[_fastest(results, tuned)].macro_f1 > results[_fastest(results, alone)].macro_f1):
        return _fastest(results, tuned)
    return _fastest(results, alone)


def _fastest(results: Sequence[CandidateResult], of: Sequence[int]) -> int:
    """The fastest; of those about as fast, the nearest to single precision.

    A form whose labels depend on what else is in a batch has its turn only if there is no other.
    """
    steady = [i for i in of if results[i].share_flipped <= MAX_FLIPPED_SHARE] or of
    limit = SIMILAR_LATENCY * min(results[i].p50_ms for i in steady)
    return min((i for i in steady if results[i].p50_ms <= limit), key=lambda i: results[i].mean_logit_shift)


def qat_summary(results: Sequence[CandidateResult]) -> str:
    """Whether quantization-aware training was worth it."""
    tuned = max(result.macro_f1 for result in results if result.form.startswith(QAT))
    alone = max(result.macro_f1 for result in results if not result.form.startswith(QAT))
    return (
        f"static after quantization-aware training: at best {tuned:.4f} macro-F1 on validation rows, "
        f"{'better' if tuned > alone else 'no better'} than static alone with {alone:.4f}"
    )


def lines(facts: dict[str, Any]) -> list[dict[str, str]]:
    """The table of a search."""
    return [cells(result, i == facts["ships"]) for i, result in enumerate(facts["trials"])]


def _render(target: str, facts: dict[str, Any]) -> None:
    """Print the table, and what stays in float, on stderr: stdout is for what was asked for."""
    reference = facts["reference"]
    title = (
        f"{target} on {facts['rows']:,} validation rows; fp32: macro-F1 {reference['macro_f1']:.4f}, "
        f"{reference['p50_ms']:.3f} ms; may lose {100 * facts['max_drop']:g} points"
    )
    print_table(lines(facts), title, left=("Candidate", "Verdict"), dispensable=("Logit shift", "MB"), stderr=True)
    if facts["ships"] is not None and facts["trials"][facts["ships"]]["in_float"]:
        say(f"in float: {', '.join(facts['results'][facts['ships']]['in_float'])}")


RANKED_ON = 128
"""Validation texts by which the parts are ranked."""


def keep_fewest_in_float(gate: Gate, base: EvaluatedCandidate) -> list[EvaluatedCandidate]:
    """The form `base` with more and more of its most sensitive parts in float, as measured.

    The one with the fewest parts in float that loses little enough is the last; if none does, all parts are in float
    in the last.
    """
    order = by_sensitivity(gate, base)
    found: dict[int, EvaluatedCandidate] = {}

    def passes(count: int) -> bool:
        found[count] = measure(gate, base.candidate, base.classifier, frozenset(order[:count]))
        return gate.drop(found[count].logits) <= gate.max_drop

    fewest = fewest_that_pass(passes, len(order))
    return [each for count, each in found.items() if count != fewest] + [found[fewest]]


def fewest_that_pass(passes: Callable[[int], bool], most: int) -> int:
    """The least count from 1 to `most` that passes, if more never hurts; `most` if none does.

    Twice as many each time until one passes, then halving in between: about 2 log2(count) evaluations.
    """
    low, high = 0, 1
    while not passes(high):
        if high == most:
            return most
        low, high = high, min(2 * high, most)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if passes(middle) else (middle, high)
    return high


def by_sensitivity(gate: Gate, base: EvaluatedCandidate) -> Sequence[str]:
    """The parts of a form; first that which moves the logits most when it alone is quantized."""
    parts = base.candidate.parts
    single = gate.reference.logits[:RANKED_ON]
    moved = {}
    with bar(f"{gate.target.name}: ranking {len(parts)} parts", len(parts)) as advance:
        for part in parts:
            others = frozenset(parts) - {part}
            logits = logits_of_some(gate, base.candidate, base.classifier, others, RANKED_ON)
            moved[part] = float(np.abs(logits - single).mean())
            advance(1)
    return sorted(parts, key=lambda part: -moved[part])
