"""What the timing of `hbt bench` adds to a query: a model that does nothing, and one that takes a known time in C.

    python -m benchmarks.studies.deployment.overhead

The second model waits in C until 10 µs have passed, and C measures how long it took. Prints one line of JSON: the
median that hbt measures of both, and of the second that of C.
"""

import ctypes
import json
import statistics
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from exporters.loaders.model_bin.library import compiler
from toolkit.latency.timing import Latency, time_latency
from toolkit.latency.worker import pin_to_cpus

SAMPLES, MICROSECONDS = 20_000, 10
SOURCE = """
#include <stdint.h>
#include <time.h>
static int64_t now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * INT64_C(1000000000) + t.tv_nsec;
}
int64_t wait_ns(int64_t ns) {
    int64_t start = now(), end;
    do end = now(); while (end - start < ns);
    return end - start;
}
"""


class Model:
    """A model whose `predict` takes a known time."""

    labels: tuple[str, ...] = ("a", "b")
    threshold = offsets = None

    def __init__(self, wait: Any = None) -> None:
        self.wait, self.in_c_ns = wait, list[int]()

    def predict(self, texts: Sequence[str]) -> None:
        """Wait, if there is a function that does."""
        if self.wait is not None:
            self.in_c_ns.append(self.wait(1000 * MICROSECONDS))


def main() -> None:
    pin_to_cpus(1)
    settings = Latency(max_samples=SAMPLES, warmup=100)
    idle: Any = Model()
    nothing = time_latency(idle, ["text"] * SAMPLES, settings)
    with tempfile.TemporaryDirectory() as scratch:
        source, library = Path(scratch, "wait.c"), Path(scratch, "wait.so")
        source.write_text(SOURCE, "utf-8")
        command = [
            str(compiler()),
            "-D_POSIX_C_SOURCE=199309L",
            "-O2",
            "-shared",
            "-fPIC",
            "-o",
            str(library),
            str(source),
        ]
        subprocess.run(command, check=True)
        wait = ctypes.CDLL(str(library)).wait_ns
        wait.argtypes, wait.restype = [ctypes.c_int64], ctypes.c_int64
        busy: Any = Model(wait)
        measured = time_latency(busy, ["text"] * SAMPLES, settings)
    in_c_us = statistics.median(busy.in_c_ns) / 1000
    by_hbt_us = 1000 * statistics.median(measured)
    facts = {
        "nothing_us": round(1000 * statistics.median(nothing), 3),
        "wait_by_hbt_us": round(by_hbt_us, 3),
        "wait_in_c_us": round(in_c_us, 3),
        "difference_percent": round(100 * (by_hbt_us / in_c_us - 1), 2),
    }
    print(json.dumps(facts))


if __name__ == "__main__":
    main()
