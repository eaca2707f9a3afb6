"""Experiment tracking with MLflow; the only module that imports it.

Each run folder has one parent run, with nested runs for stages and folds. The store is MLFLOW_TRACKING_URI or, by
default, the file mlflow.db in the current folder.
"""

import json
import logging
import math
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from toolkit.config.recipe import DESCRIPTIONS
from toolkit.config.settings import RunSettings
from toolkit.data.corpus import Corpus
from toolkit.utils.console import say
from toolkit.utils.errors import InputError

DEFAULT_STORE = "sqlite:///mlflow.db"
_RUN_FILE = "mlflow.json"
# Telemetry is off unless the user turns it on. Set before mlflow is imported, since the import starts it.
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")


@dataclass(frozen=True)
class Tracked:
    """One MLflow run."""

    run_id: str
    experiment_id: str

    def metrics(self, values: dict[str, float], step: int = 0) -> None:
        """Log metrics, skipping values that are not finite."""
        from mlflow.entities import Metric

        now = _now_ms()
        finite = {name: float(value) for name, value in values.items() if math.isfinite(value)}
        _client().log_batch(
            self.run_id, metrics=[Metric(_name(name), value, now, step) for name, value in finite.items()]
        )

    def parameters(self, values: dict[str, Any]) -> None:
        """Log parameters, skipping names that are already logged: MLflow does not allow a parameter to change."""
        from mlflow.entities import Param

        logged = _client().get_run(self.run_id).data.params
        new = {name: str(value) for name, value in values.items() if name not in logged}
        _client().log_batch(self.run_id, params=[Param(_name(name), value) for name, value in new.items()])

    def artifact(self, path: Path, folder: str | None = None) -> None:
        """Log a file, or a folder with all its contents."""
        log = _client().log_artifacts if path.is_dir() else _client().log_artifact
        log(self.run_id, str(path), folder)

    def corpus(self, corpus: Corpus, counts: dict[str, Any]) -> None:
        """Log the corpus as a dataset input: name, fingerprint, source and counts, but no texts."""
        from mlflow.entities import Dataset, DatasetInput, InputTag

        dataset = Dataset(
            name=corpus.name,
            digest=corpus.fingerprint[:36],
            source_type="local",
            source=json.dumps({"uri": corpus.settings.data}),
            profile=json.dumps({"rows": len(corpus.texts), "splits": counts}),
        )
        _client().log_inputs(self.run_id, [DatasetInput(dataset, [InputTag("mlflow.data.context", "training")])])

    def child(self, name: str) -> "Tracked":
        """Return the nested run of that name; create it if there is none."""
        found = _client().search_runs(
            [self.experiment_id], f"tags.mlflow.parentRunId = '{self.run_id}' and attributes.run_name = '{name}'"
        )
        if found:
            return Tracked(found[0].info.run_id, self.experiment_id)
        run = _client().create_run(self.experiment_id, tags={"mlflow.parentRunId": self.run_id}, run_name=name)
        return Tracked(run.info.run_id, self.experiment_id)

    def finish(self, status: str = "FINISHED") -> None:
        """End the run with status FINISHED, FAILED or KILLED."""
        _client().set_terminated(self.run_id, status)


@contextmanager
def tracked_run(folder: Path, settings: RunSettings) -> Iterator[Tracked]:
    """Open the MLflow run of a run folder and end it with the block; a resumed folder reuses its MLflow run.

    Raises: InputError if the store cannot be used.
    """
    tracked = _open(folder, settings)
    try:
        yield tracked
    except KeyboardInterrupt:
        tracked.finish("KILLED")
        raise
    except BaseException:
        tracked.finish("FAILED")
        raise
    tracked.finish()


def run_of(folder: Path) -> str | None:
    """Return the MLflow run id of a run folder; None if it was never tracked."""
    file = folder / _RUN_FILE
    return json.loads(file.read_text("utf-8"))["run_id"] if file.is_file() else None


def store() -> str:
    """Return the URI of the MLflow store."""
    return os.environ.get("MLFLOW_TRACKING_URI") or DEFAULT_STORE


def serve(port: int) -> None:
    """Serve the MLflow UI for the store until interrupted."""
    # Without the parameter, MLflow 3 opens on its GenAI pages, which do not show these runs.
    say(f"{store()}: http://127.0.0.1:{port}/#/experiments?workflowType=machine_learning")
    environment = os.environ | {"MLFLOW_DISABLE_TELEMETRY": "true"}
    command = [sys.executable, "-m", "mlflow", "ui", "--backend-store-uri", store(), "--port", str(port)]
    sys.exit(subprocess.run(command, env=environment).returncode)


def _open(folder: Path, settings: RunSettings) -> Tracked:
    from mlflow.exceptions import MlflowException

    try:
        client = _client()
        known = run_of(folder)
        if known is not None:
            try:
                run = client.get_run(known)
                client.update_run(known, status="RUNNING")
                return Tracked(known, run.info.experiment_id)
            except MlflowException:
                pass  # another or emptied store: create a new run
        experiment = client.get_experiment_by_name(settings.experiment)
        experiment_id = experiment.experiment_id if experiment else client.create_experiment(settings.experiment)
        tags = {"mlflow.note.content": DESCRIPTIONS[settings.pipeline], "mlflow.user": settings.author}
        run = client.create_run(experiment_id, tags=tags, run_name=f"{settings.author}_{settings.pipeline}")
    except Exception as error:  # errors of the database driver or the network
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise InputError(f"MLFLOW_TRACKING_URI {store()}: cannot be used ({reason}); fix or unset it") from error
    (folder / _RUN_FILE).write_text(json.dumps({"store": store(), "run_id": run.info.run_id}) + "\n", "utf-8")
    return Tracked(run.info.run_id, experiment_id)


def _client() -> Any:
    for logger in ("mlflow", "alembic"):
        logging.getLogger(logger).setLevel(logging.ERROR)
    from mlflow import MlflowClient

    return MlflowClient(tracking_uri=store())


def _name(text: str) -> str:
    """Return a name that MLflow accepts: letters of any script, digits, '_', '-', '.', ' ', ':' and '/'."""
    return re.sub(r"[^\w\-. :/]", "_", text)


def _now_ms() -> int:
    return int(time.time() * 1000)
