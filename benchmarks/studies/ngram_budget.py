"""How to make the table of an n-gram student smaller: accuracy of four ways at several sizes of model.bin.

    python -m benchmarks.studies.ngram_budget RUN [RUN …] [--kb 64,128,256,512]

RUN: a run with an ngram student. Prints CSV. Validation rows decide which way hbt uses; test rows are beside them.

    refit    fewer rows, fitted again on the same texts
    fold     rows of the full table that fall together are averaged, weighted by their squared idf
    4-bit    codes of four bits (-7 to 7), fitted again with twice the rows
    select   only the most useful rows of the full table, and a bitmap that says which
"""

import argparse
import csv
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from toolkit.evaluation.predictions import Predictions, evaluate, rule_on
from toolkit.export.budget import refit, rows_within
from toolkit.modeling.classifier import Classifier
from toolkit.modeling.ngram import NgramConfig, NgramNetwork, word_rows_of
from toolkit.stages.distillation_data import DistillationData
from toolkit.stages.result import StageResult
from toolkit.stages.run_folder import DISTILLATION, Run
from toolkit.training.ngram.search import NgramFit
from toolkit.workflows.steps import distillation_of

KB = (64, 128, 256, 512)
FULL = 2**18
"""Rows of the table that is folded, and from which rows are selected."""


@dataclass(frozen=True, eq=False)
class Study:
    """One run, with the full table fitted once."""

    data: DistillationData
    student: StageResult
    full: NgramFit

    def scores(self, fit: NgramFit, table: np.ndarray, own_rule: bool) -> tuple[float, float]:
        """Return macro-F1 on validation and test rows with a table (rows, 1 + outputs) in place of that of `fit`.

        own_rule: choose the decision rule on validation rows and the out-of-fold logits of `fit`, else on validation
        rows alone, since a table that was changed after the fit has no out-of-fold logits.
        """
        corpus = self.data.corpus
        words = network_of(fit).config.word_rows
        network = NgramNetwork(NgramConfig(len(table), table.shape[1] - 1, words)).eval()
        network.table.data = torch.from_numpy(table.astype(np.float32))
        network.intercept.data = network_of(fit).intercept.data
        rows = np.concatenate([corpus.rows("validation"), corpus.rows("test")])
        changed = Classifier(network, fit.student.tokenizer, fit.student.pad_id, fit.student.labels)
        found = Predictions(rows, changed.predict_logits(corpus.take(rows)))
        held_out = found.joined(fit.out_of_fold(corpus.rows("train")) if own_rule else None)
        rule = rule_on(corpus, held_out, np.setdiff1d(held_out.rows, corpus.rows("test"))).rule
        validation, test, _ = evaluate(corpus, found, rule)
        return validation["macro_f1"], test["macro_f1"]


def network_of(fit: NgramFit) -> NgramNetwork:
    """Return the network of a fitted student."""
    network = fit.student.network
    assert isinstance(network, NgramNetwork)
    return network


def dequantized(network: NgramNetwork, levels: int = 127) -> np.ndarray:
    """Return the values of the table after rounding to codes from -levels to levels, as `quantize_table` does."""
    values = network.table.numpy().astype(np.float64)
    reach = np.abs(values).max(axis=0)
    reach[reach == 0] = 1
    codes = np.sign(values) * np.rint(levels * np.sqrt(np.abs(values) / reach))
    return codes * np.abs(codes) * reach / levels**2


def folded(table: np.ndarray, rows: int, word_rows: int = 0) -> np.ndarray:
    """Return the table with the mean, weighted by about their frequency, in all rows that fall together in `rows`."""
    if word_rows:
        windows, words, left = table[:-word_rows], table[-word_rows:], word_rows_of(rows)
        return np.concatenate([folded(windows, rows - left), folded(np.concatenate([table[:1], words]), left + 1)[1:]])
    found, total = np.zeros((rows, table.shape[1])), np.zeros((rows, 1))
    places = 1 + np.arange(len(table) - 1) % (rows - 1)
    weights = frequencies(table)[1:, None]
    np.add.at(found, places, weights * table[1:])
    np.add.at(total, places, weights)
    return np.concatenate([table[:1], (found / np.maximum(total, 1e-12))[places]])


def frequencies(table: np.ndarray) -> np.ndarray:
    """Return about the share of texts with the n-grams of each row, from its squared idf; 0 for an empty row."""
    idf = np.sqrt(table[:, 0])
    return np.where(idf > 0, np.exp(1 - idf), 0)


def selected(table: np.ndarray, rows: int) -> np.ndarray:
    """Return the table with only the `rows` most useful rows: the largest |weight| × √frequency of any output."""
    useful = np.abs(table[:, 1:]).max(axis=1) * np.sqrt(frequencies(table))
    kept = table.copy()
    kept[np.argsort(-useful)[max(rows, 0) :]] = 0
    return kept


def results(study: Study, kb: int) -> Iterator[tuple[str, int, tuple[float, float]]]:
    """Yield the name of each way, its number of rows, and macro-F1 on validation and test rows."""
    rows, full = rows_within(study.full.student, kb), network_of(study.full)
    outputs = full.config.outputs
    if rows < FULL:
        fit = refit(study.data, study.student, rows)
        yield "refit", rows, study.scores(fit, dequantized(network_of(fit)), True)
        yield "fold", rows, study.scores(study.full, folded(dequantized(full), rows, full.config.word_rows), False)
        kept = rows - FULL // 8 // (1 + outputs)
        yield "select", max(kept, 0), study.scores(study.full, selected(dequantized(full), kept), False)
    else:
        yield "refit", FULL, study.scores(study.full, dequantized(full), True)
    fit = refit(study.data, study.student, min(2 * rows, FULL))
    yield "4-bit", min(2 * rows, FULL), study.scores(fit, dequantized(network_of(fit), 7), True)


def main() -> None:
    """Print the CSV."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--kb", default=",".join(map(str, KB)))
    arguments = parser.parse_args()
    out = csv.writer(sys.stdout)
    out.writerow(["corpus", "kb", "way", "rows", "validation_macro_f1", "test_macro_f1"])
    for folder in arguments.runs:
        run = Run.open(folder)
        data, student = distillation_of(run), run.results[DISTILLATION]
        study = Study(data, student, refit(data, student, FULL))
        for kb in map(int, arguments.kb.split(",")):
            for way, rows, (validation, test) in results(study, kb):
                out.writerow([run.corpus.name, kb, way, rows, f"{validation:.4f}", f"{test:.4f}"])
                sys.stdout.flush()


if __name__ == "__main__":
    main()
