"""Run model.c of a package: compile it, once for each user and machine, and call it by ctypes.

What only this needs is imported in its functions, since it would lengthen every cold start.
"""

from __future__ import annotations

import hashlib
import os
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


def scorer(source: Path, data: bytes, compile: bool | None) -> Callable[[str], list[float]] | None:
    """Return a function from a text to the logit of each label, by model.c for the bytes of model.bin.

    compile: None returns None where C cannot be compiled, and False always; True insists.
    Raises: ValueError if `data` is not valid, or if `compile` is True and there is no compiler or it fails.
    """
    if compile is False:
        return None
    try:
        code = compiled(source)
    except (ValueError, OSError):
        if compile:
            raise
        return None
    return scored_by(code, data)


def compiled(source: Path) -> Any:
    """Return model.c as a ctypes.CDLL: the library in the cache of this user, compiled first if it is not there.

    Where the cache cannot be used, it is compiled into a temporary folder.
    Raises: ValueError if there is no compiler or it fails.
    """
    try:
        library = cached(source)
        return functions(library if library.exists() else built(source, library))
    except (OSError, RuntimeError):  # no home folder, a full disk, or a folder that forbids programs
        import tempfile

        with tempfile.TemporaryDirectory(prefix="hbt-model-") as scratch:
            return functions(built(source, Path(scratch, "model.so")))


def cached(source: Path) -> Path:
    """Return the place of the library of this source, Python and processor, in a folder that only this user can write.

    Raises: OSError if there is no such folder, RuntimeError if this user has no home.
    """
    from importlib.machinery import EXTENSION_SUFFIXES

    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "hbt", "model-c")
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    status = folder.lstat()
    if sys.platform == "win32" or status.st_uid != os.geteuid() or status.st_mode & 0o170022 != 0o040000:
        raise OSError(f"{folder}: others can write into it")
    digest = hashlib.sha256(" ".join(FLAGS).encode())
    for name in C_SOURCES:
        digest.update(source.with_name(name).read_bytes())
    # The suffix names processor, C library and Python, as in .cpython-311-x86_64-linux-gnu.so.
    return folder / f"{digest.hexdigest()[:32]}{EXTENSION_SUFFIXES[0]}"


def built(source: Path, library: Path) -> Path:
    """Compile model.c into `library`, which appears when it is complete. Raises: ValueError if nothing compiles it."""
    import subprocess

    missing, name = missing_compiler(), compiler()
    if missing or name is None:
        raise ValueError(missing)
    partial = library.with_name(f".{library.name}.{os.getpid()}")
    try:
        done = subprocess.run([name, *FLAGS, "-o", str(partial), str(source), "-lm"], capture_output=True, text=True)
        if done.returncode != 0:
            raise ValueError(f"{name} does not compile model.c: {' '.join(done.stderr.split())[:200]}")
        return partial.replace(library)
    finally:
        partial.unlink(missing_ok=True)


def functions(library: Path) -> Any:
    """Return the functions of a compiled model.c with the types of their arguments. Raises: OSError if it fails."""
    import ctypes

    code = ctypes.CDLL(str(library))
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
