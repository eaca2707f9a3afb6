"""Files of CPU targets."""

from pathlib import Path

import pytest

from benchmarks.targets.read import names, read_target
from toolkit.latency.limits import ISA_LEVELS, CpuTarget
from toolkit.utils.errors import InputError


def test_every_target_that_comes_with_hbt_is_valid() -> None:
    assert {"small-vm", "raspberry-pi-4"} <= {*names()}
    for name in names():
        target = read_target(name)
        assert (target.name, target.description != "") == (name, True)
        assert target.architecture != "x86-64" or target.isa in (None, *ISA_LEVELS)


def test_a_file_is_a_target_too(tmp_path: Path) -> None:
    file = tmp_path / "till.toml"
    file.write_text('description = "the till"\nthreads = 2\nmemory_mib = 300\n')
    assert read_target(str(file)) == CpuTarget("till", "the till", threads=2, memory_mib=300)
    assert read_target(str(file), threads=2).threads == 2
    with pytest.raises(InputError, match="--threads 1: till has 2; leave --threads out"):
        read_target(str(file), threads=1)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("description = 'x'\nram = 3", "no such setting: ram; the settings are name, description, threads"),
        ("description = 'x'\nthreads = 0", "threads: 0 must be a number of 1 or more"),
        ("description = 'x'\nthreads = true", "threads: True must be a number"),
        ("description = 3", "description: 3 must be a text"),
        ("threads = 1", "states no description; add it"),
        ("threads = ", "not a TOML file"),
    ],
)
def test_a_malformed_target_is_one_line(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "bad.toml").write_text(text)
    with pytest.raises(InputError, match=message):
        read_target(str(tmp_path / "bad.toml"))


def test_an_unknown_target_is_answered_with_those_there_are() -> None:
    with pytest.raises(InputError, match=r"no such target or file; the targets are .*raspberry-pi-4"):
        read_target("no-such-machine")
