"""python: an n-gram student for Python's standard library alone; how_to_load.py is the program."""

from collections.abc import Sequence
from pathlib import Path

from exporters.loaders.model_bin.model import Model
from exporters.ngram.target import Answer, Classify, ProgramTarget


def start(file: Path) -> Classify:
    """Return the classifier in model.bin, as how_to_load.py of the package runs it."""
    model = Model(file.read_bytes())

    def classify(texts: Sequence[str]) -> list[Answer]:
        answers = []
        for logits in model.predict_logits(texts):
            probabilities = model.probabilities(logits)
            answers.append(Answer(model.chosen(probabilities), logits, probabilities))
        return answers

    return classify


EXPORTER = ProgramTarget(
    "python", "n-gram student for Python's standard library alone", "same", start, available=lambda: None
)
