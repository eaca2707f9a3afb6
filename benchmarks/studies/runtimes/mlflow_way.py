"""Score texts with `mlflow models serve`, one request a text: python mlflow_way.py PACKAGE TEXTS.json OUT.json"""

import json
import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from importlib.metadata import version
from pathlib import Path

from toolkit.tracking.packaged_model import save_model

TIMEOUT_S = 120


def main() -> None:
    package, texts_file, out = map(Path, sys.argv[1:])
    texts = json.loads(texts_file.read_text("utf-8"))
    labels = json.loads((package / "config.json").read_text("utf-8"))["id2label"]
    columns = [f"probability {labels[str(i)]}" for i in range(len(labels))]
    with tempfile.TemporaryDirectory(prefix="hbt-serve-") as scratch:
        save_model(package, Path(scratch) / "model")
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        command = [
            sys.executable,
            "-m",
            "mlflow",
            "models",
            "serve",
            "-m",
            f"{scratch}/model",
            "--env-manager",
            "local",
        ]
        environment = os.environ | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
        words = [*command, "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
        with subprocess.Popen(words, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as server:
            try:
                answer(f"http://127.0.0.1:{port}", texts[0])
                first = time.time()
                probabilities, ms = [], []
                for text in texts:
                    start = time.perf_counter()
                    (found,) = answer(f"http://127.0.0.1:{port}", text)
                    ms.append(1000 * (time.perf_counter() - start))
                    probabilities.append([found[column] for column in columns])
            finally:
                server.terminate()
    record = {"version": f"mlflow {version('mlflow')}", "first": first, "probabilities": probabilities, "ms": ms}
    out.write_text(json.dumps(record), "utf-8")


def answer(address: str, text: str) -> list[dict[str, float]]:
    """Return the prediction for a text; wait for a server that is starting."""
    request = urllib.request.Request(
        f"{address}/invocations", json.dumps({"dataframe_records": [{"text": text}]}).encode()
    )
    request.add_header("Content-Type", "application/json")
    stop = time.monotonic() + TIMEOUT_S
    while True:
        try:
            with urllib.request.urlopen(request, timeout=60) as found:
                return json.loads(found.read())["predictions"]
        except ConnectionError:
            raise
        except OSError:
            if time.monotonic() > stop:
                raise
            time.sleep(0.1)


if __name__ == "__main__":
    main()
