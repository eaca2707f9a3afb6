"""`--describe`: what a package is for and what its labels mean, for the card."""

import tomllib
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from toolkit.utils.errors import InputError

PURPOSE, LABELS = "purpose", "labels"
LONGEST = 1_000
"""Characters of a description."""
EXAMPLE = f'{PURPOSE} = "…", then a table [{LABELS}] with a line such as hate = "…" for each label'


def read_description(file: str) -> dict[str, Any]:
    """Return purpose and labels in a TOML file, before the labels of the corpus are known.

    Raises: InputError if it cannot be read, or has anything else.
    """
    option = f"--describe {file}"
    try:
        found = tomllib.loads(Path(file).read_text("utf-8"))
    except FileNotFoundError:
        raise InputError(f"{option}: no such file; give a TOML file with {EXAMPLE}") from None
    except RecursionError:
        raise InputError(f"{option}: nested too deep; write {EXAMPLE}") from None
    except (OSError, ValueError) as error:  # a ValueError: not TOML, or not UTF-8
        raise InputError(f"{option}: not readable as TOML ({error}); write {EXAMPLE}") from None
    for key in found:
        if key not in (PURPOSE, LABELS):
            raise InputError(f"{option}: no such key {key!r}; write {EXAMPLE}")
    labels = found.get(LABELS, {})
    if not isinstance(labels, dict):
        raise InputError(f"{option}: {LABELS} is not a table; write {EXAMPLE}")
    if not found.get(PURPOSE) and not labels:
        raise InputError(f"{option}: neither purpose nor labels; write {EXAMPLE}")
    _refuse_other(option, PURPOSE, found.get(PURPOSE, ""))
    for name, meaning in labels.items():
        _refuse_other(option, f"[{LABELS}] {name}", meaning)
    return {PURPOSE: found.get(PURPOSE, ""), LABELS: labels}


def described(file: str, labels: tuple[str, ...]) -> dict[str, Any]:
    """Return purpose, "" if there is none, and the meanings of those labels that are described, in their order.

    Raises: InputError as `read_description`, and for a label that the corpus does not have.
    """
    found = read_description(file)
    for name in found[LABELS]:
        if name not in labels:
            near = get_close_matches(name, labels, 1)
            fix = f"did you mean {near[0]!r}?" if near else f"the labels are {', '.join(labels)}"
            raise InputError(f"--describe {file}: no label {name!r}; {fix}")
    return {PURPOSE: found[PURPOSE], LABELS: {name: found[LABELS][name] for name in labels if name in found[LABELS]}}


def _refuse_other(option: str, where: str, value: Any) -> None:
    """Raise InputError unless `value` is a text of at most LONGEST characters."""
    if not isinstance(value, str):
        raise InputError(f"{option}: {where} is {type(value).__name__}, not a text; put it in quotes")
    if len(value) > LONGEST:
        raise InputError(f"{option}: {where} has {len(value):,} characters; give at most {LONGEST:,}")
