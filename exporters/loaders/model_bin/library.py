"""Run model.c of a package: compile it and call it by ctypes.

What only this needs is imported in its functions, since it would lengthen every cold start.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

C_SOURCES = ("model.c", "model.h")
COMPILERS = ("cc", "gcc", "clang")
FLAGS = ("-std=c99", "-O2", "-shared", "-fPIC")
MODEL_BYTES = 8192
"""More than sizeof(ngram_model)."""


def missing_compiler() -> str | None:
    """Return None if C can be compiled here, else what to install."""
    if sys.platform == "win32":
        return "C is compiled only on Linux and macOS; use WSL"
    return None if compiler() else "no C compiler (cc): install one, on Debian with apt install gcc"


def compiler() -> str | None:
    """Return the path of a C compiler; None if there is none."""
    import shutil

    return next((found for name in COMPILERS if (found := shutil.which(name))), None)


def compiled(source: Path) -> Any:
    """Return model.c as a ctypes.CDLL, compiled into a temporary folder that only this user can read.

    Raises: ValueError if there is no compiler or it fails.
    """
    import ctypes
    import subprocess
    import tempfile

    missing, name = missing_compiler(), compiler()
    if missing or name is None:
        raise ValueError(missing)
    with tempfile.TemporaryDirectory(prefix="hbt-model-") as scratch:
        made = Path(scratch, "model.so")
        command = [name, *FLAGS, "-o", str(made), str(source), "-lm"]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode != 0:
            raise ValueError(f"{name} does not compile model.c: {' '.join(done.stderr.split())[:200]}")
        code = ctypes.CDLL(str(made))
    pointer, size = ctypes.c_char_p, ctypes.c_size_t
    code.ngram_open.argtypes = [pointer, pointer, size]
    code.ngram_logits.argtypes = [pointer, pointer, size, ctypes.POINTER(ctypes.c_double)]
    code.ngram_decide.argtypes = [pointer, ctypes.POINTER(ctypes.c_double), ctypes.POINTER(ctypes.c_float)]
    return code


def opened(code: Any, data: bytes) -> Any:
    """Return the model in the bytes of model.bin, for the functions of `code`. They must live as long as it is used.

    Raises: ValueError if they are not valid.
    """
    import ctypes

    model = ctypes.create_string_buffer(MODEL_BYTES)
    if code.ngram_open(model, data, len(data)) != 0:
        raise ValueError("model.bin is not valid")
    return model


def scored_by(code: Any, data: bytes) -> Callable[[str], list[float]]:
    """Return a function from a text to the logit of each label, which several threads may call."""
    import ctypes

    model = opened(code, data)
    count = code.ngram_labels(model)

    def score(text: str) -> list[float]:
        encoded, logits = text.encode(), (ctypes.c_double * count)()
        code.ngram_logits(model, encoded, len(encoded), logits)
        return [*logits]

    # The model points into `data`.
    score.__dict__["data"] = data
    return score
