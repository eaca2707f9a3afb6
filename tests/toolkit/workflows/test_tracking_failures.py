"""Tracking never ends, damages or blocks a run, and `hbt sync` makes up for what is missing."""

import json
import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient

from tests.helpers import Hbt
from toolkit.config.settings import RunSettings
from toolkit.tracking import mlflow_runs as tracking
from toolkit.utils.tracking_queue import QUEUE_FILE, TrackingQueue

RUN = RunSettings(author="tester", experiment="experiment")


def history(folder: Path, store: Path, name: str) -> list[tuple[int, float]]:
    client = MlflowClient(f"sqlite:///{store}")
    points = client.get_metric_history(tracking.run_of(folder) or "", name)
    return [(point.step, point.value) for point in points]


def a_run(folder: Path) -> None:
    with tracking.tracked_run(folder, RUN) as tracked:
        for step in (1, 2):
            tracked.child("fold-1").metrics({"val_loss": 0.5}, step)
            tracked.metrics({"loss": 0.5 / step}, step)
            tracked.send()


def warnings_of(capsys: pytest.CaptureFixture[str]) -> list[str]:
    return [line for line in capsys.readouterr().err.splitlines() if line.startswith("warning")]


@pytest.fixture
def busy_server(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A server that answers the first request and fails from then on."""

    class Handler(BaseHTTPRequestHandler):
        count = 0

        def do_GET(self) -> None:
            Handler.count += 1
            self.send_response(200 if Handler.count == 1 else 500)
            self.end_headers()

        do_POST = do_GET

        def log_message(self, *_: Any) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{server.server_port}")
    yield Handler
    server.shutdown()


def test_a_dead_server_is_asked_once(
    workplace: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    store = os.environ["MLFLOW_TRACKING_URI"]
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{port}")
    asked: list[Any] = []
    connect = tracking.connected
    monkeypatch.setattr(tracking, "connected", lambda: asked.append(1) or connect())
    a_run(workplace)
    assert len(asked) == len(warnings_of(capsys)) == 1
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store)
    tracking.send_all(tracking.open_run(workplace, RUN), True)
    assert history(workplace, workplace / "mlflow.db", "loss") == [(1, 0.5), (2, 0.25)]


def test_a_server_that_fails_is_asked_a_few_times(
    workplace: Path, busy_server: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    a_run(workplace)
    assert len(warnings_of(capsys)) == 1
    assert busy_server.count <= 4


def test_a_locked_store_is_one_warning(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with sqlite3.connect(workplace / "mlflow.db") as other:
        other.execute("BEGIN EXCLUSIVE")
        a_run(workplace)
    assert "locked" in "".join(warnings_of(capsys))
    tracking.send_all(tracking.open_run(workplace, RUN), True)
    assert history(workplace, workplace / "mlflow.db", "loss") == [(1, 0.5), (2, 0.25)]


def test_a_deleted_store_is_filled_again(workplace: Path, empty_store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    a_run(workplace)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{workplace}/other.db")  # MLflow keeps connections open
    state = json.loads((workplace / "mlflow.json").read_text())
    (workplace / "mlflow.json").write_text(json.dumps(state | {"store": tracking.store()}))
    shutil.copy(empty_store, workplace / "other.db")
    tracking.send_all(tracking.open_run(workplace, RUN), True)
    assert history(workplace, workplace / "other.db", "loss") == [(1, 0.5), (2, 0.25)]


@pytest.mark.parametrize("lost", ["the ids", "how much was sent"])
def test_what_is_sent_twice_is_there_once(workplace: Path, lost: str) -> None:
    a_run(workplace)
    run_id = tracking.run_of(workplace)
    file = workplace / "mlflow.json"
    if lost == "the ids":
        file.write_text("{")
    else:
        file.write_text(json.dumps(json.loads(file.read_text()) | {"sent": 0, "nested": {}}))
    for _ in range(2):
        tracking.send_all(tracking.open_run(workplace, RUN), True)
    assert tracking.run_of(workplace) == run_id
    assert history(workplace, workplace / "mlflow.db", "loss") == [(1, 0.5), (2, 0.25)]
    client = MlflowClient(f"sqlite:///{workplace}/mlflow.db")
    experiment = client.get_experiment_by_name("experiment")
    assert len(client.search_runs([experiment.experiment_id])) == 2


def test_names_that_mlflow_does_not_accept_are_logged_under_others(
    workplace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = [
        "f1_km/h/",
        "f1_a//b",
        "../x",
        "f1_" + "n" * 300,
        "f1_" + "n" * 301,
        "f1_a|b",
        "f1_\u09ad\u09be\u09b2\u09cb",
    ]
    with tracking.tracked_run(workplace, RUN) as tracked:
        tracked.metrics(dict.fromkeys(names, 0.5))
        tracked.parameters({"label_names": "n" * 9000})
    assert warnings_of(capsys) == []
    data = MlflowClient(f"sqlite:///{workplace}/mlflow.db").get_run(tracked.run_id).data
    assert len(data.metrics) == len(names)
    assert len(data.params["label_names"]) == 6000


def test_a_line_that_was_half_written_is_written_again(workplace: Path) -> None:
    a_run(workplace)
    lines = (workplace / QUEUE_FILE).read_bytes()
    (workplace / QUEUE_FILE).write_bytes(lines + b'{"run": null, "metr')
    queue = TrackingQueue.open(workplace)
    queue.add({"run": None, "metrics": {"late": 1.0}, "step": 0})
    assert [line.get("metrics") for line in TrackingQueue.open(workplace).lines] == [
        line.get("metrics") for line in queue.lines
    ]
    assert queue.last(metrics={"late": 1.0}) is not None


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_a_new_store_is_whole_or_not_there(tmp_path: Path, number: int) -> None:
    start = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # a background job ignores it
    start += "from pathlib import Path; from toolkit.tracking import mlflow_runs as tracking; "
    start += "from toolkit.config.settings import RunSettings\n"
    stop = "import mlflow.store.db.utils as db, os\n"
    stop += "def half(engine):\n"
    stop += f"    db.InitialBase.metadata.create_all(engine); os.kill(os.getpid(), {int(number)})\n"
    stop += "db._initialize_tables = half\n"
    end = "with tracking.tracked_run(Path('.'), RunSettings()): pass\n"

    def process(code: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", code]
        return subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)

    environment = {name: value for name, value in os.environ.items() if name != "MLFLOW_TRACKING_URI"}
    done = process(start + stop + end)
    assert done.returncode != 0
    assert not (tmp_path / "mlflow.db").exists(), done.stderr
    done = process(start + end)
    assert done.returncode == 0, done.stderr
    assert "warning" not in done.stderr
    assert {path.name for path in tmp_path.iterdir()} == {"mlflow.db", "mlflow.json", QUEUE_FILE}


def test_sync_logs_a_run_and_twice_is_the_same_as_once(copied: Path, hbt: Hbt) -> None:
    client = MlflowClient(os.environ["MLFLOW_TRACKING_URI"])
    run_id = tracking.run_of(copied / "runs" / "tiny") or ""
    before = client.get_run(run_id)
    assert before.data.metrics
    assert hbt("sync", "runs/tiny") == 0
    assert client.get_run(run_id).data.metrics == before.data.metrics
    (copied / "runs" / "tiny" / QUEUE_FILE).unlink()  # as of a run that was made without tracking
    (copied / "runs" / "tiny" / "mlflow.json").unlink()
    assert hbt("sync", "runs/tiny") == 0
    again = client.get_run(tracking.run_of(copied / "runs" / "tiny") or "")
    assert again.info.run_id != run_id
    epochs = {name for name in before.data.metrics if "_epoch_" in name}
    assert again.data.metrics.keys() >= before.data.metrics.keys() - epochs
    queue = (copied / "runs" / "tiny" / QUEUE_FILE).read_bytes()
    assert hbt("sync", "runs/tiny") == 0
    assert (copied / "runs" / "tiny" / QUEUE_FILE).read_bytes() == queue


@pytest.mark.parametrize("folder", ["nowhere", "models"])
def test_sync_of_a_folder_that_is_not_a_run_is_one_line(
    copied: Path, hbt: Hbt, capsys: pytest.CaptureFixture[str], folder: str
) -> None:
    assert hbt("sync", folder) == 2
    assert capsys.readouterr().err.startswith(f"hbt: {folder}: not a run folder")
