"""Batches split over processes: each one computes its rows, and the loss is that of the whole batch.

A batch has the rows that it has in one process. Rank r computes the rows r, r + n, r + 2n, … of it, whose lengths are
alike, since the rows of a batch are sorted by length. The logits of all rows are gathered, so that a loss that is no
mean over rows, such as one with class weights, is the same number as in one process, and so is its gradient.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch.nn import functional
from torch.utils.data import BatchSampler, DataLoader, Sampler

from toolkit.training.processes.launch import processes, rank, same_on_all

Batch = dict[str, torch.Tensor]
NO_ROW = -1
"""Number of a row that only fills a shard and is not counted."""


class Rows:
    """The rows of `toolkit.training.dataset.encoded`, with their numbers."""

    def __init__(self, rows: Sequence[dict[str, Any]]) -> None:
        self.rows = rows
        self.labels = torch.tensor([row["labels"] for row in rows])
        logits = [torch.as_tensor(row["teacher_logits"]) for row in rows if "teacher_logits" in row]
        self.teacher_logits = torch.stack(logits) if logits else None

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, number: int) -> dict[str, Any]:
        return self.rows[max(number, 0)] | {"row": number}


class _Shards(Sampler[list[int]]):
    """The rows of this rank in each batch; [NO_ROW] where a batch has fewer rows than there are processes."""

    def __init__(self, batches: BatchSampler) -> None:
        self.batches = batches

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[list[int]]:
        for batch in same_on_all(list(self.batches)):  # the order is random
            yield batch[rank() :: processes()] or [NO_ROW]


def sharded(rows: Rows, order: Any, batch_size: int, collate: Callable[[list[dict[str, Any]]], Batch]) -> DataLoader:
    """Return the batches of this rank. order: sampler of the rows of all ranks. batch_size: over all ranks.

    Their "rows" are the numbers of their rows, padded with NO_ROW to the size of the largest shard.
    """
    largest = -(-batch_size // processes())

    def with_numbers(chosen: list[dict[str, Any]]) -> Batch:
        numbers = [row["row"] for row in chosen]
        batch = collate([{name: value for name, value in row.items() if name != "row"} for row in chosen])
        return batch | {"rows": torch.tensor(numbers + [NO_ROW] * (largest - len(numbers)))}

    batches: Any = _Shards(BatchSampler(order, batch_size, drop_last=False))
    return DataLoader(rows, batch_sampler=batches, collate_fn=with_numbers)  # type: ignore[arg-type]


def whole_batch(output: Batch, batch: Batch, rows: Rows) -> tuple[Batch, Batch]:
    """Return the outputs and the targets of all rows of a batch; gradients reach the rows of this rank.

    output: logits (rows of this rank, labels) and, in training, feature losses, which are means over tokens.
    """
    logits, numbers = output["logits"].float(), batch["rows"]
    packed = torch.cat([numbers[:, None].double(), _padded(logits.detach().double(), len(numbers))], dim=1)
    gathered = [torch.empty_like(packed) for _ in range(processes())]  # (largest shard, 1 + labels) each
    dist.all_gather(gathered, packed)
    shards = [shard[:, 1:].float() for shard in gathered]
    shards[rank()] = _padded(logits, len(numbers))
    found = torch.cat([shard[:, 0] for shard in gathered]).long()
    counted = found != NO_ROW
    targets = {"labels": rows.labels[found[counted].cpu()].to(logits.device), "rows": found[counted]}
    if rows.teacher_logits is not None:
        targets["teacher_logits"] = rows.teacher_logits[found[counted].cpu()].to(logits.device)
    together = {"logits": torch.cat(shards)[counted] + 0 * logits.sum()}  # a rank without rows has gradients, of zero
    own = batch["attention_mask"][numbers[: len(logits)] != NO_ROW].sum().double()
    tokens = own.clone()
    dist.all_reduce(tokens)
    for name in output.keys() - {"logits"}:
        part = output[name] * (own / tokens).to(output[name].dtype)
        total = part.detach().clone()
        dist.all_reduce(total)
        together[name] = part + (total - part.detach())
    return together, targets


def _padded(values: torch.Tensor, length: int) -> torch.Tensor:
    """Pad `values`, (rows, labels), with zeros to `length` rows."""
    return functional.pad(values, (0, 0, 0, length - len(values)))
