"""Describe the machine and the versions that a result was measured with, from the standard library alone."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

FLAGS = ("avx2", "avx512f", "avx512_vnni", "avx_vnni", "amx_int8", "avx512_bf16", "asimd", "asimddp", "i8mm")
"""Processor flags that change the speed and the rounding of int8, as Linux spells them."""


def describe_machine() -> dict[str, Any]:
    """Return processor, memory and system as JSON values; what the system does not tell is "unknown" or None."""
    import platform

    name, flags = _processor()
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30 if hasattr(os, "sysconf") else None
    return {
        "cpu": name,
        "architecture": platform.machine() or "unknown",
        "flags": flags,
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_gib": None if memory is None else round(memory, 1),
        "os": platform.platform(terse=True),
        "python": platform.python_version(),
    }


def checked_versions(manifest: dict[str, Any]) -> dict[str, str]:
    """Return the versions that the package was checked with, by distribution; manifests before 0.2 have only one."""
    runtime = manifest["runtime"]
    return runtime.get("versions", {runtime["name"]: runtime["version"]})


def installed_versions(names: Iterable[str]) -> dict[str, str]:
    """Return the installed version of each distribution, "missing" without one."""
    from importlib.metadata import PackageNotFoundError, version

    found = {}
    for name in names:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "missing"
    return found


def read_manifest(folder: Path) -> dict[str, Any]:
    """Return manifest.json, whose files the loader has checked."""
    return json.loads((folder / "manifest.json").read_text("utf-8"))


def _processor() -> tuple[str, list[str]]:
    """Return the name of the processor, or of a single-board computer, and those of FLAGS that it has."""
    import platform

    fields: dict[str, str] = {}
    try:
        for line in Path("/proc/cpuinfo").read_text("utf-8", "replace").splitlines():
            key, _, value = line.partition(":")
            fields.setdefault(key.strip().lower(), value.strip())
        board = Path("/proc/device-tree/model").read_text("utf-8", "replace").strip("\0 \n")
    except OSError:
        board = ""
    there = (fields.get("flags") or fields.get("features") or "").split()
    name = fields.get("model name") or board or platform.processor() or "unknown"
    return name, [flag for flag in FLAGS if flag in there]
