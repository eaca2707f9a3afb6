"""Vowpal Wabbit: logistic regression, one against all, on words, word pairs and character n-grams."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.peers.common import Given, Label, Rows, best_of

SETTINGS = [
    {"letters": letters, "passes": passes, "l2": l2}
    for letters in (4, 5)
    for passes, l2 in ((3, 0.0), (10, 0.0), (10, 1e-7), (20, 1e-6))
]
SPECIAL = str.maketrans({":": "\ua789", "|": "\u01c0"})
"""Characters with a meaning in the input of VW -> others that look like them."""


def train(rows: Rows, folder: Path, given: Given) -> dict[str, Any]:
    """Train with the settings that are best on validation rows, and write the model."""
    from vowpalwabbit import Workspace

    lines = [_example(text, rows.names.index(name) + 1) for text, name in zip(rows.texts, rows.labels, strict=True)]
    order = np.random.default_rng(0)

    def fit(settings: dict[str, Any]) -> Any:
        words = f"--oaa {len(rows.names)} --loss_function logistic -b 20 --ngram w2 --ngram c{settings['letters']}"
        model = Workspace(f"{words} --l2 {settings['l2']} --quiet --random_seed 0")
        for _ in range(settings["passes"]):
            for i in order.permutation(len(lines)):
                model.learn(lines[i])
        return model

    model, settings, best = best_of(rows, SETTINGS, fit, partial(_labels, rows.names))
    model.save(str(folder / "model.vw"))
    return {"settings": settings, "validation": {"vowpal-wabbit": best}}


def load(folder: Path, names: Sequence[str], variant: str) -> Label:
    """Return the function that labels texts."""
    from vowpalwabbit import Workspace

    return _labels(names, Workspace(f"-i {folder / 'model.vw'} -t --quiet"))


def _labels(names: Sequence[str], model: Any) -> Label:
    return lambda texts: [names[int(model.predict(_example(text))) - 1] for text in texts]


def _example(text: str, label: int | None = None) -> str:
    plain = " ".join(text.lower().split()).translate(SPECIAL)
    letters = " ".join(plain.replace(" ", "_"))
    return f"{'' if label is None else label} |w {plain} |c {letters}"
