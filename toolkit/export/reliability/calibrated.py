"""Calibrate a classifier before it is exported: the scaling is in its weights, so that every runtime has it."""

import copy
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import nn

from toolkit.data.corpus import Corpus
from toolkit.evaluation.predictions import Predictions
from toolkit.evaluation.reliability.scaling import Scaling, ScalingChoice, choose_scaling
from toolkit.modeling.classifier import Classifier
from toolkit.modeling.ngram import NgramNetwork

CHECKED, TOLERANCE = 4, 1e-3
"""Texts on which a scaled classifier is checked, and how far its logits may be from what they should be."""


def scaling_for(classifier: Classifier, predictions: Predictions, corpus: Corpus) -> ScalingChoice:
    """Return the scaling of the logits of a classifier, chosen on the validation rows; none if it cannot be built in.

    predictions: of the classifier in single precision.
    """
    rows = corpus.rows("validation")
    choice = choose_scaling(corpus.labels[rows], predictions.of(rows))
    texts = corpus.take(rows[:CHECKED])
    if choice.scaling == Scaling() or _is_scaled(classifier, scaled(classifier, choice.scaling), choice.scaling, texts):
        return choice
    return ScalingChoice(Scaling(), "none", choice.rows, choice.loss_before, choice.loss_before)


def scaled(classifier: Classifier, scaling: Scaling) -> Classifier:
    """Return a copy of a classifier with scaled logits, and its decision rule moved so that no label changes.

    Of a Hugging Face classifier, the last linear layer with one output per label is scaled.
    """
    if scaling == Scaling():
        return classifier
    labels = len(classifier.labels)
    network: Any = copy.deepcopy(classifier.network)
    with torch.no_grad():
        if isinstance(network, NgramNetwork):
            network.table[:, 1:].mul_(scaling.scale)
            # With two labels, there is one output: the difference of the logits.
            network.intercept.mul_(scaling.scale).add_(scaling.shift)
        else:
            layers = [each for each in network.modules() if isinstance(each, nn.Linear) and each.out_features == labels]
            for head in layers[-1:]:
                shifts = torch.tensor(scaling.shifts(labels), dtype=head.weight.dtype, device=head.weight.device)
                before = torch.zeros_like(shifts) if head.bias is None else head.bias
                head.weight.mul_(scaling.scale)
                head.bias = nn.Parameter(scaling.scale * before + shifts)
    rule = None if classifier.rule is None else scaling.moved(classifier.rule, labels)
    return replace(classifier, network=network, rule=rule)


def _is_scaled(before: Classifier, after: Classifier, scaling: Scaling, texts: list[str]) -> bool:
    """Return whether the logits are what they should be: some architectures end in no linear layer."""
    expected = scaling.apply(before.predict_logits(texts))
    return bool(np.allclose(after.predict_logits(texts), expected, rtol=TOLERANCE, atol=TOLERANCE))
