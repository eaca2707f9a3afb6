"""Fake quantization: fine-tune a network under int8 quantization, so that it loses less when it is quantized.

This is quantization-aware training (Jacob et al. 2018): weights and inputs are rounded as in the static int8
candidates, with the same smoothing (SmoothQuant, Xiao et al. 2023), and gradients pass through the rounding unchanged
(straight-through estimator, Bengio et al. 2013). The trained network is in floating point.
"""

from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import nn
from torch.nn.utils import parametrize

from exporters.int8_graph import SMOOTHING, TABLE_ROWS
from toolkit.modeling.architecture import LAYER_LIST_PATHS, SHARED_LAYER_LIST_PATH, encoder_of, layer_stack
from toolkit.modeling.classifier import PooledClassifier
from toolkit.utils.errors import InputError

INT8_MAX = 127
"""Largest magnitude of a symmetrically quantized weight."""
MIN_RANGE = 1e-5
"""Lower bound of the ranges of inputs and weights; avoids division by zero in channels that are all zero."""
Batches = Iterable[tuple[torch.Tensor, torch.Tensor]]
"""Input ids and attention mask, both (batch, tokens)."""


@contextmanager
def fake_quantized(network: nn.Module, calibration_batches: Batches) -> Iterator[None]:
    """Return a context in which `network` computes with fake-quantized weights and inputs.

    Linear maps of the encoder (for Hugging Face classifiers: of its layers) get int8 weights with one scale per
    output, and uint8 inputs. The input ranges and the smoothing factors are determined on `calibration_batches` and
    then fixed. Embeddings with at least TABLE_ROWS rows get int8 weights with one scale per row. The head, and linear
    maps that the calibration does not reach, are not quantized. On exit, the network is restored; only changes of its
    weights remain.

    Raises: InputError if the architecture is not supported.
    """
    linears, embeddings = quantized_modules(network)
    with ExitStack() as undo:
        for quantizer, group in _calibrated(network, linears, calibration_batches):
            for linear in group:
                parametrize.register_parametrization(linear, "weight", quantizer)
                undo.callback(_restore, linear)
                undo.callback(linear.register_forward_pre_hook(_quantize_inputs).remove)
        for embedding in embeddings:
            undo.callback(embedding.register_forward_hook(_quantize_rows).remove)
        yield


def quantized_modules(network: nn.Module) -> tuple[list[nn.Linear], list[nn.Embedding]]:
    """Return the linear maps and the embeddings that are quantized.

    Raises: InputError if the network has no transformer or its architecture is not supported.
    """
    encoder = encoder_of(network)
    if encoder is None:
        raise InputError("--quant-method qat: a model without a transformer has no layers to train; leave it out")
    stack = layer_stack(encoder, *LAYER_LIST_PATHS, SHARED_LAYER_LIST_PATH)
    if stack is None:
        raise InputError(
            f"--quant-method qat: {encoder.config.model_type} models are not supported; use --quant-method static"
        )
    inside = encoder if isinstance(network, PooledClassifier) else stack  # without the pooler of Hugging Face models
    linears = [module for module in inside.modules() if isinstance(module, nn.Linear)]
    embeddings = [module for module in encoder.modules() if isinstance(module, nn.Embedding)]
    return linears, [embedding for embedding in embeddings if embedding.num_embeddings >= TABLE_ROWS]


class _Range:
    """The range of each input channel, (in,), of linear maps with the same input. It always includes 0."""

    def __init__(self, like: torch.Tensor) -> None:
        self.low, self.high = torch.zeros_like(like), torch.zeros_like(like)

    def widen(self, values: torch.Tensor) -> None:
        """Extend the range to `values`, (tokens, in)."""
        self.low, self.high = torch.minimum(self.low, values.amin(0)), torch.maximum(self.high, values.amax(0))


class _Quantizer(nn.Module):
    """Fake quantization of the weights (out, in) of linear maps to int8, and of their common input (…, in) to uint8."""

    smoothing: torch.Tensor
    scale: torch.Tensor
    zero: torch.Tensor

    def __init__(self, inputs: _Range, weights: torch.Tensor) -> None:
        super().__init__()
        largest_input = torch.maximum(-inputs.low, inputs.high).clamp_min(MIN_RANGE)  # (in,)
        largest_weight = weights.abs().amax(0).clamp_min(MIN_RANGE)
        smoothing = largest_input**SMOOTHING / largest_weight ** (1 - SMOOTHING)
        low, high = (inputs.low / smoothing).min(), (inputs.high / smoothing).max()
        scale = (high - low).clamp_min(MIN_RANGE) / 255
        zero = (-low / scale).round().clamp(0, 255).int()
        for name, value in (("smoothing", smoothing), ("scale", scale), ("zero", zero)):
            self.register_buffer(name, value, persistent=False)  # not saved in checkpoints

    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        return _quantize_dequantize(weight * self.smoothing) / self.smoothing

    def inputs(self, values: torch.Tensor) -> torch.Tensor:
        """Return the fake-quantized inputs."""
        smooth = values.float() / self.smoothing  # bfloat16 from autocast cannot represent 256 levels
        rounded = torch.fake_quantize_per_tensor_affine(smooth, self.scale, self.zero, 0, 255)
        return (rounded * self.smoothing).to(values.dtype)


def _quantize_dequantize(rows: torch.Tensor) -> torch.Tensor:
    """Fake-quantize `rows`, (rows, width), to symmetric int8 with one scale per row."""
    scale = (rows.detach().abs().amax(1) / INT8_MAX).clamp_min(torch.finfo(rows.dtype).tiny)  # (rows,)
    zero = torch.zeros_like(scale).int()
    return torch.fake_quantize_per_channel_affine(rows, scale, zero, 0, -INT8_MAX, INT8_MAX)


def _quantize_inputs(linear: Any, inputs: tuple[torch.Tensor]) -> torch.Tensor:
    return linear.parametrizations.weight[0].inputs(inputs[0])


def _quantize_rows(embedding: nn.Module, inputs: Any, output: torch.Tensor) -> torch.Tensor:
    """Quantize only the rows that were looked up. The full table would take longer than all layers in each step."""
    return _quantize_dequantize(output.flatten(0, -2)).view_as(output)


def _restore(linear: Any) -> None:
    parametrize.remove_parametrizations(linear, "weight", leave_parametrized=False)
    if linear.bias is not None:  # restore the order of parameters, which optimizer states depend on
        linear.register_parameter("bias", linear._parameters.pop("bias"))


def _calibrated(
    network: nn.Module, linears: list[nn.Linear], batches: Batches
) -> list[tuple[_Quantizer, list[nn.Linear]]]:
    """Return quantizers for `linears`, calibrated on `batches` without padding.

    Linear maps with the same input tensor, such as query, key and value, share a quantizer.
    """
    ranges: dict[Any, _Range] = {}
    by_input: dict[int, tuple[torch.Tensor, _Range]] = {}  # holds the tensors, so that their ids are not reused
    device, was_training = next(network.parameters()).device, network.training

    def observe(linear: Any, inputs: tuple[torch.Tensor]) -> None:
        (values,) = inputs
        if linear not in ranges:
            ranges[linear] = by_input[id(values)][1] if id(values) in by_input else _Range(linear.weight[0])
        by_input[id(values)] = values, ranges[linear]
        ranges[linear].widen(values[is_token] if values.shape[:-1] == is_token.shape else values.flatten(0, -2))

    with ExitStack() as undo, torch.no_grad():
        undo.callback(network.train, was_training)
        for linear in linears:
            undo.callback(linear.register_forward_pre_hook(observe).remove)
        network.eval()
        for ids, mask in batches:
            is_token = mask.to(device).bool()
            network(ids.to(device), mask.to(device))
            by_input.clear()
        groups = {each: [linear for linear in ranges if ranges[linear] is each] for each in ranges.values()}
        assert groups, "no texts for calibration"
        return [
            (_Quantizer(inputs, torch.cat([linear.weight for linear in group])), group)
            for inputs, group in groups.items()
        ]
