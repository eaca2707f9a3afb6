"""Feature distillation: train a student on hidden states, attention maps or self-attention relations of its teacher.

The teacher's network runs with the student's in every training step, because its states for all texts would not fit on
a disk. Its logits are computed once, elsewhere. Hooks on layers and on their query, key and value projections collect
the states, so that both networks can use fast attention kernels.
"""

import json
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import nn

from toolkit.config.settings import TrainingSettings
from toolkit.modeling.architecture import encoder_layers, encoder_of
from toolkit.modeling.classifier import Classifier
from toolkit.modeling.surgery import is_cut
from toolkit.training.losses import (
    UNLABELED,
    attention_log_maps,
    attention_loss,
    hard_loss,
    hidden_loss,
    known_loss,
    relation_heads,
    relation_loss,
    soft_loss,
)
from toolkit.utils.errors import InputError

RELATION_WEIGHT = 1.0
"""Weight of the relation loss. Its three relations have equal weights, as in MiniLMv2."""
PROJECTIONS = (
    ("attention.self.query", "attention.self.key", "attention.self.value"),  # BERT, RoBERTa, ELECTRA, ...
    ("attention.q_lin", "attention.k_lin", "attention.v_lin"),  # DistilBERT
)
"""Paths of the query, key and value projections in a layer, by architecture."""
FeatureMethod = Literal["hidden", "attention", "multi_level", "relation"]


@dataclass(frozen=True, eq=False)
class FeatureTargets:
    """Teacher, method and loss weights of feature distillation."""

    teacher: Classifier
    """Never trained."""
    method: FeatureMethod
    hidden_weight: float
    attention_weight: float

    @property
    def weights(self) -> dict[str, float]:
        """Return the weight of each loss of the method."""
        hidden, attention = {"hidden_loss": self.hidden_weight}, {"attention_loss": self.attention_weight}
        relation = {"relation_loss": RELATION_WEIGHT}
        return {
            "hidden": hidden,
            "attention": attention,
            "multi_level": hidden | attention,
            "relation": relation,
        }[self.method]


@dataclass(frozen=True)
class DistillationLoss:
    """Weights of the distillation loss (Hinton et al. 2015)."""

    alpha: float
    """Weight of the teacher's logits; 1 - alpha is the weight of the labels."""
    temperature: float
    """Softens the distributions of student and teacher."""
    features: FeatureTargets | None = None
    """Feature losses, added with their own weights."""


Loss = Callable[[dict[str, torch.Tensor], dict[str, torch.Tensor]], dict[str, torch.Tensor]]


def loss_of(
    settings: TrainingSettings, labels: np.ndarray, count: int, distillation_loss: DistillationLoss | None
) -> Loss:
    """Return a function that computes the named parts of the loss of a batch; "loss" is minimized.

    labels: of all training rows, for the class weights. count: number of labels.
    """
    labeled = labels[labels != UNLABELED]
    label_loss = hard_loss if len(labeled) == len(labels) else known_loss
    weights = None
    if settings.class_weights and len(labeled):
        share = np.bincount(labeled, minlength=count) / len(labeled)
        weights = torch.tensor(1 / (count * share), dtype=torch.float32)

    def parts(output: dict[str, torch.Tensor], batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        logits = output["logits"].float()
        class_weights = None if weights is None else weights.to(logits.device)
        hard = label_loss(logits, batch["labels"], settings.loss, class_weights)
        if distillation_loss is None or "teacher_logits" not in batch:
            return {"loss": hard}
        soft = soft_loss(logits, batch["teacher_logits"], distillation_loss.temperature)
        total = distillation_loss.alpha * soft + (1 - distillation_loss.alpha) * hard
        feature_weights = {} if distillation_loss.features is None else distillation_loss.features.weights
        feature_losses = {name: output[name] for name in feature_weights if name in output}  # none in validation
        for name, value in feature_losses.items():
            total = total + feature_weights[name] * value
        return {"loss": total, "total_loss": total, "soft_loss": soft, "hard_loss": hard, **feature_losses}

    return parts


class StudentWithTeacher(nn.Module):
    """A student's network that also computes feature losses against its teacher while training.

    Its parameters are those of the student and, if hidden states differ in width, one linear projection per student
    layer, from the student's width to the teacher's (Jiao et al. 2020). The teacher is not registered as a submodule:
    it is not trained, saved or moved to another device.
    """

    def __init__(self, student: nn.Module, features: FeatureTargets, seed: int) -> None:
        super().__init__()
        self.student = student
        self.config: Any = student.config
        self.features = features
        features.teacher.network.eval()
        self.encoders = _encoder(student), _encoder(features.teacher.network)  # dataclasses, so not registered
        own, target = self.encoders
        self.pairs = layer_pairs(len(own.layers), len(target.layers))
        self.projections = nn.ModuleList()
        if "hidden_loss" in features.weights and own.width != target.width:
            random = torch.Generator().manual_seed(seed)  # separate, so that the student's dropout does not change
            self.projections.extend(_projection(own.width, target.width, random) for _ in self.pairs)

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> dict[str, torch.Tensor]:
        """Return logits (batch, labels) and, in training mode, the unweighted losses of the method."""
        if not self.training:
            return self.student(input_ids, attention_mask)
        student_layers, teacher_layers = zip(*self._compared_layers(), strict=True)
        with _captured(self._state_modules(self.encoders[0], student_layers)) as student_states:
            output = self.student(input_ids, attention_mask)
        with torch.no_grad(), _captured(self._state_modules(self.encoders[1], teacher_layers)) as teacher_states:
            self.features.teacher.network(input_ids, attention_mask)
        return {"logits": output["logits"], **self._losses(student_states, teacher_states, attention_mask)}

    def _compared_layers(self) -> list[tuple[int, int]]:
        """Return pairs of student and teacher layers; for relations only the last ones (Wang et al. 2021)."""
        return self.pairs[-1:] if self.features.method == "relation" else self.pairs

    def _state_modules(self, encoder: "_Encoder", layers: Sequence[int]) -> dict[tuple[str, int], nn.Module]:
        """Return the modules of `encoder` whose outputs the method needs."""
        kinds_by_loss = {"hidden_loss": "h", "attention_loss": "qk", "relation_loss": "qkv"}
        kinds = "".join(kinds_by_loss[loss] for loss in self.features.weights)
        return {(kind, layer): encoder.module(kind, layer) for layer in layers for kind in kinds}

    def _losses(self, student: "_States", teacher: "_States", mask: torch.Tensor) -> dict[str, torch.Tensor]:
        """Return the mean of each loss of the method over the compared layers."""
        losses: dict[str, list[torch.Tensor]] = {name: [] for name in self.features.weights}
        student_heads, teacher_heads = (encoder.heads for encoder in self.encoders)
        for s, t in self._compared_layers():
            if "hidden_loss" in losses:
                hidden = self.projections[s](student["h", s]) if self.projections else student["h", s]
                losses["hidden_loss"].append(hidden_loss(hidden, teacher["h", t], mask))
            if "attention_loss" in losses:
                student_maps = attention_log_maps(student["q", s], student["k", s], student_heads, mask)
                teacher_maps = attention_log_maps(teacher["q", t], teacher["k", t], teacher_heads, mask)
                losses["attention_loss"].append(attention_loss(student_maps, teacher_maps, mask))
            if "relation_loss" in losses:
                vectors = [student[kind, s] for kind in "qkv"], [teacher[kind, t] for kind in "qkv"]
                widths = (each.shape[-1] for each in (*vectors[0], *vectors[1]))
                heads = relation_heads(student_heads, teacher_heads, *widths)
                losses["relation_loss"].append(relation_loss(*vectors, heads, mask))
        return {name: torch.stack(values).mean() for name, values in losses.items()}


def layer_pairs(student: int, teacher: int) -> list[tuple[int, int]]:
    """Return (student layer, teacher layer) pairs: uniform, last to last (Jiao et al. 2020)."""
    return [(s, max(round((s + 1) * teacher / student) - 1, 0)) for s in range(student)]


def refuse_unfit(method: str, teacher: Classifier, student: Classifier) -> None:
    """Raise InputError if `method` does not support this teacher and student. `logit` supports any pair."""
    if method == "logit":
        return
    if not _same_tokenization(teacher, student):
        raise InputError(
            f"--kd-method {method}: teacher and student have different tokenizers, so their tokens do not correspond; "
            "use --kd-method logit, or a student with the teacher's tokenizer: --student layers:N or shape:LxH"
        )
    if student.max_length is not None and teacher.max_length is not None and student.max_length > teacher.max_length:
        raise InputError(
            f"--kd-method {method}: the student reads up to {student.max_length} tokens, but the teacher only "
            f"{teacher.max_length}; use --max-length {teacher.max_length} or --kd-method logit"
        )
    for role, classifier in (("teacher", teacher), ("student", student)):
        model_type = getattr(classifier.network.config, "model_type", type(classifier.network).__name__)
        try:
            encoder = _encoder(classifier.network)
        except InputError:
            raise InputError(
                f"--kd-method {method}: layers of the {role} ({model_type}) are not supported; use --kd-method logit"
            ) from None
        if method != "hidden" and is_cut(classifier.network):
            raise InputError(
                f"--kd-method {method}: the {role} is pruned, so its layers differ in their number of attention heads; "
                "use --kd-method hidden or logit"
            )
        if method != "hidden" and not all(map(_projection_paths, encoder.layers)):
            raise InputError(
                f"--kd-method {method}: query, key and value projections of the {role} ({model_type}) "
                "are not supported; use --kd-method hidden or logit"
            )


_States = Mapping[tuple[str, int], torch.Tensor]
"""Outputs (batch, tokens, width) by kind (h: hidden state; q, k, v: query, key, value vectors) and layer."""


@dataclass(frozen=True, eq=False)
class _Encoder:
    """The parts of an encoder that feature distillation uses."""

    layers: nn.ModuleList
    width: int
    heads: int

    def module(self, kind: str, layer: int) -> nn.Module:
        if kind == "h":
            return self.layers[layer]
        paths = _projection_paths(self.layers[layer])
        assert paths is not None, "refuse_unfit refuses such networks"
        return self.layers[layer].get_submodule(paths["qkv".index(kind)])


def _encoder(network: Any) -> _Encoder:
    """Return the encoder of `network`. Raise InputError if it has no transformer or no separate layers."""
    encoder = encoder_of(network)
    if encoder is None:
        raise InputError(f"{type(network).__name__} is not a transformer")
    config = encoder.config  # DistilBERT has these names as aliases
    return _Encoder(encoder_layers(encoder), config.hidden_size, config.num_attention_heads)


def _projection_paths(layer: nn.Module) -> tuple[str, str, str] | None:
    names = {name for name, _ in layer.named_modules()}
    return next((paths for paths in PROJECTIONS if names.issuperset(paths)), None)


def _projection(width: int, teacher_width: int, random: torch.Generator) -> nn.Linear:
    """Return a randomly initialized linear map that preserves the scale of its inputs."""
    linear = nn.utils.skip_init(nn.Linear, width, teacher_width)
    nn.init.normal_(linear.weight, std=width**-0.5, generator=random)
    nn.init.zeros_(linear.bias)
    return linear


_Key = TypeVar("_Key", bound=Hashable)


@contextmanager
def _captured(modules: Mapping[_Key, nn.Module]) -> Iterator[dict[_Key, torch.Tensor]]:
    """Return a context that collects the outputs of `modules`. Its hooks are removed on exit."""
    outputs: dict[_Key, torch.Tensor] = {}

    def store_as(key: _Key) -> Any:
        def hook(module: nn.Module, inputs: Any, output: Any) -> None:
            outputs[key] = output[0] if isinstance(output, tuple) else output  # layers return tuples

        return hook

    handles = [module.register_forward_hook(store_as(key)) for key, module in modules.items()]
    try:
        yield outputs
    finally:
        for handle in handles:
            handle.remove()


def _same_tokenization(first: Classifier, second: Classifier) -> bool:
    """Return whether both tokenize texts to the same ids, apart from truncation."""
    return first.pad_id == second.pad_id and _settings(first.tokenizer) == _settings(second.tokenizer)


def _settings(tokenizer: Tokenizer) -> dict[str, Any]:
    return json.loads(tokenizer.to_str()) | {"padding": None, "truncation": None}
