"""The Trainer of transformers with batches and validation rows spread over processes."""

from typing import Any

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, SequentialSampler
from transformers import EvalPrediction, Trainer, TrainingArguments
from transformers.trainer_utils import EvalLoopOutput

from toolkit.training.processes.launch import processes, rank
from toolkit.training.processes.shards import Batch, Rows, sharded, whole_batch


class SpreadTrainer(Trainer):
    """A Trainer whose batch sizes are those of all processes together. In one process, it changes nothing."""

    def __init__(self, model: nn.Module, arguments: TrainingArguments, loss: Any, **options: Any) -> None:
        """loss: see `toolkit.training.feature_distillation.loss_of`."""
        # accelerate does not wrap a network again that it has prepared for one process.
        model.__dict__.pop("_is_accelerate_prepared", None)
        super().__init__(model, arguments, **options)
        self.loss = loss
        self.spread = arguments.world_size > 1
        if self.spread:
            self.train_rows, self.validation_rows = Rows(options["train_dataset"]), Rows(options["eval_dataset"])
            if rank() > 0:
                torch.manual_seed(arguments.seed + rank())  # dropout; the order of rows comes from rank 0

    def get_train_dataloader(self) -> DataLoader:
        if not self.spread:
            return super().get_train_dataloader()
        order = self._get_train_sampler()
        return sharded(self.train_rows, order, self.args.per_device_train_batch_size, self.data_collator)

    def get_eval_dataloader(self, *arguments: Any, **options: Any) -> DataLoader:
        if not self.spread:
            return super().get_eval_dataloader(*arguments, **options)
        order, size = SequentialSampler(self.validation_rows), self.args.per_device_eval_batch_size
        return sharded(self.validation_rows, order, size, self.data_collator)

    def whole(self, output: Batch, batch: Batch, training: bool) -> tuple[Batch, Batch]:
        """Return outputs and targets of a whole batch; see `whole_batch`."""
        if not self.spread:
            return output, batch
        return whole_batch(output, batch, self.train_rows if training else self.validation_rows)

    def backward_loss(self, loss: torch.Tensor) -> torch.Tensor:
        """Return the loss whose gradient, averaged over the ranks (DistributedDataParallel), is that of `loss`."""
        return loss * processes() if self.spread else loss

    def evaluation_loop(self, dataloader: DataLoader, *arguments: Any, **options: Any) -> EvalLoopOutput:
        """Evaluate every row once: the Trainer repeats rows so that all processes have the same number of them."""
        if not self.spread:
            return super().evaluation_loop(dataloader, *arguments, **options)
        assert isinstance(self.model_wrapped, DistributedDataParallel), "no process trains on its own"
        self.model.eval()
        logits, targets, losses = [], [], []
        for batch in dataloader:
            batch = self._prepare_inputs(batch)
            with torch.no_grad(), self.compute_loss_context_manager():
                output = self.model(batch["input_ids"], batch["attention_mask"])
                together, expected = self.whole(output, batch, training=False)
                losses.append(float(self.loss(together, expected)["loss"]) * len(together["logits"]))
            logits.append(together["logits"].float().cpu())
            targets.append(expected["rows"].cpu())
        rows = torch.cat(targets)
        count = len(self.validation_rows)
        assert torch.equal(rows.sort().values, torch.arange(count)), "each validation row is evaluated exactly once"
        predictions, labels = torch.cat(logits).numpy(), self.validation_rows.labels[rows].numpy()
        metrics = self.compute_metrics(EvalPrediction(predictions, labels)) if self.compute_metrics else {}
        named = {f"eval_{name}": value for name, value in (metrics | {"loss": sum(losses) / count}).items()}
        return EvalLoopOutput(predictions, labels, named, count)
