"""What each head, neuron and layer is worth: how much the loss on training rows would rise without it.

First-order Taylor importance (Molchanov et al. 2017), with gates as in Michel et al. 2019: every unit is multiplied
by a gate that is 1, and the derivative of a text's loss by the gate estimates what closing it would change. The mean
of its absolute value over texts is the score: what helps one text and harms another counts for both.
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
from toolkit.training.feature_distillation import DistillationLoss
from toolkit.training.trainer import loss_of

BATCH = 32


@dataclass(frozen=True)
class Importance:
    """Scores of the units of each layer."""

    heads: tuple[np.ndarray, ...]
    """float64 (heads,) a layer."""
    neurons: tuple[np.ndarray, ...]
    """float64 (neurons,) a layer."""


def taylor_importance(
    classifier: Classifier, examples: Examples, how: TrainingSettings, distillation_loss: DistillationLoss | None
) -> Importance:
    """Mean over `examples` of |∂ loss of a text / ∂ gate| for every head and neuron.

    The loss is the one that `toolkit.training.fit` minimizes for the same arguments; dropout is off.
    """
    layers = architecture_of(classifier.network).layers
    heads = [np.zeros(layer.heads) for layer in layers]
    neurons = [np.zeros(layer.neurons) for layer in layers]
    for batch, loss in _batch_losses(classifier, examples, how, distillation_loss, layers):
        texts = len(batch["labels"])
        (texts * loss.total).backward()  # of the sum, so that each text's gate has the gradient of its own loss
        for place, gates in enumerate(loss.gates):
            for scores, each in ((heads, gates.heads), (neurons, gates.neurons)):
                grown = torch.stack([gate.grad for gate in each if gate.grad is not None]).sum(0)  # of all passes
                scores[place] += grown.abs().sum(0).double().numpy()
    classifier.network.zero_grad(set_to_none=True)
    count = len(examples.texts)
    return Importance(tuple(s / count for s in heads), tuple(s / count for s in neurons))


def magnitude_importance(classifier: Classifier) -> Importance:
    """Euclidean norm of a unit's own weights, in and out: what structured pruning is compared with."""
    heads, neurons = [], []
    for layer in architecture_of(classifier.network).layers:
        square = {part: layer.linear(part).weight.detach().double().square() for part in PARTS}
        inner = sum(square[part].sum(1) for part in ("query", "key", "value")) + square["context"].sum(0)
        heads.append(torch.as_tensor(inner).reshape(layer.heads, -1).sum(1).sqrt().numpy())
        neurons.append((square["into"].sum(1) + square["out"].sum(0)).sqrt().numpy())
    return Importance(tuple(heads), tuple(neurons))


PARTS = ("query", "key", "value", "context", "into", "out")


def mean_loss(
    classifier: Classifier, examples: Examples, how: TrainingSettings, distillation_loss: DistillationLoss | None
) -> float:
    """The loss that `toolkit.training.fit` minimizes, over all `examples`, dropout off."""
    total = 0.0
    with torch.no_grad():
        for batch, loss in _batch_losses(classifier, examples, how, distillation_loss, ()):
            total += float(loss.total) * len(batch["labels"])
    return total / len(examples.texts)


@dataclass(frozen=True)
class _Gates:
    """The gates (texts, units) of one layer, one for every pass through it."""

    heads: list[torch.Tensor]
    neurons: list[torch.Tensor]


@dataclass(frozen=True)
class _Loss:
    total: torch.Tensor
    gates: list[_Gates]


def _batch_losses(
    classifier: Classifier,
    examples: Examples,
    how: TrainingSettings,
    distillation_loss: DistillationLoss | None,
    layers: Sequence[Layer],
) -> Iterator[tuple[dict[str, torch.Tensor], _Loss]]:
    """Batches of like length and their mean loss, the units of `layers` behind gates."""
    rows = encoded(classifier, examples)
    collate, loss = (
        Collate(classifier.pad_id, 0),
        loss_of(how, examples.labels, len(classifier.labels), distillation_loss),
    )
    network = classifier.network.eval()
    for chosen in like_lengths([row["input_ids"] for row in rows], BATCH):
        batch = collate([rows[i] for i in chosen])
        with _gated(layers) as gates:
            parts = loss(network(batch["input_ids"], batch["attention_mask"]), batch)
        yield batch, _Loss(parts["loss"], gates)


@contextmanager
def _gated(layers: Sequence[Layer]) -> Iterator[list[_Gates]]:
    """While this is open, every head and neuron of `layers` goes through a gate of its own for each text."""
    gates = [_Gates([], []) for _ in layers]
    handles = []
    for layer, its in zip(layers, gates, strict=True):
        handles.append(layer.linear("context").register_forward_pre_hook(_gate(its.heads, layer.head_width)))
        handles.append(layer.linear("out").register_forward_pre_hook(_gate(its.neurons, 1)))
    try:
        yield gates
    finally:
        for handle in handles:
            handle.remove()


def _gate(made: list[torch.Tensor], width: int) -> Any:
    """A hook that multiplies what goes into a map (texts, tokens, units × width) by a new gate (texts, units)."""

    def hook(module: Any, inputs: tuple[torch.Tensor]) -> torch.Tensor:
        (values,) = inputs
        gate = torch.ones(values.shape[0], values.shape[2] // width, requires_grad=True)
        made.append(gate)
        return values * gate.repeat_interleave(width, dim=1).unsqueeze(1)

    return hook
