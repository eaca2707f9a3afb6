"""A log of slow measurements, one JSON line each, so that finished ones are not repeated."""

import json
from pathlib import Path
from typing import Any


def lines(file: Path) -> list[dict[str, Any]]:
    """Return the logged measurements in order; an empty list if there is no file."""
    return [json.loads(line) for line in file.read_text("utf-8").splitlines()] if file.is_file() else []


def contains(file: Path, key: dict[str, Any]) -> bool:
    """Return whether a line has all items of `key`."""
    return any(key.items() <= line.items() for line in lines(file))


def append(file: Path, line: dict[str, Any]) -> None:
    """Append a line to the file."""
    with file.open("a", encoding="utf-8") as out:
        out.write(json.dumps(line) + "\n")
