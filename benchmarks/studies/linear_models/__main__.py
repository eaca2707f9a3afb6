"""Measure solver and penalty of the linear models out of fold, on the training rows of labeled files.

For the features of the n-gram student: logistic regression that ends at the tolerance of earlier versions and at
that of `toolkit.training.nbsvm`, and a linear SVM with several penalties. No test row and no teacher is used.

    python -m benchmarks.studies.linear_models FILE.csv [FILE.csv …] --out linear-models.csv
"""

import argparse
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.sparse import csr_matrix

from toolkit.config.settings import CorpusSettings
from toolkit.data.corpus import load_corpus
from toolkit.modeling.ngram import DEFAULT_BITS, character_tokenizer
from toolkit.training import nbsvm
from toolkit.training.nbsvm import Loss, Outputs, fit_outputs, out_of_fold, targets_of
from toolkit.training.ngram.regression import tfidf
from toolkit.utils.console import print_table, say
from toolkit.utils.files import write_lines

EARLIER = 1e-3
"""Tolerance of earlier versions."""


@dataclass(frozen=True)
class Setting:
    """A linear model."""

    loss: Loss
    C: float
    tolerance: float = nbsvm.TOLERANCE


SETTINGS = (
    *(Setting("logistic", C, tolerance) for C in (1.0, 4.0, 8.0) for tolerance in (EARLIER, nbsvm.TOLERANCE)),
    *(Setting("hinge", C) for C in (0.1, 0.3, 1.0)),
)


def main() -> None:
    given = _arguments()
    lines: list[dict[str, Any]] = []
    for file in given.files:
        say(file)
        lines += lines_of(file)
        write_lines(lines, Path(given.out))
    shown = [{key: str(value) for key, value in line.items()} for line in lines]
    print_table(shown, "out of fold, training rows", left=("File", "Loss"))


def lines_of(file: str) -> list[dict[str, Any]]:
    """Return macro-F1, cross-entropy and CPU seconds of each setting."""
    corpus = load_corpus(CorpusSettings(data=file))
    rows, count = corpus.rows("train"), len(corpus.label_names)
    texts, labels, folds = list(corpus.take(rows)), corpus.labels[rows], corpus.fold[rows]
    features = tfidf(character_tokenizer(texts), texts, 2**DEFAULT_BITS)
    matrix = csr_matrix(features.matrix[:, np.flatnonzero(features.rows.squared_idf)])
    found = []
    for setting in SETTINGS:
        started = time.process_time()
        nbsvm.TOLERANCE = setting.tolerance

        def fit(fold: int, setting: Setting = setting) -> Outputs:
            train = folds != fold
            return fit_outputs(matrix[train], targets_of(labels[train], count), setting.C, loss=setting.loss)

        score = out_of_fold(matrix, labels, folds, fit).score
        found.append(
            {
                "File": Path(file).stem,
                "Loss": setting.loss,
                "C": setting.C,
                "Tolerance": setting.tolerance if setting.loss == "logistic" else "",
                "Macro F1": round(score.macro_f1, 4),
                "Cross-entropy": round(score.log_loss, 4),
                "CPU seconds": round(time.process_time() - started, 1),
            }
        )
    return found


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n\n")[0])
    parser.add_argument("files", nargs="+", metavar="FILE", help="labeled file")
    parser.add_argument("--out", required=True, help="CSV file to write")
    return parser.parse_args()


if __name__ == "__main__":
    main()
