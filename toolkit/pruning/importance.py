"""Importance of heads and neurons: an estimate of how much the loss on training rows would change without them.

First-order Taylor importance (Molchanov et al. 2017), with gates as in Michel et al. 2019: every unit is multiplied
by a gate of value 1, and the derivative of a text's loss with respect to the gate estimates the effect of removing the
unit. The score is the mean absolute value over texts, so that effects of opposite sign do not cancel.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from toolkit.config.settings import TrainingSettings
from toolkit.modeling.architecture import Layer, architecture_of
from toolkit.modeling.classifier import Classifier, like_lengths
from toolkit.training.dataset import Collate, Examples, encoded
from toolkit.training.feature_distillation import DistillationLoss, loss_of

BATCH = 32


@dataclass(frozen=True)
class Importance:
    """Importance scores of the units of each layer."""

    heads: tuple[np.ndarray, ...]
    """One array per layer, float64 (heads,)."""
    neurons: tuple[np.ndarray, ...]
    """One array per layer, float64 (neurons,)."""


def taylor_importance(
    classifier: Classifier, examples: Examples, training: TrainingSettings, distillation_loss: DistillationLoss | None
) -> Importance:
    """Return the mean over `examples` of |∂ loss of a text / ∂ gate| for every head and neuron.

    The loss is the one that `toolkit.training.trainer.fit` minimizes for the same arguments; dropout is off.
    """
    layers = architecture_of(classifier.network).layers
    heads = [np.zeros(layer.heads) for layer in layers]
    neurons = [np.zeros(layer.neurons) for layer in layers]
    for batch, loss in _batch_losses(classifier, examples, training, distillation_loss, layers):
        texts = len(batch["labels"])
        (texts * loss.total).backward()  # sum over texts, so that each gate gets the gradient of its own text's loss
        for place, gates in enumerate(loss.gates):
            for scores, each in ((heads, gates.heads), (neurons, gates.neurons)):
                gradients = [gate.grad for gate in each if gate.grad is not None]  # one per pass through the layer
                scores[place] += torch.stack(gradients).sum(0).abs().sum(0).double().numpy()
    classifier.network.zero_grad(set_to_none=True)
    count = len(examples.texts)
    return Importance(tuple(s / count for s in heads), tuple(s / count for s in neurons))


def magnitude_importance(classifier: Classifier) -> Importance:
    """Return the Euclidean norm of the incoming and outgoing weights of each unit, a baseline for Taylor importance."""
    heads, neurons = [], []
    for layer in architecture_of(classifier.network).layers:
        square = {part: layer.linear(part).weight.detach().double().square() for part in PARTS}
        inner = sum(square[part].sum(1) for part in ("query", "key", "value")) + square["context"].sum(0)
        heads.append(torch.as_tensor(inner).reshape(layer.heads, -1).sum(1).sqrt().numpy())
        neurons.append((square["into"].sum(1) + square["out"].sum(0)).sqrt().numpy())
    return Importance(tuple(heads), tuple(neurons))


PARTS = ("query", "key", "value", "context", "into", "out")


def mean_loss(
    classifier: Classifier, examples: Examples, training: TrainingSettings, distillation_loss: DistillationLoss | None
) -> float:
    """Return the mean over `examples` of the loss that `toolkit.training.trainer.fit` minimizes, with dropout off."""
    total = 0.0
    with torch.no_grad():
        for batch, loss in _batch_losses(classifier, examples, training, distillation_loss, ()):
            total += float(loss.total) * len(batch["labels"])
    return total / len(examples.texts)


@dataclass(frozen=True)
class _Gates:
    """Gates (texts, units) of one layer, one tensor for every pass through it."""

    heads: list[torch.Tensor]
    neurons: list[torch.Tensor]


@dataclass(frozen=True)
class _Loss:
    total: torch.Tensor
    gates: list[_Gates]


def _batch_losses(
    classifier: Classifier,
    examples: Examples,
    training: TrainingSettings,
    distillation_loss: DistillationLoss | None,
    layers: Sequence[Layer],
) -> Iterator[tuple[dict[str, torch.Tensor], _Loss]]:
    """Yield batches of similar length and their mean loss, with gates on the units of `layers`."""
    rows = encoded(classifier, examples)
    collate, loss = (
        Collate(classifier.pad_id, 0),
        loss_of(training, examples.labels, len(classifier.labels), distillation_loss),
    )
    network = classifier.network.eval()
    for chosen in like_lengths([row["input_ids"] for row in rows], BATCH):
        batch = collate([rows[i] for i in chosen])
        with _gated(layers) as gates:
            parts = loss(network(batch["input_ids"], batch["attention_mask"]), batch)
        yield batch, _Loss(parts["loss"], gates)


@contextmanager
def _gated(layers: Sequence[Layer]) -> Iterator[list[_Gates]]:
    """Multiply every head and neuron of `layers` by a gate per text while the context is open."""
    gates = [_Gates([], []) for _ in layers]
    handles = []
    for layer, layer_gates in zip(layers, gates, strict=True):
        handles.append(layer.linear("context").register_forward_pre_hook(_gate(layer_gates.heads, layer.head_width)))
        handles.append(layer.linear("out").register_forward_pre_hook(_gate(layer_gates.neurons, 1)))
    try:
        yield gates
    finally:
        for handle in handles:
            handle.remove()


def _gate(gates: list[torch.Tensor], width: int) -> Any:
    """Return a hook that multiplies the input (texts, tokens, units × width) by a new gate (texts, units).

    The hook appends each new gate to `gates`.
    """

    def hook(module: Any, inputs: tuple[torch.Tensor]) -> torch.Tensor:
        (values,) = inputs
        gate = torch.ones(values.shape[0], values.shape[2] // width, requires_grad=True)
        gates.append(gate)
        return values * gate.repeat_interleave(width, dim=1).unsqueeze(1)

    return hook
