"""A student that looks inside its teacher: hidden states, attention maps or self-attention relations.

The teacher's network runs beside the student's in every training step, since its states on all texts would
not fit on a disk; what it says of a text, its logits, is computed once elsewhere. States are read by hooks
on layers and on their query, key and value projections, so no network has to compute attention slowly.
"""

import json
from collections.abc import Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

import torch
from tokenizers import Tokenizer
from torch import nn

from toolkit.modeling.architecture import encoder_layers, encoder_of
from toolkit.modeling.classifier import Classifier
from toolkit.modeling.surgery import is_cut
from toolkit.training.losses import attention_log_maps, attention_loss, hidden_loss, relation_heads, relation_loss
from toolkit.utils.errors import InputError

RELATION_WEIGHT = 1.0
"""Of the relation loss beside the logits'. Inside it MiniLMv2 weighs the three relations equally, and so do we."""
PROJECTIONS = (
    ("attention.self.query", "attention.self.key", "attention.self.value"),  # BERT, RoBERTa, ELECTRA, ...
    ("attention.q_lin", "attention.k_lin", "attention.v_lin"),  # DistilBERT
)
"""Where the layers of an architecture have their query, key and value projections."""
FeatureMethod = Literal["hidden", "attention", "multi_level", "relation"]


@dataclass(frozen=True, eq=False)
class FeatureTargets:
    """What a student imitates inside a teacher, and how much of the loss that is."""

    teacher: Classifier
    """One network. It is read, never trained."""
    method: FeatureMethod
    hidden_weight: float
    attention_weight: float

    @property
    def weights(self) -> dict[str, float]:
        """The weight of each loss that the method has."""
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
    """The weight of the teacher in the loss, and the temperature that softens both (Hinton et al. 2015)."""

    alpha: float
    temperature: float
    features: FeatureTargets | None = None
    """What is imitated besides logits, and weighed besides alpha."""


class StudentWithTeacher(nn.Module):
    """The student's network, with its teacher at its side while it trains.

    Its parameters are those of the student and, where hidden states differ in width, one linear projection
    a student layer, from the student's width to the teacher's (Jiao et al. 2020). The teacher is no part of it:
    it is not trained, saved or moved along.
    """

    def __init__(self, student: nn.Module, features: FeatureTargets, seed: int) -> None:
        super().__init__()
        self.student = student
        self.config: Any = student.config
        self.features = features
        features.teacher.network.eval()
        self.bodies = _body(student), _body(features.teacher.network)  # not registered: neither is a module
        mine, theirs = self.bodies
        self.pairs = layer_pairs(len(mine.layers), len(theirs.layers))
        self.projections = nn.ModuleList()
        if "hidden_loss" in features.weights and mine.width != theirs.width:
            random = torch.Generator().manual_seed(seed)  # its own, so that the student's dropout stays as it was
            self.projections.extend(_projection(mine.width, theirs.width, random) for _ in self.pairs)

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> dict[str, torch.Tensor]:
        """Logits (batch, labels) and, in training, the losses of the method, not weighed."""
        if not self.training:
            return self.student(input_ids, attention_mask)
        student_layers, teacher_layers = zip(*self._followed(), strict=True)
        with _captured(self._states(self.bodies[0], student_layers)) as mine:
            output = self.student(input_ids, attention_mask)
        with torch.no_grad(), _captured(self._states(self.bodies[1], teacher_layers)) as theirs:
            self.features.teacher.network(input_ids, attention_mask)
        return {"logits": output["logits"], **self._losses(mine, theirs, attention_mask)}

    def _followed(self) -> list[tuple[int, int]]:
        """Pairs of student and teacher layers; relations are those of the last alone (Wang et al. 2021)."""
        return self.pairs[-1:] if self.features.method == "relation" else self.pairs

    def _states(self, body: "_Body", layers: Sequence[int]) -> dict[tuple[str, int], nn.Module]:
        """The modules of `body` whose outputs the method needs."""
        kinds = {"hidden_loss": "h", "attention_loss": "qk", "relation_loss": "qkv"}
        wanted = "".join(kinds[loss] for loss in self.features.weights)
        return {(kind, layer): body.module(kind, layer) for layer in layers for kind in wanted}

    def _losses(self, mine: "_States", theirs: "_States", mask: torch.Tensor) -> dict[str, torch.Tensor]:
        found: dict[str, list[torch.Tensor]] = {name: [] for name in self.features.weights}
        my_heads, their_heads = (body.heads for body in self.bodies)
        for s, t in self._followed():
            if "hidden_loss" in found:
                hidden = self.projections[s](mine["h", s]) if self.projections else mine["h", s]
                found["hidden_loss"].append(hidden_loss(hidden, theirs["h", t], mask))
            if "attention_loss" in found:
                my_maps = attention_log_maps(mine["q", s], mine["k", s], my_heads, mask)
                their_maps = attention_log_maps(theirs["q", t], theirs["k", t], their_heads, mask)
                found["attention_loss"].append(attention_loss(my_maps, their_maps, mask))
            if "relation_loss" in found:
                vectors = [mine[kind, s] for kind in "qkv"], [theirs[kind, t] for kind in "qkv"]
                heads = relation_heads(my_heads, their_heads, *(each.shape[-1] for each in (*vectors[0], *vectors[1])))
                found["relation_loss"].append(relation_loss(*vectors, heads, mask))
        return {name: torch.stack(losses).mean() for name, losses in found.items()}


def layer_pairs(student: int, teacher: int) -> list[tuple[int, int]]:
    """Which teacher layer each student layer follows: uniform, the last the last (Jiao et al. 2020)."""
    return [(s, max(round((s + 1) * teacher / student) - 1, 0)) for s in range(student)]


def refuse_unfit(method: str, teacher: Classifier, student: Classifier) -> None:
    """Raises InputError if `student` cannot imitate `teacher` by `method`. Logits fit any pair."""
    if method == "logit":
        return
    if not _read_alike(teacher, student):
        raise InputError(
            f"--kd-method {method}: teacher and student have different tokenizers, so their tokens do not correspond; "
            "take --kd-method logit, or a student with the teacher's tokenizer: --student layers:N or shape:LxH"
        )
    if student.max_length > teacher.max_length:
        raise InputError(
            f"--kd-method {method}: the student reads {student.max_length} tokens of a text and the teacher "
            f"{teacher.max_length}; give --max-length {teacher.max_length} or take --kd-method logit"
        )
    for role, made in (("teacher", teacher), ("student", student)):
        kind = getattr(made.network.config, "model_type", type(made.network).__name__)
        try:
            body = _body(made.network)
        except InputError:
            raise InputError(
                f"--kd-method {method}: the {role} is a {kind} network, whose layers are not known here; "
                "take --kd-method logit"
            ) from None
        if method != "hidden" and is_cut(made.network):
            raise InputError(
                f"--kd-method {method}: the {role} is pruned, so its layers have attention heads of their own number; "
                "take --kd-method hidden or logit"
            )
        if method != "hidden" and not all(map(_projection_paths, body.layers)):
            raise InputError(
                f"--kd-method {method}: the {role} is a {kind} network, whose query, key and value projections "
                "are not known here; take --kd-method hidden or logit"
            )


_States = Mapping[tuple[str, int], torch.Tensor]
"""Outputs (batch, tokens, width) by kind (h: hidden state; q, k, v: query, key, value vectors) and layer."""


@dataclass(frozen=True, eq=False)
class _Body:
    """The encoder of a classifier, as far as imitation looks into it."""

    layers: nn.ModuleList
    width: int
    heads: int

    def module(self, kind: str, layer: int) -> nn.Module:
        if kind == "h":
            return self.layers[layer]
        paths = _projection_paths(self.layers[layer])
        assert paths is not None, "refuse_unfit lets no such network through"
        return self.layers[layer].get_submodule(paths["qkv".index(kind)])


def _body(network: Any) -> _Body:
    """Raises InputError where an architecture has no layers of its own."""
    encoder = encoder_of(network)
    if encoder is None:
        raise InputError(f"a {type(network).__name__} is no transformer")
    config = encoder.config  # DistilBERT's has its own names, and these too
    return _Body(encoder_layers(encoder), config.hidden_size, config.num_attention_heads)


def _projection_paths(layer: nn.Module) -> tuple[str, str, str] | None:
    names = {name for name, _ in layer.named_modules()}
    return next((paths for paths in PROJECTIONS if names.issuperset(paths)), None)


def _projection(width: int, teacher_width: int, random: torch.Generator) -> nn.Linear:
    """A linear map that keeps the size of what goes through it, untrained."""
    made = nn.utils.skip_init(nn.Linear, width, teacher_width)
    nn.init.normal_(made.weight, std=width**-0.5, generator=random)
    nn.init.zeros_(made.bias)
    return made


_Key = TypeVar("_Key", bound=Hashable)


@contextmanager
def _captured(modules: Mapping[_Key, nn.Module]) -> Iterator[dict[_Key, torch.Tensor]]:
    """What `modules` put out while this is open. No hook outlives it, or the network would be saved with it."""
    found: dict[_Key, torch.Tensor] = {}

    def keep(key: _Key) -> Any:
        def hook(module: nn.Module, inputs: Any, output: Any) -> None:
            found[key] = output[0] if isinstance(output, tuple) else output  # layers put out tuples

        return hook

    handles = [module.register_forward_hook(keep(key)) for key, module in modules.items()]
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()


def _read_alike(first: Classifier, second: Classifier) -> bool:
    """Whether a text becomes the same ids, but for where it is cut."""
    return first.pad_id == second.pad_id and _rules(first.tokenizer) == _rules(second.tokenizer)


def _rules(tokenizer: Tokenizer) -> dict[str, Any]:
    return json.loads(tokenizer.to_str()) | {"padding": None, "truncation": None}
