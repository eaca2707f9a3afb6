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
from toolkit.export.candidates import MANY, Gauge, Measured, Trial, cells, judge, logits_of_some, measure
from toolkit.export.reference import single_precision
from toolkit.modeling.classifier import Classifier
from toolkit.utils.console import bar, print_table, say
from toolkit.utils.errors import NothingPasses

AS_FAST = 1.1
"""Medians of a quick look that are closer than this are told apart by nothing but noise."""


QAT = "after qat: "
"""Before the name of a form of the classifier after quantization-aware training."""


@dataclass(frozen=True)
class Choice:
    """The form that ships."""

    folder: Path
    """A loadable folder without card and manifest."""
    size_bytes: int
    """Of the artefact."""
    facts: dict[str, Any]
    """What exporters found, and under "gate" how the form was chosen."""


def choose(
    how: Exporter,
    classifier: Classifier,
    evidence: Evidence,
    settings: ExportSettings,
    scratch: Path,
    force: bool,
    tuned: Classifier | None = None,
) -> Choice:
    """Write and measure the forms of a target below the folder `scratch`, and print them as a table.

    force: let the least bad one ship if none passes.
    tuned: the classifier after quantization-aware training, whose forms are tried as well.
    Raises: NothingPasses; CannotExport if the classifier in single precision cannot be had.
    """
    single = single_precision(how, classifier, evidence, scratch)
    gauge = Gauge(how, evidence, settings.max_drop, single, scratch)
    threads = torch.get_num_threads()  # which a form in torch sets for the whole process
    found = _measure_all(gauge, how.candidates(classifier, evidence, settings, single.folder), classifier, settings)
    if tuned is not None:
        after = single_precision(how, tuned, evidence, scratch / "tuned")
        forms = how.candidates(tuned, evidence, settings, after.folder)
        found += _measure_all(gauge, [replace(form, name=QAT + form.name) for form in forms], tuned, settings)
    trials, reference_ms = judge(gauge, found)
    base = _to_keep_in_float(found, trials)
    if settings.search != "off" and base is not None and all(trial.fails for trial in trials):
        found += keep_fewest_in_float(gauge, base)
        trials, reference_ms = judge(gauge, found)
    torch.set_num_threads(threads)
    winner = _winner(trials, force)
    facts = {
        "rows": len(evidence.labels),
        "max_drop": settings.max_drop,
        "search": settings.search,
        "reference": {"macro_f1": gauge.macro_f1(single.logits), "p50_ms": reference_ms},
        "ships": winner,
        "trials": [asdict(trial) for trial in trials],
    }
    _render(how.name, facts)
    if tuned is not None:
        say(qat_in_words(trials))
    if winner is None:
        raise NothingPasses(how.name, facts)
    chosen = found[winner]
    return Choice(chosen.folder, chosen.size_bytes, single.facts | chosen.facts | {"gate": facts})


def _measure_all(
    gauge: Gauge, candidates: Sequence[Candidate], classifier: Classifier, settings: ExportSettings
) -> list[Measured]:
    """Every candidate, or the first alone if nothing is to be searched."""
    chosen = candidates[:1] if settings.search == "off" else candidates
    found = []
    with bar(f"{gauge.how.name}: measuring {len(chosen)} forms", len(chosen)) as advance:
        for candidate in chosen:
            found.append(measure(gauge, candidate, classifier, NOTHING))
            advance(1)
    return found


def _to_keep_in_float(found: Sequence[Measured], trials: Sequence[Trial]) -> Measured | None:
    """The form that loses least of those that could lose less."""
    able = [i for i, each in enumerate(found) if each.candidate.parts and "slower" not in trials[i].fails]
    return found[min(able, key=lambda i: (trials[i].drop, trials[i].mean_logit_shift))] if able else None


def _winner(trials: Sequence[Trial], force: bool) -> int | None:
    """Which trial ships: the fastest that passes, or by force the least bad one.

    After quantization-aware training: its best if that has a higher macro-F1 than the best without.
    """
    passing = [i for i, trial in enumerate(trials) if not trial.fails]
    tuned = [i for i in passing if trials[i].form.startswith(QAT)]
    alone = [i for i in passing if i not in tuned]
    if not passing:
        order = range(len(trials)) if force else []
        return min(order, key=lambda i: ("slower" in trials[i].fails, trials[i].drop), default=None)
    if tuned and (not alone or trials[_fastest(trials, tuned)].macro_f1 > trials[_fastest(trials, alone)].macro_f1):
        return _fastest(trials, tuned)
    return _fastest(trials, alone)


def _fastest(trials: Sequence[Trial], of: Sequence[int]) -> int:
    """The fastest; of those about as fast, the nearest to single precision.

    A form whose labels depend on what else is in a batch has its turn only if there is no other.
    """
    steady = [i for i in of if trials[i].share_flipped <= MANY] or of
    limit = AS_FAST * min(trials[i].p50_ms for i in steady)
    return min((i for i in steady if trials[i].p50_ms <= limit), key=lambda i: trials[i].mean_logit_shift)


def qat_in_words(trials: Sequence[Trial]) -> str:
    """Whether quantization-aware training was worth it."""
    tuned = max(trial.macro_f1 for trial in trials if trial.form.startswith(QAT))
    alone = max(trial.macro_f1 for trial in trials if not trial.form.startswith(QAT))
    return (
        f"static after quantization-aware training: at best {tuned:.4f} macro-F1 on validation rows, "
        f"{'better' if tuned > alone else 'no better'} than static alone with {alone:.4f}"
    )


def lines(facts: dict[str, Any]) -> list[dict[str, str]]:
    """The table of a search."""
    return [cells(trial, i == facts["ships"]) for i, trial in enumerate(facts["trials"])]


def _render(target: str, facts: dict[str, Any]) -> None:
    """Print the table, and what stays in float, on stderr: stdout is for what was asked for."""
    reference = facts["reference"]
    title = (
        f"{target} on {facts['rows']:,} validation rows; fp32: macro-F1 {reference['macro_f1']:.4f}, "
        f"{reference['p50_ms']:.3f} ms; may lose {100 * facts['max_drop']:g} points"
    )
    print_table(lines(facts), title, left=("Form", "Verdict"), dispensable=("Logit shift", "MB"), stderr=True)
    if facts["ships"] is not None and facts["trials"][facts["ships"]]["in_float"]:
        say(f"in float: {', '.join(facts['trials'][facts['ships']]['in_float'])}")


RANKED_ON = 128
"""Validation texts by which the parts are ranked."""


def keep_fewest_in_float(gauge: Gauge, base: Measured) -> list[Measured]:
    """The form `base` with more and more of its most sensitive parts in float, as measured.

    The one with the fewest parts in float that loses little enough is the last; if none does, all parts are in float
    in the last.
    """
    order = by_sensitivity(gauge, base)
    found: dict[int, Measured] = {}

    def passes(count: int) -> bool:
        found[count] = measure(gauge, base.candidate, base.classifier, frozenset(order[:count]))
        return gauge.drop(found[count].logits) <= gauge.max_drop

    fewest = fewest_that_pass(passes, len(order))
    return [each for count, each in found.items() if count != fewest] + [found[fewest]]


def fewest_that_pass(passes: Callable[[int], bool], most: int) -> int:
    """The least count from 1 to `most` that passes, if more never hurts; `most` if none does.

    Twice as many each time until one passes, then halving in between: about 2 log2(count) trials.
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


def by_sensitivity(gauge: Gauge, base: Measured) -> Sequence[str]:
    """The parts of a form; first that which moves the logits most when it alone is quantized."""
    parts = base.candidate.parts
    single = gauge.single.logits[:RANKED_ON]
    moved = {}
    with bar(f"{gauge.how.name}: ranking {len(parts)} parts", len(parts)) as advance:
        for part in parts:
            others = frozenset(parts) - {part}
            logits = logits_of_some(gauge, base.candidate, base.classifier, others, RANKED_ON)
            moved[part] = float(np.abs(logits - single).mean())
            advance(1)
    return sorted(parts, key=lambda part: -moved[part])
