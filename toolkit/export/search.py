"""Candidate search: select the fastest candidate of a target that passes the quality gate on validation rows.

A candidate passes if it loses at most `--max-drop` of the macro-F1 of the reference, or one row, and keeps the promise
of its target: to be faster, or smaller. Candidates whose predictions do not depend on batch composition are preferred.
If all candidates fail, the parts most sensitive to quantization are kept in float.
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
    logits_of_first,
    measure,
)
from toolkit.export.reference import make_reference
from toolkit.modeling.classifier import Classifier
from toolkit.utils.console import bar, print_table, say
from toolkit.utils.errors import NothingPasses

SIMILAR_LATENCY = 1.1
"""Median latencies within this ratio count as equal: the difference is within noise."""
QAT = "after qat: "
"""Prefix for the names of candidates after quantization-aware training."""


@dataclass(frozen=True)
class SelectedCandidate:
    """The candidate to package."""

    folder: Path
    """A loadable folder without model card and manifest."""
    size_bytes: int
    """Size of the artifact."""
    facts: dict[str, Any]
    """Facts reported by the exporters, and under "gate" the results of the search."""


def choose(
    target: Exporter,
    classifier: Classifier,
    evidence: Evidence,
    settings: ExportSettings,
    scratch: Path,
    force: bool,
    tuned: Classifier | None = None,
) -> SelectedCandidate:
    """Evaluate the candidates of a target, print them as a table and return the selected one.

    scratch: folder for the artifacts.
    force: select the candidate that loses least if none passes.
    tuned: the classifier after quantization-aware training, whose candidates are evaluated, too.
    Raises: NothingPasses; CannotExport if the reference cannot be exported.
    """
    reference = make_reference(target, classifier, evidence, scratch)
    # Without a search, the outcome must not depend on the clock.
    gate = Gate(target, evidence, settings.max_drop, reference, scratch, timed=settings.search != "off")
    threads = torch.get_num_threads()  # torch candidates set it for the whole process
    found = _measure_all(
        gate, target.candidates(classifier, evidence, settings, reference.folder), classifier, settings
    )
    if tuned is not None:
        after = make_reference(target, tuned, evidence, scratch / "tuned")
        candidates = target.candidates(tuned, evidence, settings, after.folder)
        found += _measure_all(gate, [replace(each, name=QAT + each.name) for each in candidates], tuned, settings)
    results, reference_ms = judge(gate, found)
    base = _base_for_mixed_precision(found, results)
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
        "this_cpu_only": winner is not None and found[winner].candidate.this_cpu_only,
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
    """Return all candidates, or only the first without a search, with their logits."""
    chosen = candidates[:1] if settings.search == "off" else candidates
    found = []
    with bar(f"{gate.target.name}: evaluating {len(chosen)} candidates", len(chosen)) as advance:
        for candidate in chosen:
            found.append(measure(gate, candidate, classifier, NOTHING))
            advance(1)
    return found


def _base_for_mixed_precision(
    found: Sequence[EvaluatedCandidate], results: Sequence[CandidateResult]
) -> EvaluatedCandidate | None:
    """Return the candidate with the smallest loss among those that can keep parts in float and are not slower."""
    eligible = [i for i, each in enumerate(found) if each.candidate.parts and "slower" not in results[i].fails]
    return found[min(eligible, key=lambda i: (results[i].drop, results[i].mean_logit_shift))] if eligible else None


def _winner(results: Sequence[CandidateResult], force: bool) -> int | None:
    """Return the index of the selected candidate: the fastest that passes, or by force the one that loses least.

    A candidate after quantization-aware training is only selected if its macro-F1 is higher than without.
    """
    passing = [i for i, result in enumerate(results) if not result.fails]
    tuned = [i for i in passing if results[i].form.startswith(QAT)]
    untuned = [i for i in passing if i not in tuned]
    if not passing:
        order = range(len(results)) if force else []
        return min(order, key=lambda i: ("slower" in results[i].fails, results[i].drop), default=None)
    if tuned and (
        not untuned or results[_fastest(results, tuned)].macro_f1 > results[_fastest(results, untuned)].macro_f1
    ):
        return _fastest(results, tuned)
    return _fastest(results, untuned)


def _fastest(results: Sequence[CandidateResult], of: Sequence[int]) -> int:
    """Return the fastest candidate; among those of similar latency, the one with the smallest logit shift.

    Candidates whose predictions depend on batch composition are only considered if there are no others.
    """
    steady = [i for i in of if results[i].share_flipped <= MAX_FLIPPED_SHARE] or of
    limit = SIMILAR_LATENCY * min(results[i].p50_ms for i in steady)
    return min((i for i in steady if results[i].p50_ms <= limit), key=lambda i: results[i].mean_logit_shift)


def qat_summary(results: Sequence[CandidateResult]) -> str:
    """Return one line that says whether quantization-aware training improved macro-F1."""
    tuned = max(result.macro_f1 for result in results if result.form.startswith(QAT))
    untuned = max(result.macro_f1 for result in results if not result.form.startswith(QAT))
    return (
        f"static after quantization-aware training: best macro-F1 {tuned:.4f} on validation rows, "
        f"{'better' if tuned > untuned else 'no better'} than static without it ({untuned:.4f})"
    )


def lines(facts: dict[str, Any]) -> list[dict[str, str]]:
    """Return the table of a search, one line per candidate."""
    return [cells(result, i == facts["ships"]) for i, result in enumerate(facts["trials"])]


def _render(target: str, facts: dict[str, Any]) -> None:
    """Print the table of a search and the parts kept in float on stderr; stdout is for the result of the command."""
    reference = facts["reference"]
    title = (
        f"{target} on {facts['rows']:,} validation rows; fp32: macro-F1 {reference['macro_f1']:.4f}, "
        f"{reference['p50_ms']:.3f} ms; maximum loss {100 * facts['max_drop']:g} points"
    )
    print_table(lines(facts), title, left=("Candidate", "Verdict"), dispensable=("Logit shift", "MB"), stderr=True)
    if facts["ships"] is not None and facts["trials"][facts["ships"]]["in_float"]:
        say(f"kept in float: {', '.join(facts['trials'][facts['ships']]['in_float'])}")


RANKED_ON = 128
"""Number of validation texts for ranking the parts."""


def keep_fewest_in_float(gate: Gate, base: EvaluatedCandidate) -> list[EvaluatedCandidate]:
    """Return evaluated variants of `base` with increasing numbers of its most sensitive parts in float.

    The last one has the fewest parts in float of those within the maximum loss; if there are none, it has all parts in
    float.
    """
    order = by_sensitivity(gate, base)
    found: dict[int, EvaluatedCandidate] = {}

    def passes(count: int) -> bool:
        found[count] = measure(gate, base.candidate, base.classifier, frozenset(order[:count]))
        return not gate.loses_too_much(found[count].logits)

    fewest = fewest_that_pass(passes, len(order))
    return [each for count, each in found.items() if count != fewest] + [found[fewest]]


def fewest_that_pass(passes: Callable[[int], bool], most: int) -> int:
    """Return the smallest count from 1 to `most` that passes, or `most` if none does.

    Assumes that larger counts pass if a smaller one does. Doubles the count until it passes, then bisects: about
    2 log2(count) evaluations.
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
    """Return the parts of `base`, most sensitive first: how much logits change if only that part is quantized."""
    parts = base.candidate.parts
    exact = gate.reference.logits[:RANKED_ON]
    shifts = {}
    with bar(f"{gate.target.name}: ranking {len(parts)} parts", len(parts)) as advance:
        for part in parts:
            others = frozenset(parts) - {part}
            logits = logits_of_first(gate, base.candidate, base.classifier, others, RANKED_ON)
            shifts[part] = float(np.abs(logits - exact).mean())
            advance(1)
    return sorted(parts, key=lambda part: -shifts[part])
