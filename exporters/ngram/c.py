"""c: an n-gram student as one C99 file that allocates nothing, its header, and a command line."""

import ctypes
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from exporters.loaders.model_bin.library import C_SOURCES, compiled, missing_compiler, opened
from exporters.ngram.target import SOURCES, Answer, Classify, ProgramTarget

CODE_BYTES = 18 * 1024
"""More than model.c takes with sqrt, exp, log and the arithmetic of doubles, which a processor may not have: 17 KB on a
Cortex-M0, 10 KB on a Cortex-M4."""


@cache
def library() -> ctypes.CDLL:
    """Return hbt's own model.c, compiled. Raises: ValueError if there is no compiler or it fails."""
    return compiled(SOURCES / C_SOURCES[0])


def start(file: Path) -> Classify:
    """Return the classifier in model.bin, run by the compiled C code.

    Raises: ValueError if the file is not valid or nothing compiles it.
    """
    code, data = library(), file.read_bytes()
    model = opened(code, data)
    labels = code.ngram_labels(model)
    logits, probabilities = (ctypes.c_double * labels)(), (ctypes.c_float * labels)()

    def classify(texts: Sequence[str]) -> list[Answer]:
        answers = []
        for text in texts:
            encoded = text.encode()
            code.ngram_logits(model, encoded, len(encoded), logits)
            label = code.ngram_decide(model, logits, probabilities)
            answers.append(Answer(label, [*logits], [*probabilities]))
        return answers

    # The model points into `data`, which must live as long as the function.
    classify.__dict__["data"] = data
    return classify


EXPORTER = ProgramTarget(
    "c", "n-gram student as one C99 file without dependencies", "faster", start, missing_compiler,
    sources=(*C_SOURCES, "main.c"), kind="c", code_bytes=CODE_BYTES,
)  # fmt: skip
