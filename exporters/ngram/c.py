"""c: an n-gram student as one C99 file that allocates nothing, its header, and a command line."""

import ctypes
import shutil
import subprocess
import sys
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from exporters.ngram.target import SOURCES, Answer, Classify, ProgramTarget
from toolkit.utils.scratch import scratch_folder

COMPILERS = ("cc", "gcc", "clang")
FLAGS = ("-std=c99", "-O2", "-shared", "-fPIC")
MODEL_BYTES = 8192
"""More than sizeof(ngram_model)."""


def compiler() -> str | None:
    """Return the path of a C compiler; None if there is none."""
    return next((found for name in COMPILERS if (found := shutil.which(name))), None)


def available() -> str | None:
    """Return None if C can be compiled here, else what to install."""
    if sys.platform == "win32":
        return "hbt compiles C only on Linux and macOS; use WSL"
    return None if compiler() else "no C compiler (cc): install one, on Debian with apt install gcc"


@cache
def library() -> ctypes.CDLL:
    """Return hbt's own model.c, compiled into a temporary folder.

    Raises: ValueError if there is no compiler or it fails.
    """
    missing, name = available(), compiler()
    if missing or name is None:
        raise ValueError(missing)
    with scratch_folder() as scratch:
        made = scratch / "model.so"
        command = [name, *FLAGS, "-o", str(made), str(SOURCES / "model.c"), "-lm"]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode != 0:
            raise ValueError(f"{name} does not compile model.c: {' '.join(done.stderr.split())[:200]}")
        loaded = ctypes.CDLL(str(made))
    pointer, size = ctypes.c_char_p, ctypes.c_size_t
    loaded.ngram_open.argtypes = [pointer, pointer, size]
    loaded.ngram_logits.argtypes = [pointer, pointer, size, ctypes.POINTER(ctypes.c_double)]
    loaded.ngram_decide.argtypes = [pointer, ctypes.POINTER(ctypes.c_double), ctypes.POINTER(ctypes.c_float)]
    return loaded


def start(file: Path) -> Classify:
    """Return the classifier in model.bin, run by the compiled C code.

    Raises: ValueError if the file is not valid or nothing compiles it.
    """
    code, data = library(), file.read_bytes()
    model = ctypes.create_string_buffer(MODEL_BYTES)
    if code.ngram_open(model, data, len(data)) != 0:
        raise ValueError("model.bin is not valid")
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
    "c", "n-gram student as one C99 file without dependencies", "faster", start, available,
    sources=("model.c", "model.h", "main.c"),
)  # fmt: skip
