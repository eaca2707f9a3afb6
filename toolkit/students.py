"""A smaller classifier: from a teacher's layers, from a shape, or a smaller pretrained encoder."""

import copy
import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from toolkit.classifier import Classifier, PooledClassifier
from toolkit.encoders import build_classifier, classifier_from_shape, parse_shape
from toolkit.errors import InputError
from toolkit.recipe import ModelSettings

OPTION = "--student"


def build_student(
    student: str, teacher: Classifier, settings: ModelSettings, texts: Sequence[str], seed: int
) -> Classifier:
    """The untrained student that `student` names: layers:N, shape:LxH, a folder or a hub id.

    A student made from layers or a shape shares the teacher's tokenizer.
    Raises: InputError if the specification is broken or does not fit the teacher.
    """
    if student.startswith("layers:"):
        return student_from_layers(teacher, _layer_count(student))
    shape = parse_shape(student, OPTION)
    if shape is not None:
        torch.manual_seed(seed)
        return classifier_from_shape(shape, teacher.tokenizer, teacher.pad_id, settings, teacher.labels)
    return build_classifier(replace(settings, model=student, freeze_base=False), teacher.labels, texts, seed)


def student_from_layers(teacher: Classifier, count: int) -> Classifier:
    """A copy of `teacher` with `count` of its layers, evenly spaced with the first and the last among them."""
    if not isinstance(teacher.network, PooledClassifier):
        raise InputError(f"{OPTION} layers:{count}: needs a teacher that hbt train made; use shape:LxH")
    network = copy.deepcopy(teacher.network)
    network.requires_grad_(True)
    layers = encoder_layers(network.encoder)
    if count > len(layers):
        raise InputError(f"{OPTION} layers:{count}: the teacher has {len(layers)} layers; give that many or fewer")
    kept = evenly_spaced(len(layers), count)
    for place, layer in enumerate([layers[i] for i in kept]):
        layers[place] = layer
    del layers[count:]
    setattr(network.config, "n_layers" if hasattr(network.config, "n_layers") else "num_hidden_layers", count)
    return Classifier(network, teacher.tokenizer, teacher.pad_id, teacher.labels)


def evenly_spaced(layers: int, count: int) -> list[int]:
    """`count` of the layer numbers 0 … layers-1, the first and the last included; the last alone for one."""
    if count == 1:
        return [layers - 1]
    return [round(i * (layers - 1) / (count - 1)) for i in range(count)]


def encoder_layers(encoder: Any) -> nn.ModuleList:
    """The layers of an encoder, in order. Raises InputError where an architecture has none of its own."""
    for path in ("encoder.layer", "transformer.layer"):
        try:
            found = encoder.get_submodule(path)
        except AttributeError:
            continue
        if isinstance(found, nn.ModuleList):
            return found
    raise InputError(
        f"{OPTION} layers:N: a {encoder.config.model_type} encoder has no layers to choose from; use shape:LxH"
    )


def _layer_count(student: str) -> int:
    number = re.fullmatch(r"layers:([1-9]\d*)", student)
    if not number:
        raise InputError(f"{OPTION} {student}: write layers:N with the number of layers to keep, such as layers:4")
    return int(number[1])
