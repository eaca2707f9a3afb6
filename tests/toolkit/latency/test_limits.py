"""What a machine can imitate of another one, and what it says of the rest."""

import dataclasses
import subprocess
import sys
from pathlib import Path

import pytest

from toolkit.latency.cold_start import ImportClock, bare_python_mib, resident_mib
from toolkit.latency.energy import counters, joules_since
from toolkit.latency.limits import CpuTarget, environment, refuse_impossible, why_impossible
from toolkit.utils.errors import InputError
from toolkit.utils.machine import Machine

HERE = Machine("CPU X", "x86-64 AVX512-VNNI", (), 4, 8.0, "Linux", "3.11.9", {}, 0.25)
ORT = {"onnxruntime"}
ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize(
    ("settings", "runtimes", "reason"),
    [
        ({}, ORT, None),
        ({"threads": 4, "memory_mib": 8192, "architecture": "x86-64", "isa": "AVX512-VNNI"}, ORT, None),
        ({"isa": "AVX2"}, {"torch"}, None),
        ({"isa": "AVX2"}, {"torch", "onnxruntime"}, "onnxruntime would use the AVX512-VNNI of this machine"),
        ({"isa": "AMX-INT8"}, {"torch"}, "this machine has AVX512-VNNI, not AMX-INT8"),
        ({"architecture": "arm64", "isa": "NEON"}, ORT, "this machine is x86-64, not arm64"),
        ({"threads": 5}, ORT, "this machine has 4 CPUs, not 5"),
        ({"memory_mib": 8193}, ORT, "this machine has 8 GiB of memory, not 8.0"),
    ],
)
def test_a_machine_says_why_it_cannot_imitate_another(
    settings: dict[str, object], runtimes: set[str], reason: str | None
) -> None:
    found = why_impossible(CpuTarget("other", "another machine", **settings), HERE, runtimes)  # type: ignore[arg-type]
    assert found == reason or (found is not None and reason is not None and found.startswith(reason))


def test_the_refusal_names_what_to_do_instead() -> None:
    pi = CpuTarget("pi", "a board", architecture="arm64")
    with pytest.raises(InputError, match=r"--cpu-target pi: this machine is x86-64.*--from device\.json"):
        refuse_impossible(pi, HERE, ORT)
    refuse_impossible(pi, dataclasses.replace(HERE, isa="arm64 NEON"), ORT)


def test_instructions_are_capped_in_the_libraries_that_can_be() -> None:
    assert environment(CpuTarget("any", "any")) == {}
    found = environment(CpuTarget("old", "old", isa="AVX2"))
    assert (found["ONEDNN_MAX_CPU_ISA"], found["ATEN_CPU_CAPABILITY"]) == ("AVX2", "avx2")


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="memory is limited on Linux alone")
def test_memory_beyond_the_limit_cannot_be_used() -> None:
    code = "from toolkit.latency.limits import limit_memory; limit_memory(64); kept = bytearray({} * 2**20)"
    small, large = (
        subprocess.run([sys.executable, "-c", code.format(mib)], capture_output=True, text=True, cwd=ROOT)
        for mib in (16, 128)
    )
    assert small.returncode == 0, small.stderr
    assert "MemoryError" in large.stderr


def test_energy_is_the_difference_of_the_counters_also_over_their_end(tmp_path: Path) -> None:
    assert counters(tmp_path / "none") == {}
    assert joules_since({}, tmp_path) is None
    for name, value in (("intel-rapl:0", 9_000_000), ("intel-rapl:0:0", 5), ("intel-rapl:1", 1_000_000)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "energy_uj").write_text(f"{value}\n")
        (tmp_path / name / "max_energy_range_uj").write_text("10000000\n")
    before = counters(tmp_path)
    assert [folder.name for folder in before] == ["intel-rapl:0", "intel-rapl:1"]  # a part is in its package
    (tmp_path / "intel-rapl:0" / "energy_uj").write_text("500000\n")  # past its end
    (tmp_path / "intel-rapl:1" / "energy_uj").write_text("1250000\n")
    assert joules_since(before, tmp_path) == pytest.approx(1.5 + 0.25)


def test_an_import_inside_another_counts_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ticks = iter(range(0, 1000, 10))
    monkeypatch.setattr("toolkit.latency.cold_start.time.perf_counter_ns", lambda: next(ticks))
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "outer_of_two.py").write_text("import inner_of_two\n")
    (tmp_path / "inner_of_two.py").write_text("value = 1\n")
    before = __import__
    with ImportClock() as clock:
        import outer_of_two  # type: ignore[import-not-found]  # noqa: F401
    assert clock.ns >= 30  # from the first reading to the last one
    read = next(ticks)
    assert clock.ns == read - 10  # all readings in between are in it, and no time twice
    assert __import__ is before


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="read from /proc")
def test_a_bare_python_needs_less_memory_than_this_one() -> None:
    bare, here = bare_python_mib(), resident_mib()
    assert bare is not None
    assert here is not None
    assert 2 < bare < here
