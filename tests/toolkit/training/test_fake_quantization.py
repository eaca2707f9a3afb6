"""Fake quantization computes as int8 does, restores the network, and lowers the quantized loss by training."""

import copy
import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from tests.helpers import examples, tiny_recipe
from tests.toolkit.modeling.test_architecture import KINDS, NEURONS, UNSUPPORTED, network_of
from toolkit.config.recipe import Recipe
from toolkit.data.corpus import Corpus
from toolkit.evaluation.predictions import Predictions
from toolkit.modeling.classifier import Classifier, SequenceClassifier, pad
from toolkit.modeling.ngram import NgramConfig, NgramNetwork
from toolkit.modeling.tokenizer import encode
from toolkit.pruning.importance import mean_loss
from toolkit.stages.distillation_data import DistillationData, distillation_data
from toolkit.stages.quantization_aware import LEARNING_RATE_FACTOR, quantization_aware
from toolkit.stages.teachers import Teacher
from toolkit.training.fake_quantization import Batches, fake_quantized
from toolkit.utils.errors import InputError

WORDS = 80
HOOKS = ("_forward_hooks", "_forward_pre_hooks")


def batch(texts: int = 8, tokens: int = 12, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    ids = torch.randint(2, WORDS, (texts, tokens), generator=torch.Generator().manual_seed(seed))
    return ids, torch.ones_like(ids)


def batches_of(classifier: Classifier, texts: list[str]) -> Batches:
    return [pad(encode(classifier.tokenizer, texts), classifier.pad_id)]


def weights(network: nn.Module) -> list[tuple[str, bytes]]:
    """Return names and bytes in order, because optimizer states depend on the order of parameters."""
    return [(name, tensor.numpy().tobytes()) for name, tensor in network.state_dict().items()]


def hooks(network: nn.Module) -> int:
    return sum(len(getattr(module, kind)) for module in network.modules() for kind in HOOKS)


def inputs_of(network: nn.Module, names: list[str], given: tuple[torch.Tensor, torch.Tensor]) -> dict[str, np.ndarray]:
    """Return the inputs, (tokens, in), of the modules `names`."""
    found = {}

    def store(name: str) -> Any:
        return lambda _, inputs: found.update({name: inputs[0].detach().double().flatten(0, -2).numpy()})

    handles = [network.get_submodule(name).register_forward_pre_hook(store(name)) for name in names]
    with torch.no_grad():
        network(*given)
    for handle in handles:
        handle.remove()
    return found


def quantized(values: np.ndarray, low: float, high: float) -> np.ndarray:
    """Return uint8 integers times their scale."""
    scale = (high - low) / 255
    zero = np.round(-low / scale)
    return (np.clip(np.round(values / scale) + zero, 0, 255) - zero) * scale


def by_hand(fed: np.ndarray, calibrated: np.ndarray, linear: Any, group: list[Any]) -> np.ndarray:
    """Return the output of the quantized `linear`, which shares its input with all maps in `group`."""
    weights = np.concatenate([each.weight.detach().double().numpy() for each in group])
    smoothing = np.abs(calibrated).max(0) ** 0.8 / np.abs(weights).max(0) ** 0.2
    low, high = min(0.0, (calibrated / smoothing).min()), max(0.0, (calibrated / smoothing).max())
    smooth = linear.weight.detach().double().numpy() * smoothing
    scales = np.abs(smooth).max(1, keepdims=True) / 127
    return quantized(fed / smoothing, low, high) @ (np.round(smooth / scales) * scales).T + linear.bias.detach().numpy()


def test_a_fake_quantized_map_computes_integers_times_scales() -> None:
    network = network_of("bert", WORDS)
    layer = "encoder.encoder.layer.0."
    shared = [f"{layer}attention.self.{part}" for part in ("query", "key", "value")]
    names = [*shared, f"{layer}attention.output.dense", f"{layer}intermediate.dense", f"{layer}output.dense"]
    plain = copy.deepcopy(network)
    maps: dict[str, Any] = {name: plain.get_submodule(name) for name in names}
    calibrated = inputs_of(plain, names, batch())
    outputs = {}
    with fake_quantized(network, [batch()]):
        handles = [
            network.get_submodule(name).register_forward_hook(lambda _, i, o, n=name: outputs.update({n: o.detach()}))
            for name in names
        ]
        for name in names:  # on the calibration inputs, and on others, some of them out of range
            given = 1.5 * torch.randn(40, maps[name].in_features, generator=torch.Generator().manual_seed(1))
            for fed in (given, torch.tensor(calibrated[name], dtype=torch.float32)):
                network.get_submodule(name)(fed)
                group = [maps[each] for each in shared] if name in shared else [maps[name]]
                expected = by_hand(fed.double().numpy(), calibrated[name], maps[name], group)
                errors = np.abs(outputs[name].numpy() - expected)
                # A value halfway between two levels may be rounded either way in float32.
                assert np.quantile(errors, 0.99) < 1e-5 * np.abs(expected).max()
                assert np.abs(expected - maps[name](fed).detach().numpy()).max() > 1e-3
        for handle in handles:
            handle.remove()


def test_rows_of_large_embeddings_are_int8_and_small_ones_float() -> None:
    network = network_of("bert", WORDS)
    words, places = (getattr(network.encoder.embeddings, f"{part}_embeddings") for part in ("word", "position"))
    table = words.weight.detach().double().numpy()
    scales = np.abs(table).max(1, keepdims=True) / 127
    ids = torch.arange(26).view(2, 13)
    with fake_quantized(network, [batch()]):
        np.testing.assert_allclose(words(ids).detach(), (np.round(table / scales) * scales)[ids], atol=1e-6)
        assert torch.equal(places(ids), places.weight[ids])
        words(ids).sum().backward()
    assert torch.equal(words.weight.grad[2:26], torch.ones_like(words.weight[2:26]))


def test_gradients_pass_straight_through_and_stop_outside_the_range() -> None:
    network = network_of("bert", WORDS)
    name = "encoder.encoder.layer.1.intermediate.dense"
    seen = torch.tensor(inputs_of(network, [name], batch())[name], dtype=torch.float32)
    linear: Any = network.get_submodule(name)
    with fake_quantized(network, [batch()]):
        fed = (0.5 * seen[:5]).requires_grad_()
        far = torch.full_like(fed, 1e4).requires_grad_()
        linear(fed).sum().backward()
        quantizer = linear.parametrizations.weight[0]
        torch.testing.assert_close(fed.grad, linear.weight.detach().sum(0).expand_as(fed))
        torch.testing.assert_close(
            linear.parametrizations.weight.original.grad,
            quantizer.inputs(fed).detach().sum(0).expand_as(linear.weight),
        )
        linear(far).sum().backward()
        assert far.grad is not None
        assert not far.grad.any()


def test_a_pruned_column_and_a_dead_input_stay_finite() -> None:
    network = network_of("bert", WORDS)
    layer = network.encoder.encoder.layer[0]
    with torch.no_grad():
        layer.intermediate.dense.weight[3] = 0
        layer.intermediate.dense.bias[3] = -50  # GELU maps it to exactly 0 for every text
        layer.output.dense.weight[:, 3] = 0
        network.encoder.embeddings.word_embeddings.weight[5] = 0
    with fake_quantized(network, [batch()]):
        logits = network(*batch(seed=1))["logits"]
        logits.sum().backward()
    assert torch.isfinite(logits).all()
    assert all(torch.isfinite(p.grad).all() for p in network.parameters() if p.grad is not None)


def test_padding_does_not_widen_the_range() -> None:
    network = network_of("bert", WORDS)
    network.encoder.embeddings.word_embeddings.weight.data[1] = 30 * torch.randn(32)
    ids, mask = batch()
    more = torch.ones(8, 4, dtype=torch.int64)
    padded = torch.cat([ids, more], 1), torch.cat([mask, 0 * more], 1)
    outputs = []
    for calibration in (ids, mask), padded:
        with fake_quantized(network, [calibration]):
            outputs.append(network(ids, mask)["logits"].detach())
    torch.testing.assert_close(*outputs, atol=5e-3, rtol=0)


@pytest.mark.parametrize("kind", KINDS)
def test_the_network_is_restored(kind: str) -> None:
    network = network_of(kind, WORDS)
    types = [type(module) for module in network.modules()]
    before, logits = weights(network), network(*batch())["logits"]
    with fake_quantized(network, [batch()]):
        assert not torch.equal(network(*batch())["logits"], logits)
        assert type(network.head) is nn.Linear
        linears = [module for module in network.encoder.modules() if isinstance(module, nn.Linear)]
        assert all(hasattr(linear, "parametrizations") for linear in linears)
    assert weights(network) == before
    assert hooks(network) == 0
    assert [type(module) for module in network.modules()] == types
    assert torch.equal(network(*batch())["logits"], logits)
    assert not network.training


@pytest.mark.parametrize("broken", ["inside", "in calibration"])
def test_the_network_is_restored_after_an_error(broken: str) -> None:
    network = network_of("bert", WORDS).train()
    before = weights(network)
    calibration = [batch()] if broken == "inside" else [batch(), (torch.tensor([[10**6]]), torch.tensor([[1]]))]
    with pytest.raises((KeyError, IndexError)), fake_quantized(network, calibration):
        raise KeyError
    assert weights(network) == before
    assert hooks(network) == 0
    assert network.training
    assert not any(hasattr(module, "parametrizations") for module in network.modules())


def test_the_pooler_and_head_of_a_hugging_face_classifier_are_not_quantized() -> None:
    from transformers import BertConfig, BertForSequenceClassification

    model = BertForSequenceClassification(
        BertConfig(vocab_size=WORDS, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64)
    )
    network = SequenceClassifier(model)
    with fake_quantized(network, [batch()]):
        found = {name for name, module in network.named_modules() if hasattr(module, "parametrizations")}
    assert len(found) == 2 * 6
    assert all(name.startswith("model.bert.encoder.layer.") for name in found)


def test_fake_quantization_works_under_bfloat16_autocast() -> None:
    network = network_of("bert", WORDS)
    name = "encoder.encoder.layer.0.output.dense"
    steps: dict[str, torch.Tensor] = {}
    with fake_quantized(network, [batch()]), torch.autocast("cpu", torch.bfloat16):
        linear: Any = network.get_submodule(name)
        quantizer = linear.parametrizations.weight[0]
        handle = linear.register_forward_pre_hook(lambda _, inputs: steps.update(fed=inputs[0].detach()))
        network(*batch())["logits"].sum().backward()
        handle.remove()
        exact = linear.weight.detach() * quantizer.smoothing
    assert steps["fed"].dtype == torch.bfloat16
    fed = torch.randn(9, NEURONS, generator=torch.Generator().manual_seed(0)).bfloat16()
    assert torch.equal(quantizer.inputs(fed), quantizer.inputs(fed.float()).bfloat16())
    scales = exact.abs().amax(1, keepdim=True) / 127
    torch.testing.assert_close(exact / scales, (exact / scales).round(), atol=1e-3, rtol=0)
    assert network.encoder.encoder.layer[0].output.dense.weight.grad.dtype == torch.float32


@pytest.mark.parametrize("kind", ["bart", "ngram"])
def test_an_unsupported_network_is_refused_in_one_line(kind: str) -> None:
    network = NgramNetwork(NgramConfig(8, 1)) if kind == "ngram" else network_of(kind, **UNSUPPORTED[kind])
    with pytest.raises(InputError, match=r"^--quant-method qat: ") as caught, fake_quantized(network, [batch()]):
        pass
    assert "\n" not in str(caught.value)


def recipe_for_toy(**changed: Any) -> Recipe:
    settings = {"fine_tune_epochs": 2, "calib_samples": 64, "batch_size": 16, "kd_learning_rate": 4e-3}
    return tiny_recipe(**(settings | changed))


def data_for_toy(corpus: Corpus, where: Path, **changed: Any) -> DistillationData:
    """Return distillation data with a teacher that predicts every label correctly."""
    rows = corpus.rows("all")
    logits = 4 * (np.eye(2, dtype=np.float32)[corpus.labels[rows]] - 0.5)
    teacher = Teacher(where, Predictions(rows, logits), 0.5, "made up", "teacher", ())
    return distillation_data(teacher, corpus, recipe_for_toy(**changed), where)


def test_training_recovers_the_loss_from_quantization(monkeypatch: pytest.MonkeyPatch) -> None:
    """The target is the output before coarse quantization, so without quantization the loss would be 0."""
    monkeypatch.setattr("toolkit.training.fake_quantization.INT8_MAX", 2)
    network = network_of("bert", WORDS)
    expected = network(*batch())["logits"].detach()
    optimizer = torch.optim.Adam(network.parameters(), 1e-3)
    losses = []
    with fake_quantized(network, [batch()]):
        for _ in range(60):
            loss = (network(*batch())["logits"] - expected).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
    assert np.mean(losses[-10:]) < 0.2 * losses[0]


def test_training_lowers_the_quantized_loss_and_does_not_change_the_given_classifier(
    learned: Classifier, toy: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("toolkit.training.fake_quantization.INT8_MAX", 2)
    data = data_for_toy(toy, tmp_path)
    given = weights(learned.network)
    watched: list[int] = []
    made, details = quantization_aware(learned, data, tmp_path / "work", lambda epoch, _: watched.append(epoch))
    assert weights(learned.network) == given
    assert hooks(learned.network) == hooks(made.network) == 0
    assert [name for name, _ in weights(made.network)] == [name for name, _ in given]
    moved = {name for (name, now), (_, before) in zip(weights(made.network), given, strict=True) if now != before}
    assert {name for name, _ in given if "layer.0" in name and name.endswith("dense.weight")} < moved
    assert watched == [epoch["epoch"] for epoch in details["history"]] == [1, 2]
    assert details["learning_rate"] == pytest.approx(4e-3 * LEARNING_RATE_FACTOR)
    assert (made.labels, made.threshold, made.network.training) == (learned.labels, learned.threshold, False)
    losses = []
    for classifier in (learned, made):
        with fake_quantized(classifier.network, batches_of(classifier, list(examples(toy, "train").texts))):
            losses.append(mean_loss(classifier, data.validation, data.training, None))
    assert losses[1] < 0.7 * losses[0]


class Killed(Exception):
    pass


@pytest.mark.slow
def test_an_interrupted_training_resumes_only_with_the_same_settings(
    learned: Classifier, toy: Corpus, tmp_path: Path
) -> None:
    data = data_for_toy(toy, tmp_path)

    def kill(epoch: int, _: Any) -> None:
        if epoch == 2:
            raise Killed

    uninterrupted, expected = quantization_aware(learned, data, tmp_path / "uninterrupted")
    with pytest.raises(Killed):
        quantization_aware(learned, data, tmp_path / "interrupted", kill)
    seen: list[int] = []
    resumed, found = quantization_aware(learned, data, tmp_path / "interrupted", lambda epoch, _: seen.append(epoch))
    assert seen == [2]
    assert found == expected
    assert weights(resumed.network) == weights(uninterrupted.network)
    other = data_for_toy(toy, tmp_path, fine_tune_epochs=3)
    quantization_aware(learned, other, tmp_path / "interrupted", lambda epoch, _: seen.append(epoch))
    assert seen == [2, 1, 2, 3]


def test_an_ngram_student_is_refused_before_anything_is_computed(
    learned: Classifier, toy: Corpus, tmp_path: Path
) -> None:
    ngram = dataclasses.replace(learned, network=NgramNetwork(NgramConfig(8, 1)))
    with pytest.raises(InputError, match=r"^--quant-method qat: .*leave it out$"):
        quantization_aware(ngram, data_for_toy(toy, tmp_path), tmp_path / "work")
    assert not (tmp_path / "work").exists()
