"""On what was it measured? Every figure of speed stands beside this description."""

import os
import platform
import subprocess
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, version

FLAGS = ("avx2", "avx512f", "avx512_vnni", "avx_vnni", "amx_int8", "avx512_bf16", "asimd", "asimddp", "i8mm")
"""CPU flags that decide how fast and how exact int8 and bf16 are, as Linux spells them."""

# Best first: what an int8 kernel of onnxruntime would pick.
_INT8_NAMES = {
    "amx_int8": "AMX-INT8",
    "avx512_vnni": "AVX512-VNNI",
    "avx_vnni": "AVX-VNNI",
    "avx512f": "AVX512",
    "avx2": "AVX2",
    "i8mm": "I8MM",
    "asimddp": "DOTPROD",
    "asimd": "NEON",
}
# Flags by their names in macOS' sysctl.
_SYSCTL_NAMES = {
    "hw.optional.avx2_0": "avx2",
    "hw.optional.avx512f": "avx512f",
    "hw.optional.neon": "asimd",
    "hw.optional.AdvSIMD": "asimd",
    "hw.optional.arm.FEAT_DotProd": "asimddp",
    "hw.optional.arm.FEAT_I8MM": "i8mm",
}
_ALIASES = {"neon": "asimd", "avx512vnni": "avx512_vnni"}
"""Other spellings: of 32-bit ARM, and of py-cpuinfo where it asks the processor itself."""
_ARCHITECTURES = {"x86_64": "x86-64", "amd64": "x86-64", "aarch64": "arm64"}
_DISTRIBUTIONS = ("torch", "onnxruntime", "numpy", "tokenizers")


@dataclass(frozen=True)
class Machine:
    """A computer as far as it decides a measurement."""

    cpu: str
    """Model name as the system gives it."""
    isa: str
    """Architecture and best int8 instructions, such as `x86-64 AVX512-VNNI`."""
    flags: tuple[str, ...]
    """Those of FLAGS that the CPU has."""
    cores: int
    """CPUs that this process may run on."""
    memory_gib: float
    os: str
    python: str
    versions: dict[str, str]
    """Distribution to version, of those that are installed."""
    load_average: float | None
    """Of the last minute, before anything was measured; None where the system has no such figure."""


def describe_machine() -> Machine:
    """Return this machine as it is now. Never fails: what the system does not tell is `unknown` or left out."""
    load_average = _load_average()  # first, as asking for the processor takes some time of it
    cpu, flags = _cpu()
    return Machine(
        cpu=cpu,
        isa=isa_name(platform.machine(), flags),
        flags=flags,
        cores=usable_cores(),
        memory_gib=_memory_gib(),
        os=platform.platform(terse=True),
        python=platform.python_version(),
        versions=_versions(),
        load_average=load_average,
    )


def busy_share(seconds: float = 1.0) -> float:
    """Return the share of all CPUs that are busy while this process waits, from 0 to 1."""
    import psutil

    return psutil.cpu_percent(seconds) / 100


def usable_cores() -> int:
    """Return the number of CPUs that this process may use."""
    return len(allowed_cpus()) or os.cpu_count() or 1


def allowed_cpus() -> list[int]:
    """Numbers of the CPUs that this process may run on; empty where the system does not say."""
    return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []


def isa_name(architecture: str, flags: tuple[str, ...]) -> str:
    """Short text for people and manifests: architecture and its best int8 instructions."""
    name = _ARCHITECTURES.get(architecture.lower(), architecture.lower() or "unknown")
    best = next((text for flag, text in _INT8_NAMES.items() if flag in flags), None)
    return f"{name} {best}" if best else name


def known_flags(found: Iterable[str], architecture: str) -> tuple[str, ...]:
    """Return those of FLAGS that a processor has, from its flags as py-cpuinfo spells them."""
    there = {_ALIASES.get(flag, flag) for flag in found}
    if _ARCHITECTURES.get(architecture.lower(), architecture.lower()) == "arm64":
        there.add("asimd")  # every 64-bit ARM has it, and not every system says so
    return tuple(flag for flag in FLAGS if flag in there)


def parse_sysctl(text: str) -> tuple[str, set[str]]:
    """Return name and known flags of a processor from the lines of macOS' `sysctl machdep.cpu hw.optional`."""
    fields = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in text.splitlines())}
    flags = {flag for name, flag in _SYSCTL_NAMES.items() if fields.get(name) == "1"}
    return fields.get("machdep.cpu.brand_string", ""), flags


@cache
def _cpu() -> tuple[str, tuple[str, ...]]:
    """Return name and known flags of the processor. Takes a second, for which py-cpuinfo counts clock ticks."""
    import cpuinfo

    name, flags = "", set[str]()
    try:
        found = cpuinfo.get_cpu_info()
        name, flags = found.get("brand_raw") or found.get("hardware_raw") or "", set(found.get("flags", ()))
    except Exception:  # whatever a system that it does not know makes it raise
        pass
    if platform.system() == "Darwin":  # py-cpuinfo finds no flags on Apple's own processors
        with suppress(OSError, subprocess.SubprocessError):
            command = ["sysctl", "machdep.cpu", "hw.optional"]
            found = parse_sysctl(subprocess.run(command, capture_output=True, text=True, timeout=10).stdout)
            name, flags = name or found[0], flags | found[1]
    return name or platform.processor() or "unknown", known_flags(flags, platform.machine())


def _memory_gib() -> float:
    import psutil

    return round(psutil.virtual_memory().total / 2**30, 1)


def _versions() -> dict[str, str]:
    found = {}
    for name in _DISTRIBUTIONS:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _load_average() -> float | None:
    try:
        return round(os.getloadavg()[0], 2)
    except (OSError, AttributeError):
        return None
