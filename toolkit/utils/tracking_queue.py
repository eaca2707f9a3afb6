"""What a run has to log, as lines on disk: written before anything is sent, so that tracking can be made up for later.

A line is never changed. A line that was half written when the process was killed is skipped, and written again when
the run is resumed.
"""

import json
import time
import uuid
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

QUEUE_FILE = "tracking.jsonl"
Line = dict[str, Any]


@dataclass
class TrackingQueue:
    """The lines of one run folder."""

    folder: Path
    lines: list[Line]
    recent: set[str] = field(default_factory=set)
    """Content of the lines since the last finished part, which are not added twice."""

    @staticmethod
    def open(folder: Path) -> "TrackingQueue":
        """Return the queue of a run folder; its first line gives the run an id of its own."""
        queue = TrackingQueue(folder, [])
        for line in _lines(folder / QUEUE_FILE):
            queue._remember(line)
        if not queue.lines:
            queue.add({"id": uuid.uuid4().hex})
        return queue

    @property
    def id(self) -> str:
        """Id of the run, given by hbt; the tracking server has another one."""
        return str(self.lines[0].get("id", ""))

    def add(self, line: Line, repeat: bool = False) -> None:
        """Add a line unless it was added since the last finished part. repeat: add it in any case."""
        if not repeat and _content(line) in self.recent:
            return
        line = line | {"time_ms": int(time.time() * 1000)}
        file = self.folder / QUEUE_FILE
        with file.open("ab+") as out:
            size = out.seek(0, 2)
            if size:
                out.seek(size - 1)
            torn = bool(size) and out.read(1) != b"\n"
            out.write(b"\n" * torn + json.dumps(line).encode() + b"\n")
        self._remember(line)

    def last(self, **wanted: Any) -> Line | None:
        """Return the last line with these values; None if there is none."""
        found = (line for line in reversed(self.lines) if all(line.get(key) == value for key, value in wanted.items()))
        return next(found, None)

    def is_finished(self, part: str) -> bool:
        """Return whether all lines of a part, such as a stage, were added."""
        return self.last(finished=part) is not None

    def finish(self, part: str) -> None:
        """Record that all lines of a part were added."""
        self.add({"finished": part}, repeat=True)

    def _remember(self, line: Line) -> None:
        self.lines.append(line)
        if "finished" in line:
            self.recent.clear()
        self.recent.add(_content(line))


def id_of(folder: Path) -> str | None:
    """Return the id that hbt gave to the run in a folder; None if it has none yet."""
    lines = _lines(folder / QUEUE_FILE)
    return str(lines[0].get("id", "")) or None if lines else None


def _lines(file: Path) -> list[Line]:
    try:
        content = file.read_bytes()
    except FileNotFoundError:
        return []
    found = []
    for line in content.split(b"\n"):
        try:
            found.append(json.loads(line))
        except (ValueError, RecursionError):
            continue
    return [line for line in found if isinstance(line, dict)]


def _content(line: Line) -> str:
    return json.dumps({key: value for key, value in line.items() if key != "time_ms"}, sort_keys=True)
