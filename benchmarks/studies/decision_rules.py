"""Measure what the decision rule and the linear models are worth on labeled files.

For each file and model: macro-F1 on the test rows with the default rule (0.5, or the most probable label) and with the
chosen one, how it was chosen, and its gain under cross-validation. The models are the linear baseline and the n-gram
student that learns from the labels alone; both take minutes, and no teacher is needed.

    python -m benchmarks.studies.decision_rules FILE.csv [FILE.csv …] --out decision-rules.csv
"""

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np

from toolkit.config.settings import CorpusSettings
from toolkit.data.corpus import Corpus, load_corpus
from toolkit.evaluation.decision_rule import DecisionRule
from toolkit.evaluation.metrics import macro_f1, softmax
from toolkit.evaluation.rule_choice import Choice, choose_rule
from toolkit.training.dataset import Examples
from toolkit.training.linear_fit import fit_linear
from toolkit.training.ngram.search import fit_ngram
from toolkit.utils.console import print_table, say
from toolkit.utils.files import write_lines

BATCH = 256


def main() -> None:
    given = _arguments()
    lines: list[dict[str, Any]] = []
    for file in given.files:
        corpus = load_corpus(CorpusSettings(data=file))
        for name, measure in (("linear baseline", linear_baseline), ("ngram, labels alone", ngram_student)):
            say(f"{file}: {name}")
            started = time.monotonic()
            probabilities, choice = measure(corpus)
            lines.append(_line(Path(file).stem, name, corpus, probabilities, choice, time.monotonic() - started))
            write_lines(lines, Path(given.out))
    print_table(
        [{key: str(value) for key, value in line.items()} for line in lines], "test rows", left=("File", "Model")
    )


def linear_baseline(corpus: Corpus) -> tuple[np.ndarray, Choice]:
    """Return the probabilities of the linear baseline on the test rows, and its rule."""
    found = fit_linear(corpus)
    return found.model.predict_proba(corpus.take(corpus.rows("test"))), found.choice


def ngram_student(corpus: Corpus) -> tuple[np.ndarray, Choice]:
    """Return the probabilities of the n-gram student without a teacher on the test rows, and its rule."""
    train, validation = corpus.rows("train"), corpus.rows("validation")
    examples, others = (Examples(corpus.take(rows), corpus.labels[rows]) for rows in (train, validation))
    found = fit_ngram("ngram", examples, others, corpus.label_names, 0.0, corpus.fold[train])
    assert found.logits is not None
    logits = np.concatenate([found.logits, found.student.predict_logits(corpus.take(validation), BATCH)])
    labels = np.concatenate([corpus.labels[train], corpus.labels[validation]])
    choice = choose_rule(labels, softmax(logits.astype(np.float64)))
    return found.student.predict_proba(corpus.take(corpus.rows("test")), BATCH), choice


def _line(
    file: str, model: str, corpus: Corpus, probabilities: np.ndarray, choice: Choice, seconds: float
) -> dict[str, Any]:
    labels, count = corpus.labels[corpus.rows("test")], len(corpus.label_names)
    before = macro_f1(labels, DecisionRule(0.5 if count == 2 else None).predict(probabilities), count)
    after = macro_f1(labels, choice.rule.predict(probabilities), count)
    return {
        "File": file,
        "Model": model,
        "Labels": count,
        "Test rows": len(labels),
        "Rule": choice.method,
        "Gain under cross-validation": round(choice.gain, 4),
        "Its standard error": round(choice.gain_error, 4),
        "Macro F1, default rule": round(before, 4),
        "Macro F1": round(after, 4),
        "Seconds": round(seconds),
    }


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.studies.decision_rules", description=(__doc__ or "").split("\n\n")[0]
    )
    parser.add_argument("files", nargs="+", help="labeled files")
    parser.add_argument("--out", default="decision-rules.csv", help="CSV file to write")
    return parser.parse_args()


if __name__ == "__main__":
    main()
