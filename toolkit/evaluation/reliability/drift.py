"""Whether texts without labels are like the held-out rows of a package, and whether it matters.

A package keeps summaries of its validation rows: on each line (the probability, the predicted label, the length, …) the
rows are in bins, and of each bin it is known how many rows have which label and which prediction. A new file is put
into the same bins. One chi-square test a line says whether the shares of the bins differ, and their total variation
distance says how much, since of a million rows any difference is significant.

What a difference costs is simulated: the held-out rows are weighted so that their bins have the shares of the new file
(importance weighting, Shimodaira 2000). It assumes that texts of the same bin are as easy as before. Predicted labels
are explained by another mix of labels: there the rows are weighted by their labels.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from toolkit.data.normalization import normalize
from toolkit.evaluation.reliability.scope import REASONS, Scope
from toolkit.evaluation.significance import MARGIN, holm, weighted_macro_f1
from toolkit.evaluation.slices import script_of

SIGNIFICANT = 0.05
MOVED = 0.1
"""Total variation distance from which on a significant difference is drift."""
MOST_BINS, ROWS_PER_BIN = 10, 20
EXPECTED = 5
"""Least expected rows of a cell in the chi-square test; neighboring bins with fewer are joined."""
RESAMPLES = 1_000
MOST_NEW = 0.1
"""Share of texts in bins without a held-out row from which on no cost is simulated."""
HALF = 0.5
"""Share of a sample that comes from one bin, in the simulated shifts of the manifest."""
PROBABILITY, LABEL, NGRAMS, CHARACTERS = "probability", "predicted label", "unknown n-grams", "unknown characters"
LENGTH, SCRIPT, UNSURE = "length", "script", "unsure"
RETRAIN, DRIFT, UNKNOWN_COST, NONE = "retrain", "drift, no loss shown", "drift, loss not known", "no drift"
OTHER = "other"
_SEED = 0
Values = dict[str, np.ndarray]
"""Line -> the value of each text, float or str (texts,)."""


@dataclass(frozen=True)
class Line:
    """One line of the comparison."""

    line: str
    p: float
    p_holm: float
    """Corrected for the number of lines (Holm 1979)."""
    moved: float
    """Total variation distance: the share of the texts that lie in another bin than they would without drift."""
    bin: str
    """The bin whose share changed most."""
    before: float
    after: float
    """Its share of the held-out rows and of the new texts."""
    macro_f1_change: float | None
    """Of the held-out rows, weighted as the new texts; None if they have no rows of their bins."""
    interval: tuple[float, float] | None
    """95 % bootstrap interval of the change."""
    verdict: str
    """retrain, drift without or with unknown loss, or no drift."""


@dataclass(frozen=True)
class DriftReport:
    """New texts compared with the held-out rows of a package."""

    rows: int
    reference_rows: int
    macro_f1: float
    """Of the held-out rows."""
    lines: tuple[Line, ...]

    @property
    def verdict(self) -> str:
        """The gravest verdict of the lines."""
        found = {line.verdict for line in self.lines}
        return next((each for each in (RETRAIN, UNKNOWN_COST, DRIFT) if each in found), NONE)

    def as_dict(self) -> dict[str, Any]:
        """Return the report for a JSON file."""
        return asdict(self) | {"verdict": self.verdict}


def values_of(
    texts: Sequence[str],
    probabilities: np.ndarray,
    predicted: np.ndarray,
    labels: Sequence[str],
    scope: Scope,
    below: float | None,
) -> Values:
    """Return the value of each text on each line.

    probabilities: float (texts, labels). predicted: int (texts,).
    below: of a package that abstains, the probability below which it is unsure.
    """
    shares = scope.shares(texts)
    found: Values = {
        PROBABILITY: probabilities.max(axis=1).astype(np.float64),
        LABEL: np.array(labels)[predicted],
        NGRAMS: shares[:, REASONS.index("n-grams")],
        CHARACTERS: shares[:, REASONS.index("characters")],
        LENGTH: np.array([len(normalize(text)) for text in texts], dtype=np.float64),
        SCRIPT: np.array([script_of(text) for text in texts]),
    }
    if below is not None:
        unsure = probabilities[np.arange(len(texts)), predicted] < below
        found[UNSURE] = np.where(unsure, "unsure", "answered")
    return found


def reference_of(values: Values, truth: np.ndarray, predicted: np.ndarray, labels: int) -> dict[str, Any]:
    """Return the summaries of held-out rows for a manifest: bins, and the counts of label and prediction in each.

    truth, predicted: int (rows,).
    """
    cell, cells = _cells(truth, predicted, labels)
    lines = {}
    for name, own in values.items():
        binning = _binning(own)
        bins = _bins(binning, own)
        size = len(_names(binning))
        counts = np.bincount(bins * len(cells) + cell, minlength=size * len(cells)).reshape(size, len(cells))
        lines[name] = binning | {"counts": counts.T.tolist()}
    found = {
        "rows": len(truth),
        "labels": labels,
        "macro_f1": float(weighted_macro_f1(np.bincount(cell)[None], cells[:, 0], cells[:, 1], labels)[0]),
        "cells": cells.tolist(),
        "lines": lines,
    }
    return found | {"simulated": _simulated(found)}


def compare_with(reference: Mapping[str, Any], values: Values) -> DriftReport:
    """Return the comparison of new texts with a reference. Lines that one of them lacks are left out."""
    lines = {name: entry for name, entry in reference["lines"].items() if name in values}
    rows = len(next(iter(values.values())))
    counted = {name: _counted(entry, values[name]) for name, entry in lines.items()}
    before = {name: np.array(entry["counts"]).sum(axis=0) for name, entry in lines.items()}
    p_values = [_p_value(before[name], counted[name], "edges" in lines[name]) for name in lines]
    found = [
        _line(reference, name, before[name], counted[name], p, corrected)
        for name, p, corrected in zip(lines, p_values, holm(p_values), strict=True)
    ]
    return DriftReport(rows, reference["rows"], reference["macro_f1"], tuple(found))


def _line(
    reference: Mapping[str, Any], name: str, before: np.ndarray, after: np.ndarray, p: float, p_holm: float
) -> Line:
    """Return one line. before, after: rows in each bin."""
    old, new = before / before.sum(), after / after.sum()
    moved = float(np.abs(old - new).sum() / 2)
    most = int(np.abs(old - new).argmax())
    change = interval = None
    if new[before == 0].sum() <= MOST_NEW:
        change, interval = _cost(reference, name, after)
    if p_holm >= SIGNIFICANT or moved < MOVED:
        verdict = NONE
    elif change is None or interval is None:
        verdict = UNKNOWN_COST
    else:
        verdict = RETRAIN if change <= -MARGIN and interval[1] < 0 else DRIFT
    shown = _names(reference["lines"][name])[most]
    return Line(name, p, p_holm, moved, shown, float(old[most]), float(new[most]), change, interval, verdict)


def _cost(reference: Mapping[str, Any], name: str, after: np.ndarray) -> tuple[float, tuple[float, float]]:
    """Return the change of macro-F1 if the bins of the held-out rows had the shares of new texts, with its interval.

    after: new texts in each bin (bins,).
    """
    counts = np.array(reference["lines"][name]["counts"])  # (cells, bins)
    cells = np.array(reference["cells"])
    random = np.random.default_rng(_SEED)
    drawn = random.multinomial(counts.sum(), counts.ravel() / counts.sum(), size=RESAMPLES).reshape(-1, *counts.shape)
    shares = random.multinomial(after.sum(), after / after.sum(), size=RESAMPLES)  # of new texts (resamples, bins)
    all_counts = np.concatenate([counts[None], drawn])
    changes = _change(name, all_counts, np.concatenate([after[None], shares]), cells, reference["labels"])
    low, high = np.quantile(changes[1:], [0.025, 0.975])
    estimate = float(changes[0])
    return estimate, (min(float(low), estimate), max(float(high), estimate))


def _change(name: str, counts: np.ndarray, wanted: np.ndarray, cells: np.ndarray, labels: int) -> np.ndarray:
    """Return macro-F1 with the wanted bins minus macro-F1 as it is, (samples,).

    counts: (samples, cells, bins). wanted: (samples, bins). Bins without a row are left out.
    """
    truth, predicted = cells.T
    of_cells = counts.sum(axis=2).astype(np.float64)  # (samples, cells)
    if name == LABEL:
        weighted = of_cells * _label_weights(counts, wanted, truth, labels)[:, truth]
    else:
        rows = counts.sum(axis=1)  # (samples, bins)
        weights = np.divide(wanted, rows, out=np.zeros(rows.shape), where=rows > 0)
        weighted = (counts * weights[:, None, :]).sum(axis=2)
    after = weighted_macro_f1(weighted, truth, predicted, labels)
    return after - weighted_macro_f1(of_cells, truth, predicted, labels)


def _label_weights(counts: np.ndarray, wanted: np.ndarray, truth: np.ndarray, labels: int) -> np.ndarray:
    """Return the weight of each true label with which the predictions get the wanted shares, (samples, labels).

    The bins are predicted labels. Another mix of labels changes the mix of predictions through the confusion matrix,
    which is inverted (black box shift estimation, Lipton et al. 2018); what would be negative becomes 0.
    """
    of_label = np.eye(labels)[truth]  # (cells, labels)
    joint = np.einsum("scb,cl->sbl", counts, of_label) / counts.sum(axis=(1, 2))[:, None, None]
    shares = wanted / wanted.sum(axis=1, keepdims=True)
    return np.maximum(np.einsum("slb,sb->sl", np.linalg.pinv(joint), shares), 0.0)


def _simulated(reference: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return what macro-F1 would be if HALF of the rows came from one bin, for each bin of each line."""
    cells, found = np.array(reference["cells"]), []
    for name, entry in reference["lines"].items():
        counts = np.array(entry["counts"])
        shares = counts.sum(axis=0) / counts.sum()
        for i, shown in enumerate(_names(entry)):
            if shares[i] == 0:
                continue
            wanted = (1 - HALF) * shares
            wanted[i] += HALF
            change = float(_change(name, counts[None], wanted[None], cells, reference["labels"])[0])
            facts = {"line": name, "bin": shown, "share": float(shares[i]), "moved": float(HALF * (1 - shares[i]))}
            found.append(facts | {"macro_f1": reference["macro_f1"] + change})
    return found


def _cells(truth: np.ndarray, predicted: np.ndarray, labels: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the cell of each row, int (rows,), and label and prediction of each cell, int (cells, 2)."""
    codes, cell = np.unique(truth * labels + predicted, return_inverse=True)
    return cell, np.stack([codes // labels, codes % labels], axis=1)


def _binning(values: np.ndarray) -> dict[str, Any]:
    """Return the bins for the values of held-out rows: `edges` between numbers, or `names`."""
    if values.dtype.kind != "f":
        names, counts = np.unique(values, return_counts=True)
        return {"names": [*names[np.argsort(-counts, kind="stable")].tolist(), OTHER]}
    bins = max(2, min(MOST_BINS, len(values) // ROWS_PER_BIN))
    edges = np.unique(np.quantile(values, np.arange(1, bins) / bins, method="lower"))
    return {"edges": [float(f"{edge:.6g}") for edge in edges]}


def _bins(binning: Mapping[str, Any], values: np.ndarray) -> np.ndarray:
    """Return the bin of each value, int (texts,). A bin has its upper edge, and not its lower one."""
    if "edges" in binning:
        return np.digitize(np.array([float(f"{value:.6g}") for value in values]), binning["edges"], right=True)
    place = {name: i for i, name in enumerate(binning["names"])}
    return np.array([place.get(value, place[OTHER]) for value in values.tolist()], dtype=np.int64)


def _counted(entry: Mapping[str, Any], values: np.ndarray) -> np.ndarray:
    return np.bincount(_bins(entry, values), minlength=len(_names(entry)))


def _names(binning: Mapping[str, Any]) -> list[str]:
    """Return the name of each bin."""
    if "names" in binning:
        return [str(name) for name in binning["names"]]
    edges = [f"{edge:.4g}" for edge in binning["edges"]]
    if not edges:
        return ["any"]
    between = [f"{low} … {high}" for low, high in pairwise(edges)]
    return [f"≤ {edges[0]}", *between, f"> {edges[-1]}"]


def _p_value(before: np.ndarray, after: np.ndarray, ordered: bool) -> float:
    """Return the p-value of the chi-square test that both have the same shares of the bins (bins,).

    ordered: join only neighbors; otherwise the rarest bins.
    """
    from scipy.stats import chi2_contingency

    table = np.stack([before, after])
    if not ordered:
        table = table[:, np.argsort(-table.sum(axis=0), kind="stable")]
    joined = _joined(table)
    return float(chi2_contingency(joined, correction=False).pvalue) if joined.shape[1] > 1 else 1.0


def _joined(table: np.ndarray) -> np.ndarray:
    """Return the table (2, bins) with bins joined until each cell of it has EXPECTED rows expected."""
    share = table.sum(axis=1).min() / table.sum()
    groups: list[np.ndarray] = []
    open_group = np.zeros(2, dtype=np.int64)
    for column in table.T:
        open_group = open_group + column
        if open_group.sum() * share >= EXPECTED:
            groups.append(open_group)
            open_group = np.zeros(2, dtype=np.int64)
    if groups:
        groups[-1] = groups[-1] + open_group
    return np.array(groups or [open_group]).T


def as_lines(report: DriftReport) -> Sequence[dict[str, str]]:
    """Return the rows of a printed table."""
    return [
        {
            "Line": each.line,
            "largest change": f"{each.bin}: {each.before:.0%} → {each.after:.0%}",
            "moved": f"{each.moved:.0%}",
            "p (Holm)": f"{each.p_holm:.2g}",
            "macro-F1, simulated": "–" if each.macro_f1_change is None else f"{100 * each.macro_f1_change:+.1f} points",
            "verdict": each.verdict,
        }
        for each in report.lines
    ]
