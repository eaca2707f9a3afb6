"""Measure a remedy for texts with typos: perturbed copies of the training texts, with their labels.

The linear baseline, and the n-gram student that learns from the labels alone, without and with the copies. Each
training text gets one copy, with one of six of the twelve perturbations, in its own fold; the other six show whether
the remedy holds for changes that training did not have. Macro-F1 is measured on the test rows and their copies.

    python -m benchmarks.studies.reliability.perturbed_training FILE.csv [FILE.csv …] --out perturbed-training.csv
"""

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from toolkit.config.settings import CorpusSettings
from toolkit.data.corpus import Corpus, load_corpus
from toolkit.evaluation.metrics import macro_f1, softmax
from toolkit.evaluation.reliability.perturbations import PERTURBATIONS, perturbed
from toolkit.evaluation.rule_choice import choose_rule
from toolkit.training.dataset import Examples
from toolkit.training.linear_fit import fit_linear
from toolkit.training.ngram.search import fit_ngram
from toolkit.utils.console import print_table, say
from toolkit.utils.files import write_lines

TRAINED_ON = ("typo", "added space", "homoglyph", "digit for letter", "zero-width character", "emoji added")
BATCH = 256

Labels = Callable[[Sequence[str]], np.ndarray]
"""Texts -> predicted labels, int (texts,)."""


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.studies.reliability.perturbed_training", description=(__doc__ or "").split("\n\n")[0]
    )
    parser.add_argument("files", nargs="+", help="labeled files")
    parser.add_argument("--out", type=Path, required=True, help="CSV file to write")
    given = parser.parse_args()
    lines: list[dict[str, Any]] = []
    for file in given.files:
        corpus = load_corpus(CorpusSettings(data=file))
        say(file)
        models: dict[str, Labels] = {
            "linear baseline": linear_baseline(corpus),
            "ngram": ngram_student(corpus, copies=False),
            "ngram, perturbed copies": ngram_student(corpus, copies=True),
        }
        lines += [scores(Path(file).stem, name, corpus, model) for name, model in models.items()]
        write_lines(lines, given.out)
    print_table(
        [{key: str(value) for key, value in line.items()} for line in lines], "macro-F1", left=("File", "Model")
    )


def linear_baseline(corpus: Corpus) -> Labels:
    """Fit the linear baseline."""
    model = fit_linear(corpus).model
    return lambda texts: model.rule.predict(model.predict_proba(texts))


def ngram_student(corpus: Corpus, copies: bool) -> Labels:
    """Fit the n-gram student on the labels; its rule is chosen on unchanged texts. copies: add the perturbed copies."""
    train, validation = corpus.rows("train"), corpus.rows("validation")
    texts, labels, folds = list(corpus.take(train)), corpus.labels[train], corpus.fold[train]
    if copies:
        kinds = np.random.default_rng(0).integers(len(TRAINED_ON), size=len(texts))
        texts += [perturbed([text], TRAINED_ON[kind])[0] for text, kind in zip(texts, kinds, strict=True)]
        labels, folds = np.tile(labels, 2), np.tile(folds, 2)
    held_out = Examples(corpus.take(validation), corpus.labels[validation])
    found = fit_ngram("ngram", Examples(texts, labels), held_out, corpus.label_names, 0.0, folds)
    assert found.logits is not None
    logits = [found.logits[: len(train)], found.student.predict_logits(corpus.take(validation), BATCH)]
    truth = np.concatenate([corpus.labels[train], corpus.labels[validation]])
    rule = choose_rule(truth, softmax(np.concatenate(logits).astype(np.float64))).rule
    return lambda given: rule.predict(found.student.predict_proba(given, BATCH))


def scores(file: str, name: str, corpus: Corpus, model: Labels) -> dict[str, Any]:
    """Return macro-F1 on the test rows, and on their copies with each perturbation."""
    test = corpus.rows("test")
    texts, truth, count = list(corpus.take(test)), corpus.labels[test], len(corpus.label_names)
    found = {kind: macro_f1(truth, model(perturbed(texts, kind)), count) for kind in PERTURBATIONS}
    others = [score for kind, score in found.items() if kind not in TRAINED_ON]
    line: dict[str, Any] = {"File": file, "Model": name, "clean": macro_f1(truth, model(texts), count)}
    line |= {"mean, trained on": np.mean([found[kind] for kind in TRAINED_ON]), "mean, others": np.mean(others)}
    return {key: value if isinstance(value, str) else round(float(value), 4) for key, value in (line | found).items()}


if __name__ == "__main__":
    main()
