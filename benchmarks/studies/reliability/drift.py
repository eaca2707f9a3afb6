"""Measure how well `hbt drift` tells shifted texts from fresh ones, and how often texts are flagged as out of scope.

Fresh texts are the test rows of the package, which its reference has not seen. Shifted ones are the texts of another
file or, for `labels`, test rows drawn with another mix of labels, as in another month: the shares of the most and the
least frequent label are exchanged. From both, samples are drawn many times and compared with the package. Reported: the
area under the ROC curve of the smallest p-value of a sample (0.5: chance, 1: every shifted sample is told from every
fresh one), how often drift and `retrain` are said, macro-F1 where there are labels, and the share of all texts that are
out of scope.

    python -m benchmarks.studies.reliability.drift PACKAGE=FILE PACKAGE=labels … --out drift.csv
"""

import argparse
from pathlib import Path
from typing import Any

import numpy as np

from toolkit import package as packages
from toolkit.config.toml_file import recipe_of
from toolkit.data.corpus import Corpus, load_corpus
from toolkit.data.unlabeled import read_unlabeled
from toolkit.evaluation.metrics import macro_f1
from toolkit.evaluation.predictor import rule_of
from toolkit.evaluation.reliability.drift import NONE, RETRAIN, DriftReport, Values, compare_with, values_of
from toolkit.utils.console import bar, print_table
from toolkit.utils.errors import InputError
from toolkit.utils.files import write_lines
from toolkit.workflows.scoring.flags import flags_of

SAMPLES = (50, 200, 1_000)
"""Texts in a sample."""
MOST = 5_000
"""Texts of a file that samples are drawn from."""
LABELS = "labels"


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.studies.reliability.drift", description=(__doc__ or "").split("\n\n")[0]
    )
    parser.add_argument("pairs", nargs="+", metavar="PACKAGE=FILE", help="package, and shifted texts or `labels`")
    parser.add_argument("--repeats", type=int, default=200, help="samples of each kind [default: 200]")
    parser.add_argument("--out", type=Path, default=Path("drift.csv"), help="CSV file to write")
    given = parser.parse_args()
    lines: list[dict[str, Any]] = []
    for pair in given.pairs:
        folder, _, shifted = pair.partition("=")
        lines += _measured(Path(folder), shifted, given.repeats)
        write_lines(lines, given.out)
    print_table(
        [{key: str(value) for key, value in line.items()} for line in lines],
        f"{given.repeats:,} fresh and as many shifted samples",
        left=("Package", "Shifted"),
    )


def _measured(folder: Path, shifted: str, repeats: int) -> list[dict[str, Any]]:
    """Return a line for each size of the samples."""
    manifest = packages.read_manifest(folder)
    reference = manifest.get("evaluation", {}).get("drift")
    if reference is None:
        raise InputError(f"{folder}: has no reference; make the package again with hbt compress")
    corpus = _corpus_of(manifest)
    model, flags = packages.load(folder, 1), flags_of(folder)
    test = corpus.rows("test")
    if shifted == LABELS:
        texts, truth = corpus.take(test), corpus.labels[test]
    else:
        texts = read_unlabeled(Path(shifted), "FILE")
        texts = [texts[i] for i in np.sort(np.random.default_rng(0).permutation(len(texts))[:MOST])]
    fresh, predicted = _values(model, flags, corpus.take(test))
    other, _ = (fresh, predicted) if shifted == LABELS else _values(model, flags, texts)
    weights = _other_mix(truth) if shifted == LABELS else None
    found = []
    for rows in SAMPLES:
        if rows > min(len(test), len(texts)):
            continue
        random = np.random.default_rng(rows)
        reports: dict[str, list[DriftReport]] = {"fresh": [], "shifted": []}
        scores: list[float] = []
        with bar(f"{folder.name}, {shifted}: samples of {rows}", repeats) as advance:
            for _ in range(repeats):
                reports["fresh"].append(compare_with(reference, _some(fresh, random.permutation(len(test))[:rows])))
                chosen = random.choice(len(texts), rows, replace=weights is not None, p=weights)
                reports["shifted"].append(compare_with(reference, _some(other, chosen)))
                if weights is not None:
                    scores.append(macro_f1(truth[chosen], predicted[chosen], len(corpus.label_names)))
                advance(1)
        line: dict[str, Any] = {
            "Package": folder.name,
            "Shifted": Path(shifted).stem if shifted != LABELS else "another mix of labels",
            "Reference rows": reference["rows"],
            "Sample": rows,
            "AUC": round(_auc(*map(_surprises, reports.values())), 4),
        }
        for name, each in reports.items():
            line[f"Drift said, {name}"] = _share([report.verdict != NONE for report in each])
            line[f"Retrain said, {name}"] = _share([report.verdict == RETRAIN for report in each])
        line["Macro-F1, test rows"] = round(macro_f1(corpus.labels[test], predicted, len(corpus.label_names)), 4)
        line["Macro-F1, shifted"] = round(float(np.mean(scores)), 4) if scores else ""
        line["Out of scope, test rows"] = _share([bool(reason) for reason in flags.reasons(corpus.take(test))])
        line["Out of scope, shifted"] = "" if weights is not None else _share(map(bool, flags.reasons(texts)))
        found.append(line)
    return found


def _corpus_of(manifest: dict[str, Any]) -> Corpus:
    """Return the corpus of a package, from the settings in its manifest. Raises: InputError if the data has changed."""
    settings = recipe_of(None, manifest["lineage"]["corpus_settings"]).corpus
    corpus = load_corpus(settings)
    if corpus.fingerprint != manifest["lineage"]["corpus_fingerprint"]:
        raise InputError(f"{settings.data}: has changed since the package was made")
    return corpus


def _values(model: Any, flags: Any, texts: list[str]) -> tuple[Values, np.ndarray]:
    """Return the value of each text on each line, and its predicted label."""
    probabilities = np.asarray(model.predict_proba(texts, 1), dtype=np.float64)
    predicted = rule_of(model).predict(probabilities)
    return values_of(texts, probabilities, predicted, model.labels, flags.scope, flags.below), predicted


def _other_mix(truth: np.ndarray) -> np.ndarray:
    """Return the probability of each row with which the most and the least frequent label exchange their shares."""
    counts = np.bincount(truth).astype(np.float64)
    wanted = counts.copy()
    most, least = counts.argmax(), counts.argmin()
    wanted[[most, least]] = counts[[least, most]]
    weights = (wanted / counts)[truth]
    return weights / weights.sum()


def _some(values: Values, chosen: np.ndarray) -> Values:
    return {name: own[chosen] for name, own in values.items()}


def _surprises(reports: list[DriftReport]) -> np.ndarray:
    """Return how surprising each sample is: minus the smallest p-value of its lines."""
    return np.array([-min(line.p for line in report.lines) for report in reports])


def _auc(fresh: np.ndarray, shifted: np.ndarray) -> float:
    """Return the probability that a shifted sample is more surprising than a fresh one; ties count half."""
    larger = (shifted[:, None] > fresh).mean()
    return float(larger + (shifted[:, None] == fresh).mean() / 2)


def _share(found: Any) -> float:
    return round(float(np.mean(list(found))), 4)


if __name__ == "__main__":
    main()
