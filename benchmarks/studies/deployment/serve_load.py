"""Load on `hbt serve`: many connections, some of which send what is malformed, slow or too large, and a new package.

    python -m benchmarks.studies.deployment.serve_load PACKAGE FILE [--seconds 30] [--serve '--workers 2']

Clients and service share this machine. Of 50 connections, one sends bodies that are not JSON, one bodies that are too
large, and one sends half a body and waits; the others send texts of FILE, one a request, as fast as they are answered.
At half time, the folder of the package gets one with another manifest. A request of a good connection is lost if it
gets neither 200 nor 503 (too many wait). Prints JSON.
"""

import argparse
import asyncio
import json
import os
import random
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from toolkit.data.batches.layout import survey
from toolkit.data.batches.reading import first_texts
from toolkit.manifest import MANIFEST_FILE
from toolkit.utils.files import write_text
from toolkit.utils.machine import describe_machine

TEXTS = 2000
LARGE = b'{"text": "' + b"x" * 2**21 + b'"}'
OF = 50
"""One connection of so many is bad in each of the ways."""


@dataclass
class Found:
    """What the clients saw."""

    statuses: Counter[str] = field(default_factory=Counter)
    """Kind of connection and status, or the name of the error."""
    milliseconds: list[float] = field(default_factory=list)
    """Of requests answered with 200."""
    versions: Counter[str] = field(default_factory=Counter)


def main() -> None:
    """Run the study and print the figures."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("package", type=Path)
    parser.add_argument("file", type=Path)
    parser.add_argument("--seconds", type=float, default=30)
    parser.add_argument("--connections", type=int, default=1000)
    parser.add_argument("--serve", default="", help="options of hbt serve")
    given = parser.parse_args()
    texts = first_texts(survey(given.file), TEXTS)
    machine = describe_machine()
    with tempfile.TemporaryDirectory() as home:
        folder = Path(home) / "live"
        shutil.copytree(given.package, folder)
        command = [sys.executable, "-m", "hbt", "serve", str(folder), "--port", "0", *shlex.split(given.serve)]
        with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as service:
            assert service.stderr is not None
            line = service.stderr.readline()
            print(line, end="", file=sys.stderr)
            port = int(line.split(" with ")[0].rsplit(":", 1)[1])
            found, memory = asyncio.run(_load(port, texts, folder, service.pid, given))
            service.terminate()
            code = service.wait()
    good = {name: count for name, count in found.statuses.items() if name.startswith("good")}
    took = np.array(found.milliseconds or [float("nan")])
    shown = {
        "package": given.package.name,
        "options": given.serve,
        "connections": given.connections,
        "seconds": given.seconds,
        "answered_per_second": round(len(found.milliseconds) / given.seconds, 1),
        "p50_ms": round(float(np.percentile(took, 50)), 1),
        "p99_ms": round(float(np.percentile(took, 99)), 1),
        "requests_lost": sum(count for name, count in good.items() if name not in ("good 200", "good 503")),
        "statuses": dict(sorted(found.statuses.items())),
        "answers_by_version": dict(found.versions),
        "memory_start_mib": memory[0],
        "memory_peak_mib": max(memory),
        "exit_code": code,
        "machine": asdict(machine),
    }
    print(json.dumps(shown, indent=2))


async def _load(
    port: int, texts: list[str], folder: Path, pid: int, given: argparse.Namespace
) -> tuple[Found, list[float]]:
    found, end = Found(), time.monotonic() + given.seconds
    while True:  # until it answers
        try:
            if (await _ask(*await asyncio.open_connection("127.0.0.1", port), b'{"text": "a"}'))[0] == 200:
                break
        except OSError:
            await asyncio.sleep(0.1)
    memory = [memory_mib(pid)]
    end = time.monotonic() + given.seconds
    kinds = {0: _malformed, 1: _too_large, 2: _slow}
    clients = [kinds.get(number % OF, good_client)(port, texts, found, end) for number in range(given.connections)]

    async def watch() -> None:
        replaced = False
        while time.monotonic() < end:
            await asyncio.sleep(0.5)
            memory.append(memory_mib(pid))
            if not replaced and time.monotonic() > end - given.seconds / 2:
                replaced = True
                manifest = json.loads((folder / MANIFEST_FILE).read_text("utf-8"))
                manifest["lineage"]["run"] = "another"
                write_text(folder / MANIFEST_FILE, json.dumps(manifest))

    await asyncio.gather(watch(), *clients)
    return found, memory


def memory_mib(pid: int) -> float:
    process = psutil.Process(pid)
    total = 0
    for each in (process, *process.children(recursive=True)):
        try:
            total += each.memory_info().rss
        except psutil.Error:
            continue
    return round(total / 2**20, 1)


async def _ask(reader: Any, writer: Any, body: bytes, stated: int | None = None) -> tuple[int, bytes]:
    """Send a request and return status and body; `stated` is its length as the head gives it."""
    head = "POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    head += f"Content-Length: {stated or len(body)}\r\n\r\n"
    writer.write(head.encode() + body)
    await writer.drain()
    status = int((await reader.readuntil(b"\r\n")).split()[1])
    head_lines = (await reader.readuntil(b"\r\n\r\n")).lower()
    length = int(head_lines.split(b"content-length: ")[1].split(b"\r\n")[0])
    return status, await reader.readexactly(length)


async def _connected(
    kind: str, port: int, found: Found, end: float, body: Any, stated: int | None = None, pause: float = 0.0
) -> None:
    """Send requests until the end, on one connection as long as it lasts."""
    reader = writer = None
    while time.monotonic() < end:
        started = time.monotonic()
        try:
            if writer is None:
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
            status, answer = await asyncio.wait_for(_ask(reader, writer, body(), stated), 120)
            found.statuses[f"{kind} {status}"] += 1
            if kind == "good" and status == 200:
                found.milliseconds.append(1000 * (time.monotonic() - started))
                found.versions[json.loads(answer)["version"]] += 1
            if status == 503:
                await asyncio.sleep(1)  # as Retry-After asks
            if status in (408, 413):  # the service closes it
                writer.close()
                writer = None
        except (OSError, asyncio.IncompleteReadError, TimeoutError) as error:
            found.statuses[f"{kind} {type(error).__name__}"] += 1
            if writer is not None:
                writer.close()
            writer = None
        await asyncio.sleep(pause)
    if writer is not None:
        writer.close()


async def good_client(port: int, texts: list[str], found: Found, end: float) -> None:
    await _connected("good", port, found, end, lambda: json.dumps({"text": random.choice(texts)}).encode())


async def _malformed(port: int, texts: list[str], found: Found, end: float) -> None:
    await _connected("malformed", port, found, end, lambda: os.urandom(100), pause=0.2)


async def _too_large(port: int, texts: list[str], found: Found, end: float) -> None:
    await _connected("too large", port, found, end, lambda: LARGE, pause=0.2)


async def _slow(port: int, texts: list[str], found: Found, end: float) -> None:
    await _connected("slow", port, found, end, lambda: b'{"text": ', stated=1000)


if __name__ == "__main__":
    main()
