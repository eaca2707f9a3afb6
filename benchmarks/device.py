"""Figures of other machines: what `python how_to_load.py --bench` printed there, for the table and the figure here."""

import dataclasses
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from exporters.loaders.command.label_file import inert
from toolkit.latency.measure import Measurement
from toolkit.manifest import MANIFEST_FILE, sha256_of
from toolkit.utils.console import printable
from toolkit.utils.errors import InputError
from toolkit.utils.files import folder_size
from toolkit.utils.machine import isa_name

SCHEMA = "hbt-device-bench-1"
MAX_BYTES, LONGEST_NAME = 2**20, 60
_FIGURES = (
    "p50_ms", "p90_ms", "p99_ms", "mean_ms", "max_ms", "throughput_b8_rows_s", "throughput_b32_rows_s",
    "cold_start_ms", "peak_rss_mib",
)  # fmt: skip


@dataclass(frozen=True)
class Device:
    """One package as measured on another machine."""

    package: Path
    measurement: Measurement
    """Without metrics: no labels were read there."""
    same_answers: bool
    """Whether the golden texts got their labels and scores there."""


def read_device(file: Path, folders: Sequence[Path]) -> Device:
    """Return the measurement in a JSON file, of one of the packages in `folders`.

    Raises: InputError if the file is missing, is not what how_to_load.py prints, or is of another package.
    """
    try:
        if file.stat().st_size > MAX_BYTES:
            raise InputError(
                f"--from {file}: larger than {MAX_BYTES:,} bytes, so not what how_to_load.py --bench prints"
            )
        record = json.loads(file.read_text("utf-8"))
        if record["schema"] != SCHEMA:
            raise ValueError("of another version")
        device = _device(record, folders)
    except OSError as error:
        raise InputError(f"--from {file}: cannot be read ({error.strerror})") from None
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        raise InputError(
            f"--from {file}: not what how_to_load.py --bench prints; run it again, and keep only its standard output"
        ) from None
    if device is None:
        name = printable(str(record["package"]["name"]))[:LONGEST_NAME]
        raise InputError(
            f"--from {file}: measured {name!r}, which is none of these packages; give its unchanged folder"
        )
    return device


def _device(record: dict[str, Any], folders: Sequence[Path]) -> Device | None:
    """Return the content of a record; None if its package is not in `folders`. Raises: errors if it is malformed."""
    measured, machine = record["measurement"], record["machine"]
    threads, samples = (_number(measured[name], whole=True) for name in ("threads", "samples"))
    figures: dict[str, Any] = {name: None if measured[name] is None else _number(measured[name]) for name in _FIGURES}
    same_answers = record["self_test"]["passed"] is True
    hashes = {sha256_of(folder / MANIFEST_FILE): folder for folder in folders}
    folder = hashes.get(record["package"]["manifest_sha256"])
    if folder is None:
        return None
    cpu = " ".join(printable(str(machine["cpu"]))[:LONGEST_NAME].split()) or "unknown"
    isa = isa_name(str(machine["architecture"])[:20], tuple(map(str, machine["flags"])))
    texts = f"{record['texts']['source']} ({_number(record['texts']['distinct'], whole=True)} texts)"
    described = f"{cpu}, {isa}, {_number(machine['cores'], whole=True)} CPUs, Python {machine['python']}; on {texts}"
    measurement = Measurement(
        name=f"{folder.name}, {cpu}",
        kind="device",
        size_bytes=folder_size(folder),
        threads=int(threads),
        samples=int(samples),
        machine=inert(printable(described)[:300]),
        **figures,
    )
    return Device(folder, measurement, same_answers)


def with_metrics(device: Device, measurements: Sequence[Measurement]) -> Measurement:
    """Return the measurement of a device with the metrics of the same package, measured here.

    Without them if its golden texts got other labels or scores on the device: then the metrics need not hold there.
    """
    own = next(found for found in measurements if found.kind == "package" and found.name == device.package.name)
    if not device.same_answers:
        return device.measurement
    return dataclasses.replace(device.measurement, metrics=own.metrics, slices=own.slices)


def _number(value: Any, whole: bool = False) -> float:
    """Return a number that is neither negative nor infinite. Raises: ValueError."""
    kinds = (int,) if whole else (int, float)
    if isinstance(value, bool) or not isinstance(value, kinds) or not (math.isfinite(value) and value >= 0):
        raise ValueError("not a number")
    return value
