"""The machine is described everywhere, and its int8 instructions are read right."""

import dataclasses
import json
import platform

import pytest

from toolkit.utils import machine
from toolkit.utils.machine import describe_machine, isa_name, parse_cpuinfo, parse_sysctl

ZEN4 = """processor\t: 0
model name\t: AMD EPYC 9R14
flags\t\t: fpu sse4_2 avx2 avx512f avx512_bf16 avx512_vnni

processor\t: 1
model name\t: another
flags\t\t: fpu
"""
RASPBERRY_5 = """processor\t: 0
Features\t: fp asimd evtstrm aes crc32 asimddp
CPU part\t: 0xd0b

Model\t\t: Raspberry Pi 5 Model B Rev 1.0
"""
RASPBERRY_2 = "model name : ARMv7 Processor rev 5 (v7l)\nFeatures : half thumb neon vfpv4\n"
APPLE_M2 = "machdep.cpu.brand_string: Apple M2\nhw.optional.neon: 1\nhw.optional.arm.FEAT_DotProd: 1\n"
INTEL_MAC = "machdep.cpu.brand_string: Intel(R) Core(TM) i5\nhw.optional.avx2_0: 1\nhw.optional.avx512f: 0\n"


@pytest.mark.parametrize(
    ("text", "name", "flags"),
    [
        (ZEN4, "AMD EPYC 9R14", ("avx2", "avx512f", "avx512_vnni", "avx512_bf16")),
        (RASPBERRY_5, "Raspberry Pi 5 Model B Rev 1.0", ("asimd", "asimddp")),
        (RASPBERRY_2, "ARMv7 Processor rev 5 (v7l)", ("asimd",)),
        ("", "", ()),
    ],
)
def test_cpuinfo_is_read(text: str, name: str, flags: tuple[str, ...]) -> None:
    assert parse_cpuinfo(text) == (name, flags)


@pytest.mark.parametrize(
    ("text", "name", "flags"),
    [(APPLE_M2, "Apple M2", ("asimd", "asimddp")), (INTEL_MAC, "Intel(R) Core(TM) i5", ("avx2",)), ("", "", ())],
)
def test_sysctl_is_read(text: str, name: str, flags: tuple[str, ...]) -> None:
    assert parse_sysctl(text) == (name, flags)


@pytest.mark.parametrize(
    ("architecture", "flags", "isa"),
    [
        ("x86_64", ("avx2", "avx512f", "avx512_vnni"), "x86-64 AVX512-VNNI"),
        ("x86_64", ("avx2", "avx512f", "avx512_vnni", "amx_int8"), "x86-64 AMX-INT8"),
        ("AMD64", ("avx2", "avx_vnni"), "x86-64 AVX-VNNI"),
        ("AMD64", (), "x86-64"),
        ("aarch64", ("asimd", "asimddp"), "arm64 DOTPROD"),
        ("arm64", ("asimd",), "arm64 NEON"),
        ("riscv64", (), "riscv64"),
        ("", (), "unknown"),
    ],
)
def test_isa_names_the_best_int8_instructions(architecture: str, flags: tuple[str, ...], isa: str) -> None:
    assert isa_name(architecture, flags) == isa


def test_this_machine_is_described_and_goes_to_json() -> None:
    here = describe_machine()
    assert here.cores >= 1
    assert here.memory_gib > 0
    assert {"numpy", "tokenizers"} <= here.versions.keys()
    assert json.loads(json.dumps(dataclasses.asdict(here)))["isa"] == here.isa


@pytest.mark.parametrize("system", ["Linux", "Darwin", "Windows", "Java", ""])
def test_a_system_that_tells_nothing_is_described_too(system: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def nothing(*_: object, **__: object) -> str:
        raise OSError

    monkeypatch.setattr(platform, "system", lambda: system)
    monkeypatch.setattr(platform, "processor", lambda: "")
    monkeypatch.setattr(machine.Path, "read_text", nothing)
    monkeypatch.setattr(machine.subprocess, "run", nothing)
    monkeypatch.setattr(machine, "_DISTRIBUTIONS", ("surely-not-installed",))
    monkeypatch.delattr(machine.os, "getloadavg", raising=False)
    monkeypatch.delattr(machine.os, "sched_getaffinity", raising=False)
    here = describe_machine()
    assert (here.cpu, here.flags, here.versions, here.load_average) == ("unknown", (), {}, None)
    assert here.cores >= 1
