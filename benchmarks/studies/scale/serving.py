"""Requests per second of `hbt serve` beside a plain FastAPI service with a pipeline of transformers, in one run.

    python -m benchmarks.studies.scale.serving PACKAGE FILE --plain MODEL [--seconds 30] [--connections 64]

Both have one worker, and get texts of FILE, one a request, over as many connections, which send the next text when the
last one is answered. --plain is a folder or hub id in the form of Hugging Face, whose head may be untrained. Its Python
needs FastAPI and uvicorn (--plain-python). Prints a table and adds a line of JSON for each to --out,
benchmarks/results/serve.jsonl. A 503 of `hbt serve` is a refusal, which is counted apart.
"""

import argparse
import asyncio
import json
import os
import socket
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.studies.deployment.serve_load import Found, good_client, memory_mib
from toolkit.data.batches.layout import survey
from toolkit.data.batches.reading import first_texts
from toolkit.utils.console import print_table
from toolkit.utils.machine import describe_machine

TEXTS = 2000


def main() -> None:
    """Run the study, print a table and append the figures to a file."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("package", type=Path)
    parser.add_argument("file", type=Path)
    parser.add_argument("--plain", required=True)
    parser.add_argument("--plain-python", default=sys.executable)
    parser.add_argument("--seconds", type=float, default=30)
    parser.add_argument("--connections", type=int, default=64)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/serve.jsonl"))
    given = parser.parse_args()
    texts = first_texts(survey(given.file), TEXTS)
    waiting = str(max(64, given.connections))
    ours = [sys.executable, "-m", "hbt", "serve", str(given.package), "--max-requests", waiting, "--port", "PORT"]
    plain = [given.plain_python, "-m", "uvicorn", "benchmarks.studies.scale.plain_service:app", "--log-level", "error"]
    plain += ["--port", "PORT"]
    ways = {"hbt serve": (ours, given.package.name), "FastAPI and a pipeline": (plain, Path(given.plain).name)}
    lines = [_measured(way, model, command, texts, given) for way, (command, model) in ways.items()]
    machine = asdict(describe_machine())
    with given.out.open("a", encoding="utf-8") as out:
        out.writelines(json.dumps(line | {"machine": machine}) + "\n" for line in lines)
    headings = ("way", "model", "rows_per_second", "p50_ms", "p99_ms", "memory_peak_mib")
    title = f"{given.connections} connections for {given.seconds:g} s"
    print_table([{name: str(line[name]) for name in headings} for line in lines], title, left=headings[:2])


def _measured(way: str, model: str, command: list[str], texts: list[str], given: argparse.Namespace) -> dict[str, Any]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    settings = os.environ | {"MODEL": given.plain, "THREADS": "1", "OMP_NUM_THREADS": "1"}
    words = [str(port) if word == "PORT" else word for word in command]
    with subprocess.Popen(words, env=settings, stderr=subprocess.DEVNULL) as service:
        try:
            found, memory = asyncio.run(_load(port, service, texts, given))
        finally:
            service.terminate()
    took = np.array(found.milliseconds or [float("nan")])
    return {
        "way": way,
        "model": model,
        "serves": True,
        "processes": 1,
        "rows_per_second": round(len(took) / given.seconds, 1),
        "p50_ms": round(float(np.percentile(took, 50)), 1),
        "p99_ms": round(float(np.percentile(took, 99)), 1),
        "statuses": dict(found.statuses),
        "memory_peak_mib": memory,
        "connections": given.connections,
        "seconds": given.seconds,
        "load_1_min": round(os.getloadavg()[0], 1),
    }


async def _load(
    port: int, service: "subprocess.Popen[bytes]", texts: list[str], given: argparse.Namespace
) -> tuple[Found, float]:
    ready = Found()
    while not ready.milliseconds:  # a client stops at its first answer, since its end is now
        assert service.poll() is None, "the service has ended"
        await asyncio.sleep(0.5)
        await good_client(port, texts, ready, time.monotonic() + 0.01)
        refused = [name for name in ready.statuses if name.startswith("good 4")]
        assert not refused, f"the service answers {refused}, not 200"
    found, end, peak = Found(), time.monotonic() + given.seconds, 0.0

    async def watch() -> None:
        nonlocal peak
        while time.monotonic() < end:
            peak = max(peak, memory_mib(service.pid))
            await asyncio.sleep(0.5)

    await asyncio.gather(watch(), *(good_client(port, texts, found, end) for _ in range(given.connections)))
    return found, peak


if __name__ == "__main__":
    main()
