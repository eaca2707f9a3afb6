"""Read the file of a CPU target."""

import dataclasses
import tomllib
from pathlib import Path
from types import NoneType
from typing import Any, get_args, get_type_hints

from toolkit.latency.limits import CpuTarget
from toolkit.utils.errors import InputError

FOLDER = Path(__file__).parent
_LEAST = {"threads": 1, "memory_mib": 16}


def names() -> list[str]:
    """Return the names of the targets that come with hbt."""
    return sorted(file.stem for file in FOLDER.glob("*.toml"))


def read_target(given: str, threads: int | None = None) -> CpuTarget:
    """Return the target of a name, or of a TOML file. threads: those that the user wants, if any.

    Raises: InputError if there is no such name or file, it is malformed, or it states other threads.
    """
    file = FOLDER / f"{given}.toml" if given in names() else Path(given)
    option = f"--cpu-target {given}"
    try:
        values = tomllib.loads(file.read_text("utf-8"))
    except OSError:
        raise InputError(f"{option}: no such target or file; the targets are {', '.join(names())}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{option}: not a TOML file ({error}); copy one of {FOLDER}") from None
    target = CpuTarget(**_checked(option, {"name": file.stem} | values))
    if threads not in (None, target.threads):
        raise InputError(f"--threads {threads}: {target.name} has {target.threads}; leave --threads out")
    return target


def _checked(option: str, values: dict[str, Any]) -> dict[str, Any]:
    """Return the settings of a target. Raises: InputError for a setting that is unknown or of another type."""
    kinds = get_type_hints(CpuTarget)
    for name, value in values.items():
        if name not in kinds:
            raise InputError(f"{option}: no such setting: {name}; the settings are {', '.join(kinds)}")
        (kind,) = {*(get_args(kinds[name]) or (kinds[name],))} - {NoneType}
        if type(value) is not kind or (kind is int and value < _LEAST[name]):
            least = f" of {_LEAST[name]} or more" if kind is int else ""
            raise InputError(f"{option}: {name}: {value!r} must be {'a text' if kind is str else 'a number'}{least}")
    missing = [each.name for each in dataclasses.fields(CpuTarget) if each.default is dataclasses.MISSING]
    missing = [name for name in missing if name not in values]
    if missing:
        raise InputError(f"{option}: states no {missing[0]}; add it")
    return values
