"""Measurements that take long, one JSON line each: what is in the file already is not measured again."""

import json
from pathlib import Path
from typing import Any


def lines(file: Path) -> list[dict[str, Any]]:
    """What was measured, in the order in which it was."""
    return [json.loads(line) for line in file.read_text("utf-8").splitlines()] if file.is_file() else []


def is_there(file: Path, asked: dict[str, Any]) -> bool:
    """Whether a line has all of `asked`."""
    return any(asked.items() <= line.items() for line in lines(file))


def append(file: Path, line: dict[str, Any]) -> None:
    """Add a line, at once on the disk."""
    with file.open("a", encoding="utf-8") as out:
        out.write(json.dumps(line) + "\n")
