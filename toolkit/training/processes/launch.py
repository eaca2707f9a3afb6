"""Training on the processes of `torchrun`: rank 0 runs the command, and the other ranks join each training in it.

So one process alone reads data, writes the run folder, logs to MLflow and shows progress. What the other ranks need for
a training is sent to them over the process group; its processes trust each other, as those of any PyTorch job do.
"""

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import nn

from toolkit.utils.errors import InputError

VARIABLES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")
"""What torchrun sets for each process. A process that rank 0 starts must not see them: it is no rank."""
WAIT = timedelta(days=30)
"""Longest time between two trainings, in which the other ranks wait for rank 0."""
LOST = ("gloo/transport", "Connection closed by peer", "Connection reset by peer", "NCCL")
"""How a collective operation reports that another process of the group is gone."""

_launched: dict[str, str] = {}
"""Values of VARIABLES of this process, while it is one of several."""


def run_on_all(command: Callable[[], None]) -> None:
    """Run `command` on rank 0, and on the other ranks every training that it starts.

    Raises: SystemExit with code 1 if another process of the group is lost, after one line on rank 0.
    """
    dist.init_process_group("cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo", timeout=WAIT)
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]) % torch.cuda.device_count())
    for name in VARIABLES:
        if name in os.environ:
            _launched[name] = os.environ.pop(name)
    try:
        same_on_all(None)  # a rank that is still joining the group would say more than one line if rank 0 ended now
        if dist.get_rank() == 0:
            command()
            same_on_all(None)
        else:
            _follow()
    except RuntimeError as error:
        if not any(known in str(error) for known in LOST):
            raise
        if dist.get_rank() == 0:
            print("hbt: another process of this training has ended; rerun the same command to resume", file=sys.stderr)
        sys.stderr.flush()
        os._exit(1)  # the group cannot be shut down any more; nothing here is left to be cleaned up but scratch
    dist.destroy_process_group()
    _launched.clear()


def _follow() -> None:
    with suppress(KeyboardInterrupt):  # rank 0 says so
        while (job := same_on_all(None)) is not None:
            function, arguments = job
            function(*arguments)
        return
    os._exit(130)


def same_on_all(value: Any) -> Any:
    """Return the value of rank 0 on every rank."""
    held = [value]
    dist.broadcast_object_list(held, src=0)
    return held[0]


def on_all(function: Callable[..., Any], *arguments: Any) -> None:
    """Make the other ranks call a function of a module with `arguments`; the caller then does so, too."""
    assert dist.get_rank() == 0
    same_on_all((function, arguments))


def processes() -> int:
    """Return the number of processes of the training."""
    return dist.get_world_size() if _launched else 1


def rank() -> int:
    """Return the number of this process, from 0; 0 writes."""
    return dist.get_rank() if _launched else 0


@contextmanager
def as_one_of(several: bool) -> Iterator[None]:
    """Let accelerate see the group of processes in the block if `several`, otherwise this process alone.

    Raises: InputError in a script that torchrun has started: each of its processes would write the same run.
    """
    if not _launched and int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise InputError("torchrun: only the command line trains on several processes: torchrun … -m hbt train …")
    if not _launched:
        yield
        return
    from accelerate.state import AcceleratorState

    AcceleratorState._reset_state(reset_partial_state=True)
    if several:
        os.environ.update(_launched)
    try:
        yield
        if several:
            same_on_all(None)  # no rank leaves before all have read the checkpoint of the best epoch
    finally:
        AcceleratorState._reset_state(reset_partial_state=True)
        for name in VARIABLES:
            os.environ.pop(name, None)


def copy_weights(network: nn.Module) -> None:
    """Overwrite the weights of every rank with those of rank 0, which has changed them outside the optimizer."""
    if processes() > 1:
        for tensor in network.state_dict().values():
            dist.broadcast(tensor, src=0)
