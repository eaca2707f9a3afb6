"""The MLflow store of a user: MLFLOW_TRACKING_URI or, by default, the file mlflow.db in the current folder."""

import logging
import os
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

from toolkit.utils.console import say, working
from toolkit.utils.locks import locked
from toolkit.utils.scratch import scratch_folder

DEFAULT_STORE = "sqlite:///mlflow.db"
_SQLITE = "sqlite:///"
_LOCK_S, _PROBE_S, _STORE_S, _END_S = 2, 3, 60, 5
"""Seconds to wait for a locked database, an answer of a server, a store that another command makes, ended processes."""
# Telemetry is off unless the user turns it on. Set before mlflow is imported, since the import starts it.
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
# Its progress bars would be lines of their own between those of hbt.
os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
# The defaults make a server that does not answer cost minutes.
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")


def store() -> str:
    """Return the URI of the MLflow store."""
    return os.environ.get("MLFLOW_TRACKING_URI") or DEFAULT_STORE


def serve(port: int) -> None:
    """Serve the MLflow UI for the store until interrupted, then end all of its processes."""
    say(f"{store()}: http://127.0.0.1:{port}/#{_page()}")
    environment = os.environ | {"MLFLOW_DISABLE_TELEMETRY": "true"}
    command = [sys.executable, "-m", "mlflow", "ui", "--backend-store-uri", store(), "--port", str(port)]
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # else nothing below would run
    server = subprocess.Popen(command, env=environment)
    try:
        sys.exit(server.wait())
    finally:
        _end(server.pid)


def _page() -> str:
    """Return the page of MLflow with the runs of the newest experiment, or with all experiments."""
    # Without the parameter, MLflow 3 opens on its GenAI pages, which do not show these runs.
    kind = "?workflowType=machine_learning"
    if store().startswith(_SQLITE) and (file := Path(store().removeprefix(_SQLITE).split("?")[0])).is_file():
        query = "SELECT experiment_id FROM runs ORDER BY start_time DESC LIMIT 1"
        with suppress(sqlite3.Error), closing(sqlite3.connect(file, timeout=_LOCK_S)) as database:
            for (experiment,) in database.execute(query):
                return f"/experiments/{experiment}/runs{kind}"
    return f"/experiments{kind}"


def _end(pid: int) -> None:
    """End a process and its descendants, which MLflow leaves behind."""
    import psutil

    with suppress(psutil.NoSuchProcess):
        family = [parent := psutil.Process(pid), *parent.children(recursive=True)]
        for process in family:
            with suppress(psutil.NoSuchProcess):
                process.terminate()
        for process in psutil.wait_procs(family, timeout=_END_S)[1]:
            with suppress(psutil.NoSuchProcess):
                process.kill()


def connected() -> Any:
    """Return a client of the store after checking in seconds that the store can be used. Raises: errors of any type."""
    for logger in ("mlflow", "alembic", "urllib3"):
        logging.getLogger(logger).setLevel(logging.ERROR)
    uri = store()
    if uri.startswith(_SQLITE):
        _check_database(Path(uri.removeprefix(_SQLITE).split("?")[0]))
    elif uri.startswith(("http://", "https://")):
        import requests

        requests.get(uri, timeout=(_PROBE_S, 10), stream=True).close()
    from mlflow import MlflowClient

    return MlflowClient(tracking_uri=uri)


def _check_database(file: Path) -> None:
    """Make the database of the store if there is none.

    Raises: an error if it is locked or not a store of MLflow. MLflow itself would retry for minutes.
    """
    if not file.exists() or (file.is_file() and file.stat().st_size == 0):
        with working(f"{file}: making the MLflow store"), locked(file, "try again", _STORE_S):
            if not file.exists() or file.stat().st_size == 0:
                _make_database(file)
    with closing(sqlite3.connect(file, timeout=_LOCK_S)) as database:
        database.execute("BEGIN IMMEDIATE")
        tables = {name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        database.rollback()
    if not {"alembic_version", "experiments", "runs", "metrics"} <= tables:
        raise ValueError("not a complete MLflow store; move the file away")


def _make_database(file: Path) -> None:
    """Make the database of a new store beside `file`, and move it there: its migrations take seconds, and it is
    useless if they are interrupted."""
    from mlflow import MlflowClient
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    with scratch_folder(file.absolute().parent) as folder:
        uri = f"{_SQLITE}{(folder / file.name).as_posix()}"
        MlflowClient(tracking_uri=uri).search_experiments()
        with suppress(AttributeError, KeyError):  # Windows does not move an open file
            SqlAlchemyStore._engine_map.pop(uri).dispose()
        (folder / file.name).replace(file)
