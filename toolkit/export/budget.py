"""`--budget-kb`: an n-gram student that fits, by fitting the chosen mixture again with fewer table rows.

`benchmarks.studies.ngram_budget` compares this with other ways to make the table smaller.
"""

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from exporters.ngram.tables import size_without_table
from exporters.ngram.target import ProgramTarget
from exporters.registry import exporter
from toolkit.evaluation.comparison import Contender
from toolkit.evaluation.decision_rule import DecisionRule
from toolkit.evaluation.predictions import rule_on
from toolkit.export.stage import Source
from toolkit.modeling.classifier import Classifier
from toolkit.modeling.ngram import NgramNetwork
from toolkit.stages.distillation_data import DistillationData
from toolkit.stages.result import StageResult, predict_rows
from toolkit.training.ngram.search import NgramFit, mixture_in, refit_ngram
from toolkit.utils.console import say, working
from toolkit.utils.errors import InputError

FEWEST_ROWS = 256


def within_budget(
    source: Source, student: StageResult, data: Callable[[], DistillationData], kb: int, target: str
) -> Source:
    """Return `source` with the largest table with which model.bin and the program have at most `kb` KB.

    A KB is 1,024 bytes; see `exporters.ngram.target.ProgramTarget.program_bytes` for the program.
    student: the result of the stage that fitted the student. data: returns what it was fitted on.
    Raises: InputError if the classifier is not an n-gram student or no table fits.
    """
    program = exporter(target)
    assert isinstance(program, ProgramTarget)  # the settings allow no other
    rows = rows_within(source.classifier, kb, program.program_bytes)
    if not {"candidates", "mixture"} <= {*student.details}:
        raise InputError("--budget-kb: the student was fitted by an older version of hbt; train it again")
    network = source.classifier.network
    assert isinstance(network, NgramNetwork)
    if rows >= network.config.rows:
        say(f"--budget-kb {kb}: the table of {network.config.rows:,} rows fits")
        return source
    with working(f"--budget-kb {kb}: fitting a table of {rows:,} rows"):
        fit = refit(data(), student, rows)
    corpus = source.corpus
    predictions = predict_rows(fit.student, corpus, source.predictions.rows, f"student of {rows:,} rows: predicting")
    held_out = predictions.joined(fit.out_of_fold(corpus.rows("train")))
    rule = rule_on(corpus, held_out, np.setdiff1d(held_out.rows, corpus.rows("test"))).rule
    before = Contender(f"student of {network.config.rows:,} rows", source.predictions, student.rule or DecisionRule())
    return replace(
        source,
        classifier=fit.student.with_rule(rule),
        predictions=predictions,
        lineage=source.lineage | {"table_rows": rows, "budget_kb": kb},
        beside=[*source.beside, before],
    )


def rows_within(classifier: Classifier, kb: int, beside: int = 0) -> int:
    """Return the number of table rows with which model.bin and `beside` other bytes have at most `kb` KB.

    Raises: InputError if the classifier is not an n-gram student or fewer than FEWEST_ROWS fit.
    """
    if not isinstance(classifier.network, NgramNetwork):
        raise InputError("--budget-kb: needs an n-gram student; give --student ngram")
    width = 1 + classifier.network.config.outputs
    rest = beside + size_without_table(classifier.network, classifier.tokenizer, classifier.labels)
    rows = (1024 * kb - rest) // width
    if rows < FEWEST_ROWS:
        least = -(-(rest + FEWEST_ROWS * width) // 1024)
        raise InputError(f"--budget-kb {kb}: the smallest table needs {least} KB or more; give at least that")
    return rows


def refit(data: DistillationData, student: StageResult, rows: int) -> NgramFit:
    """Fit the mixture that the stage of a student has chosen again, with `rows` table rows."""
    mixture, alpha = mixture_in(student.details), data.recipe.distillation.kd_alpha
    words = bool(student.details.get("words"))
    return refit_ngram(rows, data.train, data.validation, data.corpus.label_names, alpha, data.folds, mixture, words)
