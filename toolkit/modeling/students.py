"""A smaller classifier: from a teacher's layers, from a shape, or a smaller pretrained encoder.

The student without a transformer is in `toolkit.ngram`.
"""

import copy
import re
from collections.abc import Sequence
from dataclasses import replace

import torch

from toolkit.config.settings import ModelSettings
from toolkit.modeling.architecture import encoder_layers, keep_layers
from toolkit.modeling.classifier import Classifier, PooledClassifier
from toolkit.modeling.encoders import build_classifier, classifier_from_shape, parse_shape
from toolkit.utils.errors import InputError

OPTION = "--student"


def build_student(
    student: str, teacher: Classifier, settings: ModelSettings, texts: Sequence[str], seed: int
) -> Classifier:
    """The untrained student that `student` names: layers:N, layers:I,J,…, shape:LxH[xA], a folder or a hub id.

    A student made from layers or a shape shares the teacher's tokenizer.
    Raises: InputError if the specification is broken or does not fit the teacher.
    """
    if student.startswith("layers:"):
        return student_from_layers(teacher, student)
    shape = parse_shape(student, OPTION)
    if shape is not None:
        torch.manual_seed(seed)
        return classifier_from_shape(shape, teacher.tokenizer, teacher.pad_id, settings, teacher.labels)
    return build_classifier(replace(settings, model=student, freeze_base=False), teacher.labels, texts, seed)


def student_from_layers(teacher: Classifier, student: str) -> Classifier:
    """A copy of `teacher` with some of its layers: layers:N evenly spaced, first and last included, or those named.

    Raises: InputError if the specification is broken or names layers that the teacher has not.
    """
    if not isinstance(teacher.network, PooledClassifier):
        raise InputError(f"{OPTION} {student}: needs a teacher that hbt train made; use shape:LxH")
    network = copy.deepcopy(teacher.network)
    network.requires_grad_(True)
    keep_layers(network.encoder, _chosen_layers(student, len(encoder_layers(network.encoder))))
    return Classifier(network, teacher.tokenizer, teacher.pad_id, teacher.labels)


def evenly_spaced(layers: int, count: int) -> list[int]:
    """`count` of the layer numbers 0 … layers-1, the first and the last included; the last alone for one."""
    if count == 1:
        return [layers - 1]
    return [round(i * (layers - 1) / (count - 1)) for i in range(count)]


def _chosen_layers(student: str, layers: int) -> list[int]:
    """The layer numbers, counted from 0, that `student` names of a teacher with so many layers."""
    count = re.fullmatch(r"layers:([1-9]\d*)", student)
    if count:
        if int(count[1]) > layers:
            raise InputError(f"{OPTION} {student}: the teacher has {layers} layers; give that many or fewer")
        return evenly_spaced(layers, int(count[1]))
    if not re.fullmatch(r"layers:\d+(,\d+)+", student):
        raise InputError(
            f"{OPTION} {student}: write layers:N with the number of layers to keep, such as layers:4, "
            "or the layers themselves, counted from 0: layers:0,4,8,11"
        )
    named = [int(number) for number in student.removeprefix("layers:").split(",")]
    if named != sorted(set(named)) or named[-1] >= layers:
        raise InputError(
            f"{OPTION} {student}: the teacher has the layers 0 to {layers - 1}; name each once, in rising order"
        )
    return named
