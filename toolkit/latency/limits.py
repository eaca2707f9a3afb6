"""Limits of another machine that this one can imitate: threads, memory, and the instructions that libraries use."""

import platform
import sys
from dataclasses import dataclass

from toolkit.utils.errors import InputError
from toolkit.utils.machine import Machine

ISA_LEVELS = ("AVX2", "AVX512", "AVX512-VNNI", "AMX-INT8")
"""Instructions of x86-64 that a target can be capped at, from the fewest on."""
_ONEDNN = {"AVX2": "AVX2", "AVX512": "AVX512_CORE", "AVX512-VNNI": "AVX512_CORE_VNNI"}
_NUMPY_OFF = "X86_V4 AVX512F AVX512CD AVX512_SKX AVX512_CLX AVX512_CNL AVX512_ICL AVX512_SPR"
"""Names that numpy has had for AVX512; it ignores those that it does not know."""
READS_THE_PROCESSOR = ("onnxruntime", "openvino")
"""Runtimes whose kernels are chosen by what the processor states: no setting caps them."""
X86, ARM = "x86-64", "arm64"


@dataclass(frozen=True)
class CpuTarget:
    """A machine to imitate. None: as this machine. Clock rate, caches and memory bandwidth are not imitated."""

    name: str
    description: str
    threads: int = 1
    """Threads of each model, and CPUs that its process may run on."""
    memory_mib: int | None = None
    """What a process may use: its private memory is limited, and its peak resident memory must stay below."""
    architecture: str | None = None
    """x86-64 or arm64."""
    isa: str | None = None
    """Best int8 instructions, as `toolkit.utils.machine` names them: one of ISA_LEVELS for x86-64."""


def refuse_impossible(target: CpuTarget, machine: Machine, runtimes: set[str]) -> None:
    """Raise InputError if this machine cannot imitate a target for models that run on `runtimes`."""
    reason = why_impossible(target, machine, runtimes)
    if reason is not None:
        raise InputError(
            f"--cpu-target {target.name}: {reason}; measure there with `python how_to_load.py --bench > device.json` "
            "and give the file with --from device.json instead of --cpu-target"
        )


def why_impossible(target: CpuTarget, machine: Machine, runtimes: set[str]) -> str | None:
    """Return why this machine cannot imitate a target, in a few words; None if it can."""
    architecture, _, best = machine.isa.partition(" ")
    if target.architecture is not None and target.architecture != architecture:
        return f"this machine is {architecture}, not {target.architecture}, and an emulator shows labels, not speed"
    if target.threads > machine.cores:
        return f"this machine has {machine.cores} CPU{'s' * (machine.cores > 1)}, not {target.threads}"
    if target.memory_mib is not None and target.memory_mib > machine.memory_gib * 1024:
        return f"this machine has {machine.memory_gib:g} GiB of memory, not {target.memory_mib / 1024:g}"
    if target.memory_mib is not None and not sys.platform.startswith("linux"):
        return f"memory can be limited on Linux alone, and this is {platform.system()}"
    return None if target.isa is None else _why_other_instructions(target.isa, architecture, best, runtimes)


def _why_other_instructions(isa: str, architecture: str, best: str, runtimes: set[str]) -> str | None:
    if best == isa:
        return None
    if architecture != X86 or isa not in ISA_LEVELS or best not in ISA_LEVELS:
        return f"this machine has {best or 'other instructions'}, not {isa}"
    if ISA_LEVELS.index(best) < ISA_LEVELS.index(isa):
        return f"this machine has {best}, not {isa}"
    unlimited = sorted(runtimes & {*READS_THE_PROCESSOR})
    if unlimited:
        return f"{' and '.join(unlimited)} would use the {best} of this machine, since no setting caps them at {isa}"
    return None


def environment(target: CpuTarget) -> dict[str, str]:
    """Return the environment variables that cap the instructions of torch, oneDNN, OpenBLAS and numpy."""
    if target.isa not in _ONEDNN:
        return {}
    found = {"ONEDNN_MAX_CPU_ISA": _ONEDNN[target.isa]}
    if target.isa == "AVX2":
        found |= {"ATEN_CPU_CAPABILITY": "avx2", "MKL_ENABLE_INSTRUCTIONS": "AVX2", "OPENBLAS_CORETYPE": "Haswell"}
        found |= {"NPY_DISABLE_CPU_FEATURES": _NUMPY_OFF}
    return found


def limit_memory(memory_mib: int) -> None:
    """Limit the private memory of this process; more raises MemoryError, or ends it."""
    import resource

    limit = memory_mib * 2**20
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
