"""The machine is described everywhere, and its int8 instructions are read right."""

import dataclasses
import json
import os
import platform
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import cpuinfo
import pytest

from toolkit.utils import machine
from toolkit.utils.machine import describe_machine, isa_name, known_flags, parse_sysctl

ROOT = Path(__file__).parents[2]
APPLE_M2 = "machdep.cpu.brand_string: Apple M2\nhw.optional.neon: 1\nhw.optional.arm.FEAT_DotProd: 1\n"
INTEL_MAC = "machdep.cpu.brand_string: Intel(R) Core(TM) i5\nhw.optional.avx2_0: 1\nhw.optional.avx512f: 0\n"


@pytest.fixture(autouse=True)
def asked_anew() -> Iterator[None]:
    machine._cpu.cache_clear()
    yield
    machine._cpu.cache_clear()


@pytest.mark.parametrize(
    ("architecture", "told", "flags"),
    [
        (
            "x86_64",
            "fpu sse4_2 avx2 avx512f avx512_bf16 avx512_vnni",
            ("avx2", "avx512f", "avx512_vnni", "avx512_bf16"),
        ),
        ("AMD64", "avx2 avx512f avx512vnni", ("avx2", "avx512f", "avx512_vnni")),
        ("aarch64", "fp asimd evtstrm aes crc32 asimddp", ("asimd", "asimddp")),
        ("aarch64", "", ("asimd",)),
        ("ARM64", "", ("asimd",)),
        ("armv7l", "half thumb neon vfpv4", ("asimd",)),
        ("x86_64", "", ()),
    ],
)
def test_flags_are_those_that_decide(architecture: str, told: str, flags: tuple[str, ...]) -> None:
    assert known_flags(told.split(), architecture) == flags


@pytest.mark.parametrize(
    ("text", "name", "flags"),
    [(APPLE_M2, "Apple M2", {"asimd", "asimddp"}), (INTEL_MAC, "Intel(R) Core(TM) i5", {"avx2"}), ("", "", set())],
)
def test_sysctl_is_read(text: str, name: str, flags: set[str]) -> None:
    assert parse_sysctl(text) == (name, flags)


@pytest.mark.parametrize(
    ("told", "name"),
    [
        ({"brand_raw": "Cortex-A76", "hardware_raw": "BCM2835"}, "Cortex-A76"),
        ({"hardware_raw": "BCM2835"}, "BCM2835"),
        ({}, "the processor"),
    ],
)
def test_the_processor_has_a_name(told: dict[str, str], name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpuinfo, "get_cpu_info", lambda: told)
    monkeypatch.setattr(platform, "processor", lambda: "the processor")
    monkeypatch.setattr(platform, "system", lambda: "Linux")
    assert describe_machine().cpu == name


def test_the_processor_is_asked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.setattr(cpuinfo, "get_cpu_info", lambda: asked.append(1) or {"flags": ["avx2"]})
    assert describe_machine().flags == describe_machine().flags
    assert len(asked) == 1


@pytest.mark.skipif(not Path("/proc/cpuinfo").exists(), reason="no /proc/cpuinfo on this system")
def test_flags_are_those_of_linux_in_a_pinned_process_too() -> None:
    fields = dict(re.findall(r"^(\w[\w ]*?)\s*:\s*(.*)$", Path("/proc/cpuinfo").read_text("utf-8"), flags=re.M))
    told = fields.get("flags", fields.get("Features", "")).split()
    script = (
        "import json, os\nfrom toolkit.utils.machine import describe_machine\n"
        "os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:1])\nprint(json.dumps(describe_machine().flags))"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])}
    command = [sys.executable, "-P", "-c", script]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True, timeout=60)
    assert tuple(json.loads(done.stdout)) == known_flags(told, platform.machine())


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
    monkeypatch.setattr(platform, "machine", lambda: "")
    monkeypatch.setattr(cpuinfo, "get_cpu_info", nothing)
    monkeypatch.setattr(machine.subprocess, "run", nothing)
    monkeypatch.setattr(machine, "_DISTRIBUTIONS", ("surely-not-installed",))
    monkeypatch.delattr(machine.os, "getloadavg", raising=False)
    monkeypatch.delattr(machine.os, "sched_getaffinity", raising=False)
    here = describe_machine()
    assert (here.cpu, here.flags, here.versions, here.load_average) == ("unknown", (), {}, None)
    assert here.cores >= 1
