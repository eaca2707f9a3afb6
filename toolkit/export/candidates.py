"""Measure the forms of a target on validation rows, beside the classifier in single precision."""

import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from exporters.registry import Candidate, Evidence, Exporter, LoadedArtifact
from toolkit import package
from toolkit.evaluation.metrics import apply_threshold, macro_f1, softmax
from toolkit.export.reference import Reference
from toolkit.latency.timing import fixed_order, times_in_turns
from toolkit.modeling.classifier import Classifier
from toolkit.utils.console import bar
from toolkit.utils.files import MB

TIMED = 100
"""Validation texts that are timed, in turns."""


SIGNIFICANCE = 0.01
"""A form is slower if so many more texts took longer that a coin would show it less often than this (sign test)."""


@dataclass(frozen=True)
class CandidateResult:
    """A form of a target on the validation rows."""

    form: str
    macro_f1: float
    drop: float
    """Macro-F1 of the classifier in single precision minus its own."""
    agreement: float
    """Share of rows that get the same label from both."""
    mean_logit_shift: float
    batch_flips: int
    """Rows whose label changes when they are scored in mixed, padded batches."""
    share_flipped: float
    """The same as a share of all rows."""
    size_bytes: int
    p50_ms: float
    times_faster: float
    in_float: tuple[str, ...]
    """Parts that were left in float."""
    fails: str
    """Why it may not ship; empty if it may."""


@dataclass(frozen=True, eq=False)
class Gate:
    """What all forms of one search are measured with."""

    target: Exporter
    evidence: Evidence
    max_drop: float
    reference: Reference
    scratch: Path

    def macro_f1(self, logits: np.ndarray) -> float:
        """Of logits (validation rows, labels) at the classifier's threshold."""
        return macro_f1(self.evidence.labels, self.labels(logits), logits.shape[1])

    def labels(self, logits: np.ndarray) -> np.ndarray:
        """int (rows,)."""
        return apply_threshold(softmax(logits), self.evidence.threshold)

    def drop(self, logits: np.ndarray) -> float:
        """Macro-F1 that is lost against single precision."""
        return self.macro_f1(self.reference.logits) - self.macro_f1(logits)


@dataclass(frozen=True, eq=False)
class EvaluatedCandidate:
    """A form that was written and has answered the validation rows, not yet timed."""

    candidate: Candidate
    classifier: Classifier
    in_float: frozenset[str]
    folder: Path
    model: LoadedArtifact
    """On one thread."""
    logits: np.ndarray
    """float32 (validation rows, labels), each text scored alone."""
    batch_flips: int
    size_bytes: int
    facts: dict[str, Any]
    """What its exporter found."""


def measure(gate: Gate, candidate: Candidate, classifier: Classifier, in_float: frozenset[str]) -> EvaluatedCandidate:
    """Write a form, load it and let it answer the validation rows."""
    folder, model, size, facts = _loaded(gate, candidate, classifier, in_float)
    texts = list(gate.evidence.validation)
    logits = model.predict_logits(texts)
    flips = batch_invariance(model, texts, logits)["label_flips"]
    return EvaluatedCandidate(candidate, classifier, in_float, folder, model, logits, flips, size, facts)


def logits_of_some(
    gate: Gate, candidate: Candidate, classifier: Classifier, in_float: frozenset[str], rows: int
) -> np.ndarray:
    """Logits (rows, labels) of the first validation texts; what is written for them is removed again."""
    folder, model, _, _ = _loaded(gate, candidate, classifier, in_float)
    logits = model.predict_logits(gate.evidence.validation[:rows])
    shutil.rmtree(folder)
    return logits


def _loaded(
    gate: Gate, candidate: Candidate, classifier: Classifier, in_float: frozenset[str]
) -> tuple[Path, LoadedArtifact, int, dict[str, Any]]:
    folder = Path(tempfile.mkdtemp(prefix="candidate-", dir=gate.scratch))
    size, facts = package.write_loadable(folder, classifier, gate.evidence.threshold, gate.target, candidate, in_float)
    return folder, gate.target.load(folder, threads=1), size, facts


def judge(gate: Gate, found: Sequence[EvaluatedCandidate]) -> tuple[list[CandidateResult], float]:
    """Time all in turns beside the classifier in single precision and say which may ship.

    Returns: the results, and the median milliseconds of the classifier in single precision.
    """
    texts = [gate.evidence.validation[i] for i in fixed_order(gate.evidence.validation)[:TIMED]]
    with bar(f"{gate.target.name}: timing {len(found)} forms", len(texts)) as advance:
        times = times_in_turns([gate.reference.model, *(each.model for each in found)], texts, advance)
    results = [_result(gate, each, times[:, 0], times[:, 1 + i]) for i, each in enumerate(found)]
    return results, float(np.median(times[:, 0]))


def _result(gate: Gate, found: EvaluatedCandidate, reference: np.ndarray, times: np.ndarray) -> CandidateResult:
    """reference, times: milliseconds (texts,) of the classifier in single precision and of the form."""
    drop, p50 = gate.drop(found.logits), float(np.median(times))
    fails = [f"loses {100 * drop:.2f} points"] if drop > gate.max_drop else []
    if gate.target.promise == "faster" and significantly_slower(reference, times):
        fails.append("slower than fp32")
    if gate.target.promise == "smaller" and found.size_bytes >= gate.reference.size_bytes:
        fails.append("not smaller than fp32")
    return CandidateResult(
        form=found.candidate.name,
        macro_f1=gate.macro_f1(found.logits),
        drop=drop,
        agreement=float((gate.labels(found.logits) == gate.labels(gate.reference.logits)).mean()),
        mean_logit_shift=float(np.abs(found.logits - gate.reference.logits).mean()),
        batch_flips=found.batch_flips,
        share_flipped=found.batch_flips / len(found.logits),
        size_bytes=found.size_bytes,
        p50_ms=p50,
        times_faster=float(np.median(reference)) / p50,
        in_float=tuple(sorted(found.in_float)),
        fails=", ".join(fails),
    )


def significantly_slower(reference: np.ndarray, times: np.ndarray) -> bool:
    """Whether more texts took longer than a coin would make it (one-sided sign test at SIGNIFICANCE).

    reference, times: milliseconds (texts,) of the same texts in the same turns.
    """
    from scipy.stats import binomtest

    decided, longer = int((times != reference).sum()), int((times > reference).sum())
    return decided > 0 and bool(binomtest(longer, decided, alternative="greater").pvalue < SIGNIFICANCE)


def cells(result: dict[str, Any], ships: bool) -> dict[str, str]:
    """Column to value of a result, for tables."""
    verdict = result["fails"] or "passes"
    if ships:
        verdict = f"selected by force: {result['fails']}" if result["fails"] else "selected"
    parts = len(result["in_float"])
    kept = f", {parts} part{'s' * (parts != 1)} in float" if parts else ""
    return {
        "Candidate": result["form"] + kept,
        "Macro-F1": f"{result['macro_f1']:.4f}",
        "Δ points": f"{-100 * result['drop']:+.2f}",
        "Same label": f"{100 * result['agreement']:.2f} %",
        "Logit shift": f"{result['mean_logit_shift']:.4f}",
        "Flips in batches": str(result["batch_flips"]),
        "p50 ms": f"{result['p50_ms']:.3f}",
        "Times faster": f"{result['times_faster']:.2f}",
        "MB": f"{result['size_bytes'] / MB:.2f}",
        "Verdict": verdict,
    }


BATCH = 64


MAX_FLIPPED_SHARE = 0.001
"""Share of rows; more than this, and the form is no longer called one that batches do not move."""


def batch_invariance(model: LoadedArtifact, texts: list[str], alone: np.ndarray) -> dict[str, Any]:
    """How far scores move, and how many labels flip, when texts are scored in batches and not alone.

    The batches are mixed at random, so that most texts are padded to a length far from their own.
    alone: logits (texts, labels) of the texts one by one.
    """
    order = fixed_order(texts)
    among = np.empty_like(alone)
    for start in range(0, len(order), BATCH):
        chosen = order[start : start + BATCH]
        among[chosen] = model.predict_logits([texts[i] for i in chosen], batch_size=len(chosen))
    one, other = softmax(alone), softmax(among)
    flips = apply_threshold(one, model.threshold) != apply_threshold(other, model.threshold)
    return {
        "rows": len(texts),
        "batch": BATCH,
        "largest_score_difference": float(np.abs(one - other).max()),
        "label_flips": int(flips.sum()),
    }
