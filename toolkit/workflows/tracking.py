"""MLflow, and nothing else here knows MLflow.

One parent run a run folder, nested runs for stages and folds. The store is MLFLOW_TRACKING_URI, or the file
mlflow.db in the current folder.
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
# Nobody asked for that network traffic. It must be said before any import of mlflow, which starts it.
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")


@dataclass(frozen=True)
class Tracked:
    """One MLflow run."""

    run_id: str
    experiment_id: str

    def metrics(self, values: dict[str, float], step: int = 0) -> None:
        """Log figures; what is not a finite number is left out."""
        from mlflow.entities import Metric

        now = _now_ms()
        finite = {name: float(value) for name, value in values.items() if math.isfinite(value)}
        _client().log_batch(
            self.run_id, metrics=[Metric(_name(name), value, now, step) for name, value in finite.items()]
        )

    def parameters(self, values: dict[str, Any]) -> None:
        """Log settings. A value that is there already stays, as MLflow wants it: a resumed run has the same."""
        from mlflow.entities import Param

        there = _client().get_run(self.run_id).data.params
        new = {name: str(value) for name, value in values.items() if name not in there}
        _client().log_batch(self.run_id, params=[Param(_name(name), value) for name, value in new.items()])

    def artifact(self, path: Path, folder: str | None = None) -> None:
        """Log a file, or a folder with all that is in it."""
        log = _client().log_artifacts if path.is_dir() else _client().log_artifact
        log(self.run_id, str(path), folder)

    def corpus(self, corpus: Corpus, counts: dict[str, Any]) -> None:
        """Log the corpus as a dataset input: name, fingerprint, source and counts, no texts."""
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
        """The nested run of that name: the one that is there, or a new one."""
        found = _client().search_runs(
            [self.experiment_id], f"tags.mlflow.parentRunId = '{self.run_id}' and attributes.run_name = '{name}'"
        )
        if found:
            return Tracked(found[0].info.run_id, self.experiment_id)
        run = _client().create_run(self.experiment_id, tags={"mlflow.parentRunId": self.run_id}, run_name=name)
        return Tracked(run.info.run_id, self.experiment_id)

    def finish(self, status: str = "FINISHED") -> None:
        """Close the run as FINISHED, FAILED or KILLED."""
        _client().set_terminated(self.run_id, status)


@contextmanager
def tracked_run(folder: Path, settings: RunSettings) -> Iterator[Tracked]:
    """The MLflow run of a run folder; a resumed folder goes on with the run it had.

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
    """MLflow run id of a run folder, None if it was never tracked."""
    file = folder / _RUN_FILE
    return json.loads(file.read_text("utf-8"))["run_id"] if file.is_file() else None


def store() -> str:
    """Where runs are tracked."""
    return os.environ.get("MLFLOW_TRACKING_URI") or DEFAULT_STORE


def serve(port: int) -> None:
    """Run MLflow's pages on the store until interrupted."""
    # Without the parameter, MLflow 3 opens on pages for prompts and traces, where no run is to be seen.
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
                pass  # the store is another one now, or was emptied: track anew
        there = client.get_experiment_by_name(settings.experiment)
        experiment_id = there.experiment_id if there else client.create_experiment(settings.experiment)
        tags = {"mlflow.note.content": DESCRIPTIONS[settings.pipeline], "mlflow.user": settings.author}
        run = client.create_run(experiment_id, tags=tags, run_name=f"{settings.author}_{settings.pipeline}")
    except Exception as error:  # a store raises what its database or its network raises
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise InputError(f"MLFLOW_TRACKING_URI {store()}: cannot be used ({reason}); unset it or mend it") from error
    (folder / _RUN_FILE).write_text(json.dumps({"store": store(), "run_id": run.info.run_id}) + "\n", "utf-8")
    return Tracked(run.info.run_id, experiment_id)


def _client() -> Any:
    for logger in ("mlflow", "alembic"):
        logging.getLogger(logger).setLevel(logging.ERROR)
    from mlflow import MlflowClient

    return MlflowClient(tracking_uri=store())


def _name(text: str) -> str:
    """A name that MLflow takes: letters of any script, digits, '_', '-', '.', ' ', ':' and '/'."""
    return re.sub(r"[^\w\-. :/]", "_", text)


def _now_ms() -> int:
    return int(time.time() * 1000)
