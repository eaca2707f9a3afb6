"""Label batches in several processes, each with its own predictor, in order and with few batches in memory."""

import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import connection, get_context, parent_process
from pathlib import Path
from typing import Any

from toolkit import package as packages
from toolkit.data.batches.layout import Layout
from toolkit.utils.errors import InputError
from toolkit.utils.machine import usable_cores
from toolkit.workflows.scoring.flags import flags_of
from toolkit.workflows.scoring.labeler import InThisProcess, Labeled, Labeling, Task

THREADS = 1
"""Of each model: on two cores, two threads took 1.9 times as long as one, since they wait for each other."""
BYTES_A_PROCESS = 4 * 2**20
"""A process takes about a second to start, so that small inputs are labeled in fewer of them."""
WAITING = 2
"""Batches a process has in work or waiting."""


def processes_for(size: int, wanted: int | None = None) -> int:
    """Return the number of processes for input of `size` bytes: as `wanted`, by default at most one a core."""
    if wanted is not None:
        return wanted
    return max(1, min(usable_cores(), size // BYTES_A_PROCESS))


@contextmanager
def labeling(package: Path, probe: Sequence[str], processes: int) -> Iterator[Labeling]:
    """Yield what labels batches with a package in so many processes.

    probe: as for InThisProcess.
    Raises: InputError if the package does not load.
    """
    if processes == 1:
        yield _in_this_process(package, probe)
        return
    manifest = packages.read_manifest(package)
    problems = packages.changed_files(package, manifest, unlisted=False)
    if problems:  # said once, before any process is started
        raise InputError(f"{package}: does not load: {problems[0]}")
    pool = Pool(package, probe, processes)
    try:
        yield pool
    finally:
        pool.executor.shutdown(cancel_futures=True)


def _in_this_process(package: Path, probe: Sequence[str]) -> InThisProcess:
    return InThisProcess(packages.load(package, THREADS), probe, flags_of(package))


class Pool:
    """Processes that are started by `spawn`: each loads the package once."""

    def __init__(self, package: Path, probe: Sequence[str], processes: int) -> None:
        self.processes = processes
        self.executor = ProcessPoolExecutor(processes, get_context("spawn"), _begin, (package, list(probe)))

    def label(self, tasks: Iterable[tuple[int, Task | InputError]]) -> Iterator[tuple[int, Labeled | InputError]]:
        """Yield the results in order. At most WAITING batches a process and the one yielded are held."""
        waiting: deque[tuple[int, Future[Labeled] | InputError]] = deque()
        for number, task in tasks:
            waiting.append((number, task if isinstance(task, InputError) else self._submit(_label, task)))
            if len(waiting) >= WAITING * self.processes:
                yield _result(*waiting.popleft())
        while waiting:
            yield _result(*waiting.popleft())

    def ahead(self, find: Callable[..., Layout], *arguments: Any) -> Callable[[], Layout]:
        """Let a process do it when it has nothing to label before it."""
        return self._submit(find, *arguments).result

    def _submit(self, function: Callable[..., Any], *arguments: Any) -> "Future[Any]":
        try:
            return self.executor.submit(function, *arguments)
        except BrokenProcessPool:
            raise _ended() from None


def _result(number: int, future: "Future[Labeled] | InputError") -> tuple[int, Labeled | InputError]:
    if isinstance(future, InputError):
        return number, future
    try:
        return number, future.result()
    except BrokenProcessPool:
        raise _ended() from None


def _ended() -> InputError:
    return InputError(
        "--processes: a process that labels ended, as the system does with one that needs too much memory; rerun with "
        "fewer --processes"
    )


_given: tuple[Path, Sequence[str]]
_labeler: InThisProcess | None = None


def _begin(package: Path, probe: Sequence[str]) -> None:
    """Prepare a process: it uses one core, leaves Ctrl-C to its parent, and ends if the parent was killed."""
    global _given
    _given = package, probe
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = parent_process()
    assert parent is not None
    connection.wait([parent.sentinel])
    os._exit(1)


def _label(task: Task) -> Labeled:
    global _labeler
    if _labeler is None:
        package, probe = _given
        _labeler = _in_this_process(package, probe)
    return _labeler.labeled(task)
