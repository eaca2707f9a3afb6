"""Does a typo flip the label? Macro-F1 and flips on perturbed test rows, and accuracy on functional tests."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from toolkit.data.columns import LABEL_COLUMNS, TEXT_COLUMNS, find_column
from toolkit.data.corpus import Corpus, text_values
from toolkit.data.tables import read_table
from toolkit.evaluation.metrics import macro_f1
from toolkit.evaluation.reliability.perturbations import PERTURBATIONS, perturbed
from toolkit.utils.console import bar
from toolkit.utils.errors import InputError

ROWS_FAST, ROWS_SLOW = 1_000, 200
"""Test rows of an n-gram package, and of any other."""
FUNCTIONALITY = "functionality"
"""Column of functional tests, as in HateCheck (Röttger et al. 2021)."""
Label = Callable[[Sequence[str]], np.ndarray]
"""Texts -> the predicted labels, int (texts,)."""


def robustness_facts(corpus: Corpus, models: dict[str, Label], rows: int) -> dict[str, Any]:
    """Return macro-F1 and label flips of each model on test rows with each kind of change.

    models: name to function; the flips are against the same model on the unchanged rows.
    """
    test = corpus.rows("test")
    chosen = np.sort(np.random.default_rng(corpus.settings.seed).permutation(test)[:rows])
    texts, truth, count = corpus.take(chosen), corpus.labels[chosen], len(corpus.label_names)
    before = {name: label(texts) for name, label in models.items()}
    found: dict[str, Any] = {
        "rows": len(chosen),
        "clean": {name: macro_f1(truth, labels, count) for name, labels in before.items()},
        "changes": {},
    }
    with bar("robustness: predicting", len(PERTURBATIONS)) as advance:
        for change in PERTURBATIONS:
            other = perturbed(texts, change)
            places = [i for i, (old, new) in enumerate(zip(texts, other, strict=True)) if old != new]
            line: dict[str, Any] = {"changed": len(places), "models": {}}
            for name, label in models.items():
                after = before[name].copy()
                if places:
                    after[places] = label([other[i] for i in places])
                flips = int((after != before[name]).sum())
                line["models"][name] = {"flips": flips, "macro_f1": macro_f1(truth, after, count)}
            found["changes"][change] = line
            advance(1)
    return found


def functional_facts(file: str, labels: tuple[str, ...], label: Label) -> dict[str, Any]:
    """Return the accuracy of a model for each functionality of a file, with counts.

    Raises: InputError if it cannot be read, or has other labels.
    """
    option = f"--functional-tests {file}"
    if not Path(file).is_file():
        raise InputError(f"{option}: no such file; give a table with the columns text, label and {FUNCTIONALITY}")
    table = read_table(Path(file))
    if FUNCTIONALITY not in table.columns:
        raise InputError(f"{option}: no column {FUNCTIONALITY}; the columns are {', '.join(table.columns)}")
    texts = text_values(table, find_column(table, None, option, TEXT_COLUMNS))
    values = [str(value) for value in table.columns[find_column(table, None, option, LABEL_COLUMNS)]]
    for row, value in enumerate(values):
        if value not in labels:
            raise InputError(f"{option}: row {row} has the label {value!r}, and the model has {', '.join(labels)}")
    right = label(texts) == np.array([labels.index(value) for value in values])
    kinds = np.array([str(value) for value in table.columns[FUNCTIONALITY]])
    found = [
        {"functionality": kind, "rows": int((kinds == kind).sum()), "right": int(right[kinds == kind].sum())}
        for kind in dict.fromkeys(kinds.tolist())
    ]
    return {"rows": len(texts), "right": int(right.sum()), "functionalities": found}
