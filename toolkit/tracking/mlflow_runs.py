"""Experiment tracking with MLflow.

Each run folder has one parent run, with nested runs for stages and folds.

Whatever is logged goes into the queue of the run folder first and is sent from there. If the store fails, the run goes
on without it, and `hbt sync` sends the rest later. Every line has the time at which it was added, so that MLflow
recognizes what it gets twice.
"""

import hashlib
import json
import math
import posixpath
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from toolkit.config.recipe import DESCRIPTIONS
from toolkit.config.settings import RunSettings
from toolkit.data.corpus import Corpus
from toolkit.tracking.mlflow_store import connected, store
from toolkit.tracking.packaged_model import log_package
from toolkit.utils.console import say
from toolkit.utils.errors import InputError, NothingPasses, reason_of
from toolkit.utils.files import content_sha256, read_json, write_text
from toolkit.utils.tracking_queue import Line, TrackingQueue

_STATE_FILE = "mlflow.json"
"""Ids of the MLflow runs of a run folder, and how many lines of its queue they have."""
_RUN_TAG = "hbt.run"
_LONGEST_NAME, _LONGEST_VALUE, _METRICS_PER_CALL = 250, 6000, 1000
"""Limits of MLflow."""


@dataclass
class _Store:
    """The connection of this process to the MLflow store."""

    settings: RunSettings
    client: Any = None
    paused: bool = False
    """Whether nothing is sent: after a failure, or before `send_all`."""


@dataclass(frozen=True)
class Tracked:
    """The MLflow run of a run folder, or one of its nested runs."""

    queue: TrackingQueue
    store: _Store
    nested: str | None = None
    """Name of the nested run."""

    @property
    def run_id(self) -> str | None:
        """Id of the parent run in MLflow; None while it is not known there."""
        return run_of(self.queue.folder)

    def metrics(self, values: dict[str, float], step: int = 0) -> None:
        """Log metrics, skipping values that are not finite."""
        finite = {name: float(value) for name, value in values.items() if math.isfinite(value)}
        self.queue.add({"run": self.nested, "metrics": finite, "step": step})

    def parameters(self, values: dict[str, Any]) -> None:
        """Log parameters, skipping names that are already logged: MLflow does not allow a parameter to change."""
        line = {"run": self.nested, "parameters": {name: str(value) for name, value in values.items()}}
        if self.queue.last(**line) is None:
            self.queue.add(line)

    def artifact(self, path: Path, folder: str | None = None) -> None:
        """Log a file, or a folder with all its contents, unless it was logged with the same content."""
        inside = path.is_relative_to(self.queue.folder)
        shown = path.relative_to(self.queue.folder) if inside else path
        line = {"run": self.nested, "artifact": shown.as_posix(), "inside": inside, "folder": folder}
        known, found = self.queue.last(**line), content_sha256(path)
        if known is None or known["sha256"] != found:
            self.queue.add(line | {"sha256": found}, repeat=True)

    def model(self, package: Path, register: str | None) -> None:
        """Log a package as a model, unless it was logged with the same content.

        register: name of the registered model that gets a new version.
        """
        line = {"run": self.nested, "model": package.as_posix(), "register": register}
        known, found = self.queue.last(**line), content_sha256(package)
        if known is None or known["sha256"] != found:
            self.queue.add(line | {"sha256": found}, repeat=True)

    def corpus(self, corpus: Corpus, counts: dict[str, Any]) -> None:
        """Log the corpus as a dataset input: name, fingerprint, source and counts, but no texts."""
        dataset = {
            "name": corpus.name,
            "digest": corpus.fingerprint[:36],
            "source_type": "local",
            "source": json.dumps({"uri": corpus.settings.data}),
            "profile": json.dumps({"rows": len(corpus.texts), "splits": counts}),
        }
        self.queue.add({"run": self.nested, "dataset": dataset})

    def child(self, name: str) -> "Tracked":
        """Return the nested run of that name; it is created if there is none."""
        if self.queue.last(run=name) is None:
            self.queue.add({"run": name})
        return replace(self, nested=name)

    def finish(self, status: str = "FINISHED") -> None:
        """Set the status of the run: RUNNING, or how it ended, FINISHED, FAILED or KILLED."""
        self.queue.add({"run": self.nested, "status": status}, repeat=self.nested is None)

    @contextmanager
    def part(self, name: str) -> Iterator[bool]:
        """Yield whether a part of the run, such as a stage, is still to be logged; it is logged after the block."""
        owed = not self.queue.is_finished(name)
        yield owed
        if owed:
            self.queue.finish(name)

    def send(self) -> None:
        """Send what MLflow does not have yet. After the first failure, only warn, and never try again."""
        if self.store.paused:
            return
        try:
            _send(self)
        except Exception as error:  # errors of the database driver, the network or the disk
            self.store.paused = True
            say(f"warning: {_cannot_be_used(error)}; hbt sync {self.queue.folder} logs this run when it can")


def open_run(folder: Path, settings: RunSettings) -> Tracked:
    """Return the MLflow run of a run folder; nothing is sent before `send_all`."""
    return Tracked(TrackingQueue.open(folder), _Store(settings, paused=True))


@contextmanager
def tracked_run(folder: Path, settings: RunSettings) -> Iterator[Tracked]:
    """Open the MLflow run of a run folder and end it with the block; a resumed folder reuses its MLflow run.

    The status of a finished run stays FINISHED if its next command is refused.
    """
    tracked = Tracked(TrackingQueue.open(folder), _Store(settings))
    before = _statuses(tracked)[-1:]
    tracked.finish("RUNNING")
    tracked.send()
    try:
        yield tracked
    except BaseException as error:
        with suppress(OSError):  # such as a full disk, which must not hide the error
            refused = isinstance(error, InputError | NothingPasses) and before == ["FINISHED"]
            tracked.finish("FINISHED" if refused else "KILLED" if isinstance(error, KeyboardInterrupt) else "FAILED")
            if tracked.store.client is not None:
                tracked.send()
        raise
    tracked.finish()
    tracked.send()


def send_all(tracked: Tracked, complete: bool) -> None:
    """Send what MLflow does not have yet, of a run that no command works on.

    complete: whether all stages of the run are finished.
    Raises: InputError if the store cannot be used.
    """
    known, status = _statuses(tracked), "FINISHED" if complete else "KILLED"
    if known[-1:] in ([], ["RUNNING"]) or (complete and known[-1] != status):
        tracked.finish(status)
    try:
        _send(tracked)
    except Exception as error:  # errors of the database driver, the network or the disk
        raise InputError(f"{_cannot_be_used(error)}; fix or unset it, then run hbt sync again") from error


def _statuses(tracked: Tracked) -> list[str]:
    """Return the statuses that the parent run has had, in order."""
    return [line["status"] for line in tracked.queue.lines if "status" in line and line.get("run") is None]


def run_of(folder: Path) -> str | None:
    """Return the MLflow run id of a run folder; None if MLflow never knew it."""
    found = read_json(folder / _STATE_FILE)
    return found.get("run_id") if isinstance(found, dict) else None


def _cannot_be_used(error: Exception) -> str:
    return f"MLFLOW_TRACKING_URI {store()}: cannot be used ({reason_of(error)[:200]})"


def _send(tracked: Tracked) -> None:
    """Send the lines of the queue that the MLflow run does not have. Raises: errors of any type."""
    from mlflow.exceptions import MlflowException

    queue, file = tracked.queue, tracked.queue.folder / _STATE_FILE
    if tracked.store.client is None:
        tracked.store.client = connected()
        state = _known_run(tracked.store.client, queue, tracked.store.settings)
        write_text(file, json.dumps(state) + "\n")
    else:
        state = read_json(file)
    before = state["sent"]
    try:
        for line in queue.lines[before:]:
            try:
                _log(tracked.store.client, state, queue.folder, line)
            except MlflowException as error:
                if error.error_code != "INVALID_PARAMETER_VALUE":
                    raise
                say(f"warning: MLflow does not accept an entry and never will ({reason_of(error)}); left out")
            state["sent"] += 1
    finally:
        if state["sent"] != before:
            write_text(file, json.dumps(state) + "\n")


def _known_run(client: Any, queue: TrackingQueue, settings: RunSettings) -> dict[str, Any]:
    """Return the state of the MLflow run of a queue, which is created if the store does not have it."""
    from mlflow.exceptions import MlflowException

    known = read_json(queue.folder / _STATE_FILE)
    if isinstance(known, dict) and known.get("store") == store() and known.get("run_id"):
        try:
            run = client.get_run(known["run_id"])
            if run.info.lifecycle_stage == "active":
                return {"experiment_id": run.info.experiment_id, "sent": 0, "nested": {}} | known
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
    experiment = client.get_experiment_by_name(settings.experiment)
    try:
        experiment_id = experiment.experiment_id if experiment else client.create_experiment(settings.experiment)
    except MlflowException:  # another command has just created it
        experiment = client.get_experiment_by_name(settings.experiment)
        if experiment is None:
            raise
        experiment_id = experiment.experiment_id
    found = client.search_runs([experiment_id], f"tags.`{_RUN_TAG}` = '{queue.id}'")
    if found:  # created by a command that was killed before it could note the id
        run_id = found[0].info.run_id
    else:
        tags = {"mlflow.note.content": DESCRIPTIONS[settings.pipeline], "mlflow.user": settings.author}
        name = f"{queue.folder.name} ({settings.author}_{settings.pipeline})"
        run_id = client.create_run(experiment_id, tags=tags | {_RUN_TAG: queue.id}, run_name=name).info.run_id
    return {"store": store(), "run_id": run_id, "experiment_id": experiment_id, "sent": 0, "nested": {}}


def _log(client: Any, state: dict[str, Any], folder: Path, line: Line) -> None:
    """Log one line of the queue."""
    from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param

    run_id = state["run_id"] if line.get("run") is None else _nested_run(client, state, line["run"])
    metrics = [Metric(_name(n), v, line["time_ms"], line["step"]) for n, v in line.get("metrics", {}).items()]
    for start in range(0, len(metrics), _METRICS_PER_CALL):
        client.log_batch(run_id, metrics=metrics[start : start + _METRICS_PER_CALL])
    if "parameters" in line:
        logged = client.get_run(run_id).data.params
        given = {_name(name): value[:_LONGEST_VALUE] for name, value in line["parameters"].items()}
        client.log_batch(run_id, params=[Param(name, value) for name, value in given.items() if name not in logged])
    if "artifact" in line:
        path = folder / line["artifact"] if line["inside"] else Path(line["artifact"])
        if path.exists():
            log = client.log_artifacts if path.is_dir() else client.log_artifact
            log(run_id, str(path), line["folder"])
    if "model" in line and Path(line["model"]).is_dir():
        log_package(client, state["experiment_id"], run_id, Path(line["model"]), line["register"], line["sha256"])
    if "dataset" in line:
        tags = [InputTag("mlflow.data.context", "training")]
        client.log_inputs(run_id, [DatasetInput(Dataset(**line["dataset"]), tags)])
    if line.get("status") == "RUNNING":
        client.update_run(run_id, status="RUNNING")
    elif "status" in line:
        client.set_terminated(run_id, line["status"], line["time_ms"])


def _nested_run(client: Any, state: dict[str, Any], name: str) -> str:
    """Return the id of the nested run of that name; create it if there is none."""
    if name not in state["nested"]:
        query = f"tags.mlflow.parentRunId = '{state['run_id']}' and attributes.run_name = '{name}'"
        found = client.search_runs([state["experiment_id"]], query)
        if not found:
            tags = {"mlflow.parentRunId": state["run_id"]}
            found = [client.create_run(state["experiment_id"], tags=tags, run_name=name)]
        state["nested"][name] = found[0].info.run_id
    return state["nested"][name]


def _name(text: str) -> str:
    """Return a name that MLflow accepts: letters of any script, digits, '_', '-', '.', ' ', ':' and '/'."""
    name = re.sub(r"[^\w\-. :/]", "_", text)
    if posixpath.normpath(name) != name or name.startswith(("/", "..")):
        name = re.sub(r"[/.]", "_", name)
    if len(name) > _LONGEST_NAME:
        name = f"{name[: _LONGEST_NAME - 9]}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"
    return name
