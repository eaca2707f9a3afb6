"""Build a smaller classifier: from layers of the teacher, from a shape, or from a smaller pretrained encoder.

The student without a transformer is in `toolkit.modeling.ngram`.
"""

import copy
import re
from collections.abc import Sequence
from dataclasses import replace

import torch
from tokenizers import Tokenizer

from toolkit.config.settings import ModelSettings
from toolkit.modeling.architecture import encoder_layers, keep_layers
from toolkit.modeling.classifier import Classifier, PooledClassifier, SequenceClassifier
from toolkit.modeling.encoders import build_classifier, classifier_from_shape, parse_shape
from toolkit.utils.errors import InputError

OPTION = "--student"


def build_student(
    student: str, teacher: Classifier, settings: ModelSettings, texts: Sequence[str], seed: int
) -> Classifier:
    """Build the untrained student `student`: layers:N, layers:I,J,…, shape:LxH[xA], a folder or a hub id.

    A student built from layers or a shape shares the teacher's tokenizer.
    Raises: InputError if the specification is invalid or does not fit the teacher.
    """
    if student.startswith("layers:"):
        return student_from_layers(teacher, student)
    shape = parse_shape(student, OPTION)
    if shape is not None:
        torch.manual_seed(seed)
        tokenizer = teacher.tokenizer
        if isinstance(teacher.network, SequenceClassifier):  # it may read more tokens than the settings ask for
            tokenizer = Tokenizer.from_str(tokenizer.to_str())
            tokenizer.enable_truncation(min(settings.max_length, teacher.max_length or settings.max_length))
        return classifier_from_shape(shape, tokenizer, teacher.pad_id, settings, teacher.labels)
    return build_classifier(replace(settings, model=student, freeze_base=False), teacher.labels, texts, seed)


def student_from_layers(teacher: Classifier, student: str) -> Classifier:
    """Return a copy of `teacher` with some of its layers: N evenly spaced ones (layers:N), or those listed.

    Raises: InputError if the specification is invalid or lists layers that the teacher does not have.
    """
    if not isinstance(teacher.network, PooledClassifier):
        raise InputError(f"{OPTION} {student}: needs a teacher trained with hbt; use shape:LxH")
    network = copy.deepcopy(teacher.network)
    network.requires_grad_(True)
    keep_layers(network.encoder, _chosen_layers(student, len(encoder_layers(network.encoder))))
    return Classifier(network, teacher.tokenizer, teacher.pad_id, teacher.labels)


def evenly_spaced(layers: int, count: int) -> list[int]:
    """Return `count` evenly spaced indices of 0 … layers-1, with both ends; only the last one if `count` is 1."""
    if count == 1:
        return [layers - 1]
    return [round(i * (layers - 1) / (count - 1)) for i in range(count)]


def _chosen_layers(student: str, layers: int) -> list[int]:
    """Return the indices of the layers to keep of a teacher with `layers` layers.

    Raises: InputError if `student` is invalid or lists layers that do not exist.
    """
    count = re.fullmatch(r"layers:([1-9]\d*)", student)
    if count:
        if int(count[1]) > layers:
            raise InputError(f"{OPTION} {student}: the teacher has {layers} layers; keep {layers} or fewer")
        return evenly_spaced(layers, int(count[1]))
    if not re.fullmatch(r"layers:\d+(,\d+)+", student):
        raise InputError(
            f"{OPTION} {student}: use layers:N with the number of layers to keep, such as layers:4, "
            "or list the layers to keep, counted from 0, such as layers:0,4,8,11"
        )
    listed = [int(number) for number in student.removeprefix("layers:").split(",")]
    if listed != sorted(set(listed)) or listed[-1] >= layers:
        raise InputError(
            f"{OPTION} {student}: the teacher has layers 0 to {layers - 1}; list each layer once, in ascending order"
        )
    return listed
