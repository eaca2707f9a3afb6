"""`hbt ui`: the page that it opens on, and the processes that it ends."""

import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import psutil
import pytest

from toolkit.tracking import mlflow_store

PARENT = "import subprocess, sys; c = subprocess.Popen([sys.executable, '-c', 'input()'], stdin=subprocess.PIPE); print(c.pid, flush=True); c.wait()"  # noqa: E501


def test_it_opens_on_the_runs_of_the_newest_experiment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'mlflow.db'}")
    assert mlflow_store._page() == "/experiments?workflowType=machine_learning"
    with closing(sqlite3.connect(tmp_path / "mlflow.db")) as database:
        database.execute("CREATE TABLE runs (experiment_id INTEGER, start_time INTEGER)")
        database.executemany("INSERT INTO runs VALUES (?, ?)", [(1, 10), (3, 30), (2, 20)])
        database.commit()
    assert mlflow_store._page() == "/experiments/3/runs?workflowType=machine_learning"


def test_the_processes_of_the_server_end_with_it() -> None:
    with subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        child = psutil.Process(int(server.stdout.readline()))
        mlflow_store._end(server.pid)
        assert not psutil.pid_exists(server.pid)
        assert not child.is_running() or child.status() == psutil.STATUS_ZOMBIE
