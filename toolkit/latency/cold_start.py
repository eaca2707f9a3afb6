"""Where the time of a cold start goes, and the memory of a Python without anything in it."""

import builtins
import importlib
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any


class ImportClock:
    """Measure the time spent in imports while it is open; an import inside another one counts once."""

    def __init__(self) -> None:
        self.ns = 0
        self._depth = 0

    def __enter__(self) -> "ImportClock":
        self._before = builtins.__import__, importlib.import_module
        builtins.__import__ = self._timed(builtins.__import__)
        importlib.import_module = self._timed(importlib.import_module)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        builtins.__import__, importlib.import_module = self._before

    def _timed(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*arguments: Any, **named: Any) -> Any:
            start = time.perf_counter_ns()
            self._depth += 1
            try:
                return function(*arguments, **named)
            finally:
                self._depth -= 1
                if self._depth == 0:
                    self.ns += time.perf_counter_ns() - start

        return timed


def resident_mib() -> float | None:
    """Return the resident memory of this process now; None where the system does not say."""
    return status_mib(Path("/proc/self/status"), "VmRSS")


def bare_python_mib() -> float | None:
    """Return the peak resident memory of a Python that does nothing; None where the system does not say."""
    if not Path("/proc/self/status").exists():
        return None
    code = "print(open('/proc/self/status').read())"
    done = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True)
    return _mib(done.stdout, "VmHWM")


def status_mib(file: Path, key: str) -> float | None:
    """Return a figure of a status file of Linux in MiB; None if there is none."""
    return _mib(file.read_text("utf-8"), key) if file.exists() else None


def _mib(text: str, key: str) -> float | None:
    line = next((line for line in text.splitlines() if line.startswith(f"{key}:")), None)
    return None if line is None else int(line.split()[1]) / 1024
