"""Evaluate the candidates of a target on validation rows, compared with the single-precision reference."""

import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from exporters.registry import Candidate, Evidence, Exporter, LoadedArtifact
from toolkit import package
from toolkit.evaluation.metrics import macro_f1, softmax
from toolkit.evaluation.predictor import rule_of
from toolkit.export.reference import Reference
from toolkit.latency.timing import fixed_order, times_in_turns
from toolkit.modeling.classifier import Classifier
from toolkit.utils.console import bar
from toolkit.utils.files import MB

TIMED = 100
"""Number of validation texts for timing."""
SIGNIFICANCE = 0.01
"""A candidate is slower if the p-value of a one-sided sign test on the latencies is below this level."""


@dataclass(frozen=True)
class CandidateResult:
    """The results of a candidate on the validation rows."""

    form: str
    """Name of the candidate."""
    macro_f1: float
    drop: float
    """Macro-F1 of the reference minus that of the candidate."""
    agreement: float
    """Share of rows with the same predicted label as the reference."""
    mean_logit_shift: float
    """Mean absolute difference from the logits of the reference."""
    batch_flips: int
    """Number of rows whose predicted label changes in mixed, padded batches."""
    share_flipped: float
    """`batch_flips` as a share of all rows."""
    size_bytes: int
    p50_ms: float
    times_faster: float
    in_float: tuple[str, ...]
    """Parts kept in float."""
    fails: str
    """Why it fails the quality gate; empty if it passes."""


@dataclass(frozen=True, eq=False)
class Gate:
    """The quality gate: what the candidates of one search are evaluated with."""

    target: Exporter
    evidence: Evidence
    max_drop: float
    reference: Reference
    scratch: Path
    timed: bool = True
    """Whether a candidate that is slower than the reference fails."""

    def macro_f1(self, logits: np.ndarray) -> float:
        """Return macro-F1 of `logits` (validation rows, labels) at the decision rule of the classifier."""
        return macro_f1(self.evidence.labels, self.labels(logits), logits.shape[1])

    def labels(self, logits: np.ndarray) -> np.ndarray:
        """Return the predicted labels, int (rows,)."""
        return self.evidence.rule.predict(softmax(logits))

    def drop(self, logits: np.ndarray) -> float:
        """Return the loss of macro-F1 compared with the reference."""
        return self.macro_f1(self.reference.logits) - self.macro_f1(logits)

    def loses_too_much(self, logits: np.ndarray) -> bool:
        """Return whether macro-F1 drops by more than `max_drop`; see `loses_too_much`."""
        before, after = self.labels(self.reference.logits), self.labels(logits)
        return loses_too_much(self.evidence.labels, before, after, logits.shape[1], self.max_drop)


def loses_too_much(labels: np.ndarray, before: np.ndarray, after: np.ndarray, count: int, max_drop: float) -> bool:
    """Return whether macro-F1 drops by more than `max_drop` between two predictions, by more than one row.

    One row more that is wrong is within what few rows can tell: of 99, it is a point. It counts if `max_drop` is 0.

    labels, before, after: int (rows,). count: number of labels.
    """
    drop = macro_f1(labels, before, count) - macro_f1(labels, after, count)
    more_wrong = int((before == labels).sum()) - int((after == labels).sum())
    return drop > max_drop and (more_wrong > 1 or max_drop == 0)


@dataclass(frozen=True, eq=False)
class EvaluatedCandidate:
    """A candidate with its logits on the validation rows; latency is not measured yet."""

    candidate: Candidate
    classifier: Classifier
    in_float: frozenset[str]
    folder: Path
    model: LoadedArtifact
    """Runs on one thread."""
    logits: np.ndarray
    """float32 (validation rows, labels), each text in a batch of its own."""
    batch_flips: int
    size_bytes: int
    facts: dict[str, Any]
    """Facts reported by the exporter."""


def measure(gate: Gate, candidate: Candidate, classifier: Classifier, in_float: frozenset[str]) -> EvaluatedCandidate:
    """Write and load a candidate and compute its logits on the validation rows."""
    folder, model, size, facts = _loaded(gate, candidate, classifier, in_float)
    texts = list(gate.evidence.validation)
    logits = model.predict_logits(texts)
    flips = batch_invariance(model, texts, logits)["label_flips"]
    return EvaluatedCandidate(candidate, classifier, in_float, folder, model, logits, flips, size, facts)


def logits_of_first(
    gate: Gate, candidate: Candidate, classifier: Classifier, in_float: frozenset[str], rows: int
) -> np.ndarray:
    """Return logits (rows, labels) of a candidate on the first validation texts; its artifact is deleted."""
    folder, model, _, _ = _loaded(gate, candidate, classifier, in_float)
    logits = model.predict_logits(gate.evidence.validation[:rows])
    shutil.rmtree(folder)
    return logits


def _loaded(
    gate: Gate, candidate: Candidate, classifier: Classifier, in_float: frozenset[str]
) -> tuple[Path, LoadedArtifact, int, dict[str, Any]]:
    """Write and load a candidate; return its folder, predictor, size in bytes and facts."""
    folder = Path(tempfile.mkdtemp(prefix="candidate-", dir=gate.scratch))
    size, facts = package.write_loadable(folder, classifier, gate.evidence.rule, gate.target, candidate, in_float)
    return folder, gate.target.load(folder, threads=1), size, facts


def judge(gate: Gate, found: Sequence[EvaluatedCandidate]) -> tuple[list[CandidateResult], float]:
    """Measure latencies, interleaved with those of the reference, and apply the quality gate.

    Returns: the results, and the median latency of the reference in milliseconds.
    """
    texts = [gate.evidence.validation[i] for i in fixed_order(gate.evidence.validation)[:TIMED]]
    with bar(f"{gate.target.name}: timing {len(found)} candidates", len(texts)) as advance:
        times = times_in_turns([gate.reference.model, *(each.model for each in found)], texts, advance)
    results = [_result(gate, each, times[:, 0], times[:, 1 + i]) for i, each in enumerate(found)]
    return results, float(np.median(times[:, 0]))


def _result(gate: Gate, found: EvaluatedCandidate, reference: np.ndarray, times: np.ndarray) -> CandidateResult:
    """Return the result of a candidate. reference, times: latencies of both in milliseconds (texts,)."""
    drop, p50 = gate.drop(found.logits), float(np.median(times))
    fails = [f"loses {100 * drop:.2f} points"] if gate.loses_too_much(found.logits) else []
    promise = found.candidate.promise or gate.target.promise
    if gate.timed and promise == "faster" and significantly_slower(reference, times):
        fails.append("slower than fp32")
    if promise == "smaller" and found.size_bytes >= gate.reference.size_bytes:
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
    """Return whether `times` are significantly longer than `reference` (one-sided sign test at SIGNIFICANCE).

    reference, times: latencies in milliseconds (texts,) of the same texts, measured in the same rounds.
    """
    from scipy.stats import binomtest

    different, longer = int((times != reference).sum()), int((times > reference).sum())
    return different > 0 and bool(binomtest(longer, different, alternative="greater").pvalue < SIGNIFICANCE)


def cells(result: dict[str, Any], selected: bool) -> dict[str, str]:
    """Return column to value of a result, for tables."""
    verdict = result["fails"] or "passes"
    if selected:
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
"""Batch size for checking batch invariance."""
MAX_FLIPPED_SHARE = 0.001
"""Predictions of a candidate count as independent of batch composition up to this share of changed labels."""


def batch_invariance(model: LoadedArtifact, texts: list[str], single: np.ndarray) -> dict[str, Any]:
    """Return how much scores change, and how many labels flip, in batches compared with single texts.

    The batches are random, so that most texts are padded to a length far from their own.
    single: logits (texts, labels), each text in a batch of its own.
    """
    order = fixed_order(texts)
    batched = np.empty_like(single)
    for start in range(0, len(order), BATCH):
        chosen = order[start : start + BATCH]
        batched[chosen] = model.predict_logits([texts[i] for i in chosen], batch_size=len(chosen))
    one, other = softmax(single), softmax(batched)
    rule = rule_of(model)
    flips = rule.predict(one) != rule.predict(other)
    return {
        "rows": len(texts),
        "batch": BATCH,
        "largest_score_difference": float(np.abs(one - other).max()),
        "label_flips": int(flips.sum()),
    }
