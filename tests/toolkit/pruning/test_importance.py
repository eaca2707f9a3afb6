import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn import functional

from tests.helpers import examples, random_logits
from toolkit.config.settings import ModelSettings, TrainingSettings
from toolkit.data.corpus import Corpus
from toolkit.modeling.architecture import architecture_of
from toolkit.modeling.classifier import Classifier
from toolkit.modeling.encoders import build_classifier
from toolkit.modeling.surgery import Kept, cut
from toolkit.pruning.importance import magnitude_importance, mean_loss, taylor_importance
from toolkit.training.dataset import Examples
from toolkit.training.feature_distillation import DistillationLoss

TRAINING = TrainingSettings()
WIDTH, HEADS, NEURONS = 32, 4, 128


@pytest.fixture(scope="module")
def made(toy: Corpus) -> Classifier:
    settings = ModelSettings(model="shape:2x32x4", pooling="mean", max_length=32)
    return build_classifier(settings, toy.label_names, toy.take(toy.rows("train")), seed=3)


@pytest.fixture(scope="module")
def few(toy: Corpus) -> Examples:
    """Texts of different lengths, so that batches are padded."""
    rows = examples(toy, "train")
    texts = [text + " sea" * (i % 5) for i, text in enumerate(rows.texts[:40])]
    return Examples(texts, rows.labels[:40], 2 * random_logits(40))


def loss_of_one(made: Classifier, few: Examples, i: int) -> torch.Tensor:
    """The hard loss of one unpadded text, computed directly."""
    ids = torch.tensor([made.tokenizer.encode(few.texts[i]).ids])
    logits = made.network(ids, torch.ones_like(ids))["logits"]
    return functional.cross_entropy(logits, torch.tensor(few.labels[i : i + 1]))


def test_importance_is_the_derivative_of_the_loss_of_each_text_by_a_gate(made: Classifier, few: Examples) -> None:
    """A gate scales the outgoing weights of a unit, so their gradients give the same derivative."""
    heads, neurons = np.zeros((2, HEADS)), np.zeros((2, NEURONS))
    made.network.eval()
    for i in range(len(few.texts)):
        made.network.zero_grad()
        loss_of_one(made, few, i).backward()
        for place, layer in enumerate(architecture_of(made.network).layers):
            for found, part, units in ((heads, "context", HEADS), (neurons, "out", NEURONS)):
                weight = layer.linear(part).weight
                assert weight.grad is not None
                by_column = (weight.detach() * weight.grad).sum(0)  # d loss / d gate of each column
                found[place] += by_column.reshape(units, -1).sum(1).abs().numpy() / len(few.texts)
    made.network.zero_grad()
    importance = taylor_importance(made, few, TRAINING, None)
    np.testing.assert_allclose(np.stack(importance.heads), heads, rtol=2e-3, atol=1e-8)
    np.testing.assert_allclose(np.stack(importance.neurons), neurons, rtol=2e-3, atol=1e-8)


def test_scoring_leaves_the_network_as_it_was(made: Classifier, few: Examples) -> None:
    before = made.predict_logits(few.texts)
    weights = copy.deepcopy(made.network.state_dict())
    taylor_importance(made, few, TRAINING, DistillationLoss(0.5, 2.0))
    assert all(torch.equal(weights[name], tensor) for name, tensor in made.network.state_dict().items())
    assert all(parameter.grad is None for parameter in made.network.parameters())
    assert made.predict_logits(few.texts).tobytes() == before.tobytes()


def test_the_distillation_loss_is_used(made: Classifier, few: Examples) -> None:
    by_labels, by_teacher = (
        taylor_importance(made, few, TRAINING, loss) for loss in (None, DistillationLoss(1.0, 2.0))
    )
    relabeled = replace(few, labels=1 - few.labels)
    again = taylor_importance(made, relabeled, TRAINING, DistillationLoss(1.0, 2.0))
    np.testing.assert_array_equal(by_teacher.neurons[0], again.neurons[0])
    assert np.abs(by_teacher.neurons[0] - by_labels.neurons[0]).max() > 1e-3 * by_labels.neurons[0].max()


def test_a_unit_without_outgoing_weights_has_no_importance(made: Classifier, few: Examples) -> None:
    changed = replace(made, network=copy.deepcopy(made.network))
    layer = architecture_of(changed.network).layers[1]
    with torch.no_grad():
        layer.linear("out").weight[:, 5] = 0
        layer.linear("context").weight[:, 8:16] = 0
    importance = taylor_importance(changed, few, TRAINING, None)
    assert importance.neurons[1][5] == 0
    assert importance.heads[1][1] == 0
    assert np.count_nonzero(importance.neurons[1]) == NEURONS - 1
    assert np.count_nonzero(importance.heads[1]) == HEADS - 1


def test_importance_bounds_the_loss_change_of_removing_a_head(made: Classifier, few: Examples) -> None:
    """To first order, the loss changes by the mean derivative, whose absolute value is at most the score."""
    importance = taylor_importance(made, few, TRAINING, None)
    full = Kept(tuple(range(HEADS)), tuple(range(NEURONS)))
    before = mean_loss(made, few, TRAINING, None)
    for head in range(HEADS):
        network = copy.deepcopy(made.network)
        cut(network, [Kept(tuple(h for h in range(HEADS) if h != head), full.neurons), full])
        after = mean_loss(replace(made, network=network), few, TRAINING, None)
        assert abs(after - before) <= 1.1 * importance.heads[0][head] + 1e-5


def test_mean_loss_is_the_mean_over_single_texts(made: Classifier, few: Examples) -> None:
    made.network.eval()
    with torch.no_grad():
        expected = np.mean([float(loss_of_one(made, few, i)) for i in range(len(few.texts))])
    assert mean_loss(made, few, TRAINING, None) == pytest.approx(expected, rel=1e-5)
    logits = torch.tensor(made.predict_logits(few.texts))
    assert few.teacher_logits is not None
    p, q = (torch.log_softmax(each / 2, dim=1) for each in (torch.tensor(few.teacher_logits), logits))
    soft = 4 * (p.exp() * (p - q)).sum(1).mean()
    assert mean_loss(made, few, TRAINING, DistillationLoss(0.3, 2.0)) == pytest.approx(
        0.3 * float(soft) + 0.7 * expected, rel=1e-4
    )


def test_magnitude_importance_is_the_norm_of_the_removed_weights(made: Classifier) -> None:
    importance = magnitude_importance(made)
    layer = architecture_of(made.network).layers[0]
    rows = slice(8, 16)  # of the second head
    removed = [layer.linear(part).weight[rows] for part in ("query", "key", "value")]
    removed.append(layer.linear("context").weight[:, rows])
    expected = sum(float(each.detach().square().sum()) for each in removed) ** 0.5
    assert importance.heads[0][1] == pytest.approx(expected, rel=1e-5)
    neuron = [layer.linear("into").weight[7], layer.linear("out").weight[:, 7]]
    expected = sum(float(each.detach().square().sum()) for each in neuron) ** 0.5
    assert importance.neurons[0][7] == pytest.approx(expected, rel=1e-5)
