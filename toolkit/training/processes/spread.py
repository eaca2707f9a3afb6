"""Spread trainings that do not need each other, such as folds, over the machines of a Ray cluster (`--on ray`).

Every training writes a folder of its own below the folder of the run, which all machines share, and resumes from it. So
Ray only decides where a training runs; an interrupted command starts the unfinished ones again.
"""

import logging
import os
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from toolkit.training.processes.launch import processes
from toolkit.utils.console import bar
from toolkit.utils.errors import InputError

_cluster: ContextVar[str | None] = ContextVar("cluster", default=None)
"""Address of the cluster of this command, "" for one on this machine; None if trainings are not spread."""


@contextmanager
def spread_over(on: str) -> Iterator[None]:
    """Spread trainings inside the block.

    on: "ray" for processes of this machine, or "ray://HOST:PORT" for a cluster.
    Raises: InputError for anything else, under torchrun, or if Ray is not installed.
    """
    found = re.fullmatch(r"ray(?:://([^\s/]+:\d+))?", on)
    if found is None:
        raise InputError(f"--on {on}: give ray, or ray://HOST:PORT")
    if processes() > 1:
        raise InputError("--on ray: not under torchrun, which has started the processes of this training already")
    if not _is_installed():
        raise InputError("--on ray needs Ray: pip install 'hbt-toolkit[ray]'")
    before = _cluster.set(found[1] or "")
    try:
        yield
    finally:
        _cluster.reset(before)


def is_spread() -> bool:
    """Return whether this command spreads its trainings."""
    return _cluster.get() is not None


def each_of(what: str, function: Callable[..., Any], jobs: Sequence[tuple[Any, ...]]) -> Iterator[Any]:
    """Yield `function(*job)` of each job, in order, from the workers of the cluster.

    The function is one of a module, and its result small. The workers run in the current folder, with hbt installed.
    Raises: InputError if the cluster cannot be reached, and what the function raises.
    """
    with _connected() as ray:
        share = _share(ray, len(jobs))
        remote = ray.remote(**share)(_in_folder)
        pending = [remote.remote(Path.cwd(), function, *job) for job in jobs]
        with bar(what, len(jobs)) as advance:
            for each in pending:
                try:
                    result = ray.get(each)
                except ray.exceptions.RayTaskError as error:
                    raise (error.cause if isinstance(error.cause, InputError) else error) from None
                advance(1)
                yield result


def _in_folder(folder: Path, function: Callable[..., Any], *arguments: Any) -> Any:
    if not folder.is_dir():
        raise InputError(f"--on: a worker has no folder {folder}; run the command in a folder that all machines share")
    os.chdir(folder)
    return function(*arguments)


def _share(ray: Any, jobs: int) -> dict[str, float]:
    """Return the CPUs and GPUs of one of `jobs` trainings, which all fit on the cluster at once if it is large enough.

    A training stays on one machine, and takes a GPU if there are any.
    """
    machines = [each["Resources"] for each in ray.nodes() if each["Alive"]]
    largest = max(each.get("CPU", 1) for each in machines)
    everywhere = sum(each.get("CPU", 0) for each in machines)
    gpus = any(each.get("GPU", 0) for each in machines)
    return {"num_cpus": max(1, min(largest, everywhere // jobs)), "num_gpus": int(gpus)}


def _is_installed() -> bool:
    return find_spec("ray") is not None


@contextmanager
def _connected() -> Iterator[Any]:
    """Yield the module of Ray, connected to the cluster of this command."""
    import ray

    address = _cluster.get()
    where: dict[str, Any] = {"address": f"ray://{address}"} if address else {"include_dashboard": False}
    logging.getLogger("ray").setLevel(logging.ERROR)
    try:
        ray.init(log_to_driver=False, logging_level="ERROR", **where)
    except (ConnectionError, OSError, RuntimeError, ValueError) as error:
        raise InputError(f"--on ray://{address}: cannot be reached ({error}); check host and port") from error
    try:
        yield ray
    finally:
        ray.shutdown()
