"""Score texts with `mlflow models serve`, one request a text: python mlflow_way.py PACKAGE TEXTS.json OUT.json"""

import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import requests
from requests.adapters import HTTPAdapter
from urllib3 import Retry

from toolkit.tracking.packaged_model import save_model

ATTEMPTS = 100
"""To reach a server that is starting, about a second apart."""


def main() -> None:
    package, texts_file, out = map(Path, sys.argv[1:])
    texts = json.loads(texts_file.read_text("utf-8"))
    labels = json.loads((package / "config.json").read_text("utf-8"))["id2label"]
    columns = [f"probability {labels[str(i)]}" for i in range(len(labels))]
    with tempfile.TemporaryDirectory(prefix="hbt-serve-") as scratch:
        save_model(package, Path(scratch) / "model")
        with served(Path(scratch) / "model") as address:
            answer(address, texts[:1])
            first = time.time()
            probabilities, ms = [], []
            for text in texts:
                start = time.perf_counter()
                (found,) = answer(address, [text])
                ms.append(1000 * (time.perf_counter() - start))
                probabilities.append([found[column] for column in columns])
    record = {"version": f"mlflow {version('mlflow')}", "first": first, "probabilities": probabilities, "ms": ms}
    out.write_text(json.dumps(record), "utf-8")


@contextmanager
def served(model: Path) -> Iterator[str]:
    """Run `mlflow models serve` for a model folder and yield its address, once it answers."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    words = ["models", "serve", "-m", str(model), "--env-manager", "local", "--workers", "1"]
    command = [sys.executable, "-m", "mlflow", *words, "--host", "127.0.0.1", "--port", str(port)]
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    with subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as server:
        try:
            address = f"http://127.0.0.1:{port}"
            with requests.Session() as session:
                patience = Retry(ATTEMPTS, backoff_factor=0.1, backoff_max=1)
                session.mount(address, HTTPAdapter(max_retries=patience))
                session.get(f"{address}/ping", timeout=60).raise_for_status()
            yield address
        finally:
            server.terminate()


def answer(address: str, texts: Sequence[str]) -> list[dict[str, Any]]:
    """Return the predictions of a server for texts."""
    record = {"dataframe_records": [{"text": text} for text in texts]}
    found = requests.post(f"{address}/invocations", json=record, timeout=60)
    found.raise_for_status()
    return found.json()["predictions"]


if __name__ == "__main__":
    main()
