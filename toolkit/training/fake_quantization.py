"""Fine-tuning under the rounding of eight bits, so that a network loses less by it once it is quantized.

Quantization-aware training (Jacob et al. 2018): weights and inputs are rounded as in the static int8 scheme that ships,
smoothed like there (SmoothQuant, Xiao et al. 2023), and gradients pass the rounding as if it were not there (Bengio
et al. 2013). What comes out is in floating point as before.
"""

from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import nn
from torch.nn.utils import parametrize

from exporters.int8_graph import SMOOTHING, TABLE_ROWS
from toolkit.modeling.architecture import OWN, SHARED, encoder_of, layer_stack
from toolkit.modeling.classifier import PooledClassifier
from toolkit.utils.errors import InputError

STEPS = 127
"""Of int8 either way from 0."""


LEAST = 1e-5
"""What counts as the largest input or weight of a channel that has only zeros, which would divide by zero."""


Batches = Iterable[tuple[torch.Tensor, torch.Tensor]]
"""Input ids and attention mask, both (batch, tokens)."""


@contextmanager
def fake_quantized(network: nn.Module, calibration_batches: Batches) -> Iterator[None]:
    """While this is open, `network` computes with what eight bits leave of its weights and of what goes into them.

    Linear maps of the encoder (of an imported model: of its layers): int8 weights, one scale an output, and uint8
    inputs in a fixed range, that on `calibration_batches`; both smoothed by factors that are fixed too. Embeddings of
    TABLE_ROWS or more rows: int8, one scale a row. The head and what calibration does not reach stay as they are.
    Afterwards nothing of this is left but what the weights have learned.
    Raises: InputError for a network whose layers are not known.
    """
    linears, embeddings = quantized_modules(network)
    with ExitStack() as undo:
        for bits, fed in _calibrated(network, linears, calibration_batches):
            for linear in fed:
                parametrize.register_parametrization(linear, "weight", bits)
                undo.callback(_restore, linear)
                undo.callback(linear.register_forward_pre_hook(_quantize_inputs).remove)
        for embedding in embeddings:
            undo.callback(embedding.register_forward_hook(_quantize_rows).remove)
        yield


def quantized_modules(network: nn.Module) -> tuple[list[nn.Linear], list[nn.Embedding]]:
    """Return the linear maps and the embeddings that are quantized.

    Raises: InputError for a network without a transformer, or whose layers are not known.
    """
    encoder = encoder_of(network)
    if encoder is None:
        raise InputError("--quant-method qat: a model without a transformer has no layers to train; leave it out")
    stack = layer_stack(encoder, *OWN, SHARED)
    if stack is None:
        raise InputError(
            f"--quant-method qat: a {encoder.config.model_type} network, whose layers are not known here; "
            "take --quant-method static"
        )
    inside = encoder if isinstance(network, PooledClassifier) else stack  # an imported model has a pooler before it
    linears = [module for module in inside.modules() if isinstance(module, nn.Linear)]
    embeddings = [module for module in encoder.modules() if isinstance(module, nn.Embedding)]
    return linears, [embedding for embedding in embeddings if embedding.num_embeddings >= TABLE_ROWS]


class _Range:
    """The range of each channel (in,) of what goes into one or more linear maps; 0 is always in it."""

    def __init__(self, like: torch.Tensor) -> None:
        self.low, self.high = torch.zeros_like(like), torch.zeros_like(like)

    def widen(self, values: torch.Tensor) -> None:
        """values: (tokens, in)."""
        self.low, self.high = torch.minimum(self.low, values.amin(0)), torch.maximum(self.high, values.amax(0))


class _EightBits(nn.Module):
    """What int8 leaves of the weight (out, in) of linear maps, and uint8 of their common input (…, in)."""

    smoothing: torch.Tensor
    scale: torch.Tensor
    zero: torch.Tensor

    def __init__(self, seen: _Range, weights: torch.Tensor) -> None:
        super().__init__()
        largest_input = torch.maximum(-seen.low, seen.high).clamp_min(LEAST)  # (in,)
        largest_weight = weights.abs().amax(0).clamp_min(LEAST)
        smoothing = largest_input**SMOOTHING / largest_weight ** (1 - SMOOTHING)
        low, high = (seen.low / smoothing).min(), (seen.high / smoothing).max()
        scale = (high - low).clamp_min(LEAST) / 255
        zero = (-low / scale).round().clamp(0, 255).int()
        for name, value in (("smoothing", smoothing), ("scale", scale), ("zero", zero)):
            self.register_buffer(name, value, persistent=False)  # a network is saved as if it were not quantized

    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        return _in_int8(weight * self.smoothing) / self.smoothing

    def inputs(self, values: torch.Tensor) -> torch.Tensor:
        smooth = values.float() / self.smoothing  # autocast gives bfloat16, which cannot tell 255 steps apart
        rounded = torch.fake_quantize_per_tensor_affine(smooth, self.scale, self.zero, 0, 255)
        return (rounded * self.smoothing).to(values.dtype)


def _in_int8(rows: torch.Tensor) -> torch.Tensor:
    """`rows` (rows, width) in STEPS either way, one scale a row."""
    scale = (rows.detach().abs().amax(1) / STEPS).clamp_min(torch.finfo(rows.dtype).tiny)
    return torch.fake_quantize_per_channel_affine(rows, scale, torch.zeros_like(scale).int(), 0, -STEPS, STEPS)


def _quantize_inputs(linear: Any, inputs: tuple[torch.Tensor]) -> torch.Tensor:
    return linear.parametrizations.weight[0].inputs(inputs[0])


def _quantize_rows(embedding: nn.Module, inputs: Any, output: torch.Tensor) -> torch.Tensor:
    """Of the rows that were looked up alone: the whole table in every step would take longer than the layers."""
    return _in_int8(output.flatten(0, -2)).view_as(output)


def _restore(linear: Any) -> None:
    parametrize.remove_parametrizations(linear, "weight", leave_parametrized=False)
    if linear.bias is not None:  # or it would come before the weight from now on, and optimizers count parameters
        linear.register_parameter("bias", linear._parameters.pop("bias"))


def _calibrated(
    network: nn.Module, linears: list[nn.Linear], batches: Batches
) -> list[tuple[_EightBits, list[nn.Linear]]]:
    """The rounding of `linears`, one for all that get the same tensor, as query, key and value do; padding does not
    count."""
    ranges: dict[Any, _Range] = {}
    passed: dict[int, tuple[torch.Tensor, _Range]] = {}  # with the tensors, so that none gets the id of another
    device, was_training = next(network.parameters()).device, network.training

    def look(linear: Any, inputs: tuple[torch.Tensor]) -> None:
        (values,) = inputs
        if linear not in ranges:
            ranges[linear] = passed[id(values)][1] if id(values) in passed else _Range(linear.weight[0])
        passed[id(values)] = values, ranges[linear]
        ranges[linear].widen(values[real] if values.shape[:-1] == real.shape else values.flatten(0, -2))

    with ExitStack() as undo, torch.no_grad():
        undo.callback(network.train, was_training)
        for linear in linears:
            undo.callback(linear.register_forward_pre_hook(look).remove)
        network.eval()
        for ids, mask in batches:
            real = mask.to(device).bool()
            network(ids.to(device), mask.to(device))
            passed.clear()
        fed = {seen: [linear for linear in ranges if ranges[linear] is seen] for seen in ranges.values()}
        assert fed, "no text to calibrate on"
        return [(_EightBits(seen, torch.cat([each.weight for each in its])), its) for seen, its in fed.items()]
