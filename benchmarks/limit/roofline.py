"""`hbt bench --roofline`: how far a package runs from the limit of this machine, and where the rest of the time goes.

The limit is the roofline (Williams et al. 2009): the time in which the operations of a text could be done at the
measured peak, or its bytes be read at the measured bandwidth, whichever is longer.
"""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.limit.operations import Work
from benchmarks.limit.peaks import Peaks
from exporters.loaders.base.routing import TRANSFORMER
from exporters.loaders.onnx_runtime.graph_file import graph_file
from toolkit.latency.measure import thread_environment
from toolkit.latency.timing import fixed_order
from toolkit.manifest import read_manifest
from toolkit.utils.errors import InputError
from toolkit.utils.scratch import scratch_folder

MAX_TEXTS = 200
OPERATORS_SHOWN = 6
TARGETS = ("onnx-int8", "onnx-fp32", "c", "python")
"""Targets whose work is known: a graph of ONNX Runtime, or the n-gram table."""


@dataclass(frozen=True)
class Roofline:
    """A package against the limit. Times are means over the texts."""

    name: str
    threads: int
    texts: int
    tokens: float
    """Mean number of tokens of a text."""
    work: Work
    peaks: Peaks
    text_us: float
    """From text to label."""
    network_us: float
    """Of which the network takes; of compiled n-gram code, with its normalizer."""
    tokenizer_us: float | None
    operators_us: dict[str, float]
    """By the profile of ONNX Runtime, slowest first."""

    @property
    def compute_us(self) -> float:
        """Time for the operations at the peaks."""
        return 1e6 * (
            self.work.int8_operations / self.peaks.int8_ops_s + self.work.fp32_operations / self.peaks.fp32_ops_s
        )

    @property
    def traffic_us(self) -> float:
        """Time for the bytes at the bandwidth for arrays of this size."""
        return 1e6 * self.work.bytes / self.peaks.weights_bytes_s

    @property
    def limit_us(self) -> float:
        """Time that no implementation on this machine can beat."""
        return max(self.compute_us, self.traffic_us)

    @property
    def share(self) -> float:
        """The limit divided by the time from text to label."""
        return self.limit_us / self.text_us

    def losses_us(self) -> dict[str, float]:
        """Return where the time beyond the limit goes, in microseconds; the parts add up to it."""
        products = sum(time for name, time in self.operators_us.items() if name in _PRODUCTS)
        profiled = sum(self.operators_us.values())
        found = {}
        if self.operators_us:
            scale = min(1.0, self.network_us / profiled)  # measuring slows small operators down
            found["products of matrices, beyond the limit"] = products * scale - self.limit_us
            found["other operators"] = (profiled - products) * scale
            found["calls of ONNX Runtime"] = self.network_us - profiled * scale
        else:
            found["network, beyond the limit"] = self.network_us - self.limit_us
        if self.tokenizer_us is not None:
            found["tokenizer"] = self.tokenizer_us
        found["Python around them"] = self.text_us - self.network_us - (self.tokenizer_us or 0.0)
        return found

    def as_dict(self) -> dict[str, Any]:
        """Return all figures as JSON values."""
        derived = {name: getattr(self, name) for name in ("compute_us", "traffic_us", "limit_us", "share")}
        return asdict(self) | derived | {"losses_us": self.losses_us()}


_PRODUCTS = (
    "MatMul", "Gemm", "FusedMatMul", "FusedGemm", "MatMulInteger", "MatMulIntegerToFloat", "DynamicQuantizeMatMul",
    "QLinearMatMul", "QGemm", "MatMulNBits", "Attention", "QAttention", "MultiHeadAttention",
)  # fmt: skip


def rooflines(folder: Path, texts: Sequence[str], threads: int) -> list[Roofline]:
    """Return the roofline of a package on real texts; of a cascade, that of each of its two models.

    Raises: InputError if its target is one whose work is not known.
    """
    target = read_manifest(folder)["target"]
    if target not in TARGETS:
        raise InputError(f"{folder}: the operations of {target} are not known; --roofline reads {', '.join(TARGETS)}")
    chosen = [texts[i] for i in fixed_order(texts)[:MAX_TEXTS]]
    parts = [part for part in (folder, folder / TRANSFORMER) if part.is_dir()]
    return [_measured(folder, part, chosen, threads) for part in parts]


def _measured(package: Path, folder: Path, texts: Sequence[str], threads: int) -> Roofline:
    """Measure in a process of its own, whose threads are pinned. folder: of the package, or of a part of it."""
    part = "" if folder == package else folder.name
    artifact = folder / graph_file(folder)
    size = artifact.stat().st_size if artifact.is_file() else sum(f.stat().st_size for f in folder.rglob("*.bin"))
    spec = {"package": str(package.resolve()), "part": part, "texts": texts, "threads": threads, "artifact_bytes": size}
    with scratch_folder() as scratch:
        (scratch / "spec.json").write_text(json.dumps(spec), "utf-8")
        command = [sys.executable, "-P", "-m", "benchmarks.limit.worker", str(scratch / "spec.json")]
        environment = os.environ | thread_environment(threads)
        done = subprocess.run(command, env=environment, capture_output=True, text=True, encoding="utf-8")
    if done.returncode != 0:
        raise RuntimeError(f"{package.name}: the measuring process failed ({done.returncode}):\n{done.stderr[-2000:]}")
    found = json.loads(done.stdout.splitlines()[-1])
    return Roofline(
        name=package.name if not part else f"{package.name}, {part}",
        threads=threads,
        texts=len(texts),
        tokens=found["tokens"],
        work=Work(**found["work"]),
        peaks=Peaks(**found["peaks"]),
        text_us=found["text_us"],
        network_us=found["network_us"],
        tokenizer_us=found.get("tokenizer_us"),
        operators_us=found.get("operators_us", {}),
    )
