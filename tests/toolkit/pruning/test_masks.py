import copy
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from safetensors.numpy import save_file
from scipy.special import erf, softmax
from torch import nn
from transformers import (
    AlbertConfig,
    AlbertModel,
    BertConfig,
    BertModel,
    DistilBertConfig,
    DistilBertForSequenceClassification,
    DistilBertModel,
)

from toolkit.modeling.classifier import (
    WEIGHTS_FILE,
    Classifier,
    PooledClassifier,
    SequenceClassifier,
    pad,
    save_classifier,
)
from toolkit.modeling.ngram import NgramConfig, NgramNetwork
from toolkit.pruning.masks import (
    Gradual,
    Growth,
    Part,
    Schedule,
    apply_masks,
    counted_sparsity,
    hold,
    magnitude_scores,
    masks_of,
    prunable,
    scheduled_sparsity,
    sparsest,
    wanda_scores,
    zstd_size,
)
from toolkit.utils.errors import InputError

LAYERS, HEADS, WORDS = 2, 4, 50
COMMON: dict[str, Any] = {"vocab_size": WORDS, "max_position_embeddings": 16, "initializer_range": 0.3}
USUAL = COMMON | {
    "hidden_size": 32, "num_hidden_layers": LAYERS, "num_attention_heads": HEADS, "intermediate_size": 64,
}  # fmt: skip
DISTIL = DistilBertConfig(**COMMON, dim=32, n_layers=LAYERS, n_heads=HEADS, hidden_dim=64)
WEIGHTS = LAYERS * (4 * 32 * 32 + 2 * 32 * 64)
"""Number of weights in the linear layers of the BERT encoder."""
BATCHES = [[[4, 9, 13, 2, 30], [7, 8]], [[11, 3, 49], [5, 6, 7, 8, 9, 10, 12], [40]]]
"""Token ids of the texts of two batches."""

Grid = list[list[float]]


def network(kind: str = "bert") -> PooledClassifier:
    torch.manual_seed(0)
    encoders: dict[str, Callable[[], nn.Module]] = {
        "bert": lambda: BertModel(BertConfig(**USUAL)),
        "distilbert": lambda: DistilBertModel(DISTIL),
        "albert": lambda: AlbertModel(AlbertConfig(**USUAL, embedding_size=16)),
    }
    return PooledClassifier(encoders[kind](), "mean", 2, 0.1).eval()


def padded() -> list[tuple[torch.Tensor, torch.Tensor]]:
    return [pad(texts, 0) for texts in BATCHES]


def tensors(**grids: Grid) -> dict[str, torch.Tensor]:
    return {name: torch.tensor(grid) for name, grid in grids.items()}


def lists(masks: dict[str, torch.Tensor]) -> dict[str, list[list[int]]]:
    assert all(mask.dtype == torch.bool for mask in masks.values())
    return {name: mask.int().tolist() for name, mask in masks.items()}


def zeros(made: nn.Module, part: Part = "encoder") -> int:
    return sum(int((linear.weight == 0).sum()) for linear in prunable(made, part).values())


def maps(layers: list[str], attention: list[str], ffn: list[str]) -> dict[str, set[str]]:
    found = {
        part: {f"encoder.{layer}.{name}" for layer in layers for name in names}
        for part, names in (("attention", attention), ("ffn", ffn))
    }
    return found | {"encoder": found["attention"] | found["ffn"]}


NAMES = {
    "bert": maps(
        ["encoder.layer.0", "encoder.layer.1"],
        ["attention.self.query", "attention.self.key", "attention.self.value", "attention.output.dense"],
        ["intermediate.dense", "output.dense"],
    ),
    "distilbert": maps(
        ["transformer.layer.0", "transformer.layer.1"],
        ["attention.q_lin", "attention.k_lin", "attention.v_lin", "attention.out_lin"],
        ["ffn.lin1", "ffn.lin2"],
    ),
    "albert": maps(
        ["encoder.albert_layer_groups.0.albert_layers.0"],
        ["attention.query", "attention.key", "attention.value", "attention.dense"],
        ["ffn", "ffn_output"],
    ),
}
OTHERS = {"bert": {"head"}, "distilbert": {"head"}, "albert": {"head", "encoder.encoder.embedding_hidden_mapping_in"}}


@pytest.mark.parametrize("part", ["attention", "ffn", "encoder", "all"])
@pytest.mark.parametrize("kind", NAMES)
def test_prunable_returns_the_linear_layers_of_a_part(kind: str, part: Part) -> None:
    made = network(kind)
    expected = NAMES[kind]["encoder"] | OTHERS[kind] if part == "all" else NAMES[kind][part]
    found = prunable(made, part)
    assert set(found) == expected
    assert all(made.get_submodule(name) is linear for name, linear in found.items())


def test_prunable_includes_the_head_of_an_imported_model() -> None:
    made = SequenceClassifier(DistilBertForSequenceClassification(DISTIL))
    encoder = {name.replace("encoder.", "model.distilbert.", 1) for name in NAMES["distilbert"]["encoder"]}
    assert set(prunable(made, "encoder")) == encoder
    assert set(prunable(made, "all")) == encoder | {"model.pre_classifier", "model.classifier"}


def test_prunable_refuses_a_network_without_a_transformer() -> None:
    with pytest.raises(InputError, match="without a transformer"):
        prunable(NgramNetwork(NgramConfig(8, 1)), "all")


def linear_of(weight: Grid) -> nn.Linear:
    made = nn.Linear(len(weight[0]), len(weight))
    made.weight.data = torch.tensor(weight)
    return made


def test_magnitude_is_ranked_over_all_matrices() -> None:
    """Of eight weights, the four smallest are dropped, all of them in one matrix."""
    linears = {"large": linear_of([[10.0, -50.0], [5.0, 30.0]]), "small": linear_of([[-1.0, 2.0], [4.0, -3.0]])}
    scores = magnitude_scores(linears)
    assert scores["small"].tolist() == [[1, 2], [4, 3]]
    assert lists(sparsest(scores, 0.5, per_row=False)) == {"large": [[1, 1], [1, 1]], "small": [[0, 0], [0, 0]]}
    assert lists(sparsest(scores, 0.75, per_row=False))["large"] == [[0, 1], [0, 1]]


def test_every_row_has_the_same_sparsity() -> None:
    scores = tensors(a=[[1, 4, 3, 2], [10, 20, 40, 30]], b=[[100, 200]])
    assert lists(sparsest(scores, 0.5, per_row=True)) == {"a": [[0, 1, 1, 0], [0, 0, 1, 1]], "b": [[0, 1]]}


def test_of_equal_scores_the_first_are_dropped_first() -> None:
    scores = tensors(a=[[2, 1, 1], [1, 1, 0]], b=[[1, 1, 1]])
    assert lists(sparsest(scores, 5 / 9, per_row=False)) == {"a": [[1, 0, 0], [0, 0, 0]], "b": [[1, 1, 1]]}
    assert lists(sparsest(scores, 6 / 9, per_row=False)) == {"a": [[1, 0, 0], [0, 0, 0]], "b": [[0, 1, 1]]}
    assert lists(sparsest(scores, 1 / 3, per_row=True)) == {"a": [[1, 0, 1], [1, 1, 0]], "b": [[0, 1, 1]]}


@pytest.mark.parametrize("sparsity", [0, 0.1, 1 / 3, 0.5, 0.77, 0.99, 1])
@pytest.mark.parametrize("per_row", [False, True])
def test_masks_agree_with_a_stable_sort(sparsity: float, per_row: bool) -> None:
    """With many tied scores; the number of zeros is exact."""
    random = np.random.default_rng(1)
    grids = {name: random.integers(0, 6, shape).astype(np.float32) for name, shape in (("a", (7, 5)), ("b", (3, 11)))}
    found = sparsest({name: torch.tensor(grid) for name, grid in grids.items()}, sparsity, per_row)
    lines = [row for grid in grids.values() for row in (grid if per_row else [grid.ravel()])]
    lines = lines if per_row else [np.concatenate(lines)]
    expected = [np.ones(len(line), dtype=bool) for line in lines]
    for line, kept in zip(lines, expected, strict=True):
        kept[np.argsort(line, kind="stable")[: round(sparsity * len(line))]] = False
    np.testing.assert_array_equal(np.concatenate([found[n].numpy().ravel() for n in grids]), np.concatenate(expected))
    assert [found[name].shape for name in grids] == [grid.shape for grid in grids.values()]


def bert_inputs(made: PooledClassifier, text: list[int]) -> Iterator[tuple[str, np.ndarray]]:
    """The input (tokens, in) of each linear layer of `made` for one unpadded text, computed with NumPy."""
    state = {name: tensor.double().numpy() for name, tensor in made.state_dict().items()}

    def through(name: str, values: np.ndarray) -> np.ndarray:
        return values @ state[f"{name}.weight"].T + state[f"{name}.bias"]

    def norm(name: str, values: np.ndarray) -> np.ndarray:
        spread = values - values.mean(-1, keepdims=True)
        return spread / spread.std(-1, keepdims=True) * state[f"{name}.weight"] + state[f"{name}.bias"]

    def by_head(values: np.ndarray) -> np.ndarray:
        return values.reshape(len(values), HEADS, -1).swapaxes(0, 1)  # (heads, tokens, width of a head)

    with torch.no_grad():
        hidden = made.encoder.embeddings(torch.tensor([text]))[0].double().numpy()  # (tokens, width)
    for layer in (f"encoder.encoder.layer.{i}" for i in range(LAYERS)):
        attention = [f"{layer}.attention.self.{part}" for part in ("query", "key", "value")]
        yield from ((name, hidden) for name in attention)
        query, key, value = (by_head(through(name, hidden)) for name in attention)
        weights = softmax(query @ key.swapaxes(1, 2) / query.shape[-1] ** 0.5, axis=-1)
        context = (weights @ value).swapaxes(0, 1).reshape(len(text), -1)
        yield f"{layer}.attention.output.dense", context
        context = through(f"{layer}.attention.output.dense", context)
        hidden = norm(f"{layer}.attention.output.LayerNorm", hidden + context)
        yield f"{layer}.intermediate.dense", hidden
        inner = through(f"{layer}.intermediate.dense", hidden)
        inner = inner * (1 + erf(inner / 2**0.5)) / 2
        yield f"{layer}.output.dense", inner
        hidden = norm(f"{layer}.output.LayerNorm", hidden + through(f"{layer}.output.dense", inner))
    yield "head", hidden.mean(0, keepdims=True)


def test_wanda_agrees_with_its_definition() -> None:
    """|W| times the norm of the inputs over all texts, computed without padding."""
    made = network()
    squares: dict[str, np.ndarray] = {}
    for text in (text for batch in BATCHES for text in batch):
        for name, inputs in bert_inputs(made, text):
            squares[name] = squares.get(name, 0) + (inputs**2).sum(0)
    found = wanda_scores(made, padded(), prunable(made, "all"))
    assert set(found) == set(squares)
    for name, score in found.items():
        weight = made.state_dict()[f"{name}.weight"].numpy()
        np.testing.assert_allclose(score.numpy(), np.abs(weight) * np.sqrt(squares[name]), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("kind", NAMES)
def test_wanda_ignores_padding(kind: str) -> None:
    made = network(kind)
    linears = prunable(made, "all")
    other = [(torch.where(mask == 1, ids, 17), mask) for ids, mask in padded()]
    unmasked = [(ids, torch.ones_like(mask)) for ids, mask in other]
    scores, same, changed = (wanda_scores(made, batches, linears) for batches in (padded(), other, unmasked))
    for name in linears:
        torch.testing.assert_close(same[name], scores[name])
        assert not torch.allclose(changed[name], scores[name], rtol=1e-2)


def test_wanda_sums_all_calls_of_a_shared_layer() -> None:
    made = network("albert")
    layer = "encoder.encoder.albert_layer_groups.0.albert_layers.0"
    squares = torch.zeros(32, dtype=torch.float64)
    for text in (text for batch in BATCHES for text in batch):
        with torch.no_grad():
            states = made.encoder(torch.tensor([text]), output_hidden_states=True).hidden_states
        squares += sum(
            state[0].double().square().sum(0) for state in states[:LAYERS]
        )  # the last is the input of the head
    weight = made.state_dict()[f"{layer}.attention.key.weight"]
    found = wanda_scores(made, padded(), prunable(made, "attention"))[f"{layer}.attention.key"]
    torch.testing.assert_close(found, weight.abs() * squares.sqrt().float())


def test_wanda_leaves_the_network_as_it_was() -> None:
    """Also after an error; and in training mode the scores are the same, without dropout."""
    made = network()
    linears = prunable(made, "all")
    expected = wanda_scores(made, padded(), linears)
    assert not made.training
    made.train()
    found = wanda_scores(made, padded(), linears)
    assert all(found[name].equal(expected[name]) for name in linears)
    with pytest.raises(IndexError):
        wanda_scores(made, [(torch.tensor([[WORDS + 1]]), torch.tensor([[1]]))], linears)
    assert all(module.training and not module._forward_hooks for module in made.modules())


@pytest.mark.parametrize(("schedule", "half"), [("linear", 0.4), ("cubic", 0.8 * 7 / 8), ("exponential", 1 - 0.2**0.5)])
def test_schedules_have_the_expected_values(schedule: Schedule, half: float) -> None:
    found = [scheduled_sparsity(0.8, schedule, progress) for progress in (-1, 0, 0.5, 1, 3)]
    assert found == pytest.approx([0, 0, half, 0.8, 0.8])


def test_sparsity_rises_at_the_given_frequency_and_at_the_end() -> None:
    growth = Growth(0.8, "linear", start_step=10, end_step=20, frequency=4)
    due = {step: growth.due(step) for step in range(1, 31)}
    grown = {step: share for step, share in due.items() if share is not None}
    assert grown == pytest.approx({10: 0, 14: 0.32, 18: 0.64, 20: 0.8})
    assert Growth(0.8, "cubic", 5, 5, 1).due(5) == 0.8


def learn(made: nn.Module, first: int, last: int, watch: Callable[[int], None]) -> None:
    """Some steps of gradient descent on random texts that depend only on the step."""
    optimizer = torch.optim.SGD(made.parameters(), lr=0.05)
    for step in range(first, last + 1):
        ids = torch.randint(1, WORDS, (4, 6), generator=torch.Generator().manual_seed(step))
        logits = made(ids, torch.ones_like(ids))["logits"]
        optimizer.zero_grad()
        nn.functional.cross_entropy(logits, ids[:, 0] % 2).backward()
        optimizer.step()
        watch(step)


GROWTH = Growth(0.75, "cubic", start_step=2, end_step=15, frequency=3)


def test_gradual_masks_drop_the_smallest_weights_and_keep_them_zero() -> None:
    made = network()
    linears = prunable(made, "encoder")
    gradual = Gradual(made, linears, GROWTH)
    seen: list[tuple[int, int]] = []
    moved = 0

    def after_step(step: int) -> None:
        nonlocal moved
        before = gradual.masks
        weights = {name: linear.weight.detach().clone() for name, linear in linears.items()}
        moved += sum(int((weights[name][~mask] != 0).sum()) for name, mask in before.items())
        gradual.after_step(step)
        after = {name: linear.weight != 0 for name, linear in linears.items()}
        assert all((after[name] <= before[name]).all() for name in linears), "a pruned weight is not zero"
        assert all(linears[name].weight[mask].equal(weights[name][mask]) for name, mask in after.items())
        dropped = torch.cat([weights[name][before[name] & ~after[name]].abs() for name in linears])
        if len(dropped):
            assert dropped.max() <= min(weights[name][mask].abs().min() for name, mask in after.items())
        seen.append((step, zeros(made)))

    learn(made, 1, 18, after_step)
    assert moved > 10_000, "the optimizer must change masked weights for this test"
    grown = {step: round(0.75 * (1 - (1 - (step - 2) / 13) ** 3) * WEIGHTS) for step in (2, 5, 8, 11, 14)}
    grown |= {1: 0, 15: 3 * WEIGHTS // 4}
    assert seen == [(step, grown[max(s for s in grown if s <= step)]) for step in range(1, 19)]
    assert zeros(made, "all") == zeros(made), "the head must not be pruned"


@pytest.mark.parametrize("stopped", [9, 17])
def test_a_resumed_training_restores_the_masks_from_the_zeros(stopped: int) -> None:
    """Interrupted before or after the final sparsity: the result is that of an uninterrupted training."""
    straight, halted, resumed = network(), network(), network()
    names = list(prunable(straight, "encoder"))
    learn(straight, 1, 20, Gradual(straight, names, GROWTH).after_step)
    learn(halted, 1, stopped, Gradual(halted, names, GROWTH).after_step)
    resumed.load_state_dict(halted.state_dict())
    learn(resumed, stopped + 1, 20, Gradual(resumed, names, GROWTH).after_step)
    assert zeros(resumed) == 0.75 * WEIGHTS
    assert all(resumed.state_dict()[name].equal(tensor) for name, tensor in straight.state_dict().items())


@pytest.mark.parametrize(("final", "expected"), [(1 / 64, 32 * 32), (0.75, 0.75 * WEIGHTS)])
def test_a_pruned_weight_stays_pruned(final: float, expected: float) -> None:
    """A matrix that is zero from the start stays zero, and its zeros count toward the sparsity."""
    made = network()
    linears = prunable(made, "encoder")
    last = linears["encoder.encoder.layer.1.attention.output.dense"]
    last.weight.data.zero_()
    gradual = Gradual(made, linears, Growth(final, "linear", 0, 1, 1))
    last.weight.data.fill_(100.0)  # as an optimizer step may do
    linears["encoder.encoder.layer.0.attention.self.query"].weight.data[0] = 0.0  # zero by chance, not masked
    gradual.after_step(1)
    assert (last.weight == 0).all()
    assert sum(int((~mask).sum()) for mask in gradual.masks.values()) == expected


def test_fixed_masks_do_not_change() -> None:
    made = network()
    linears = prunable(made, "ffn")
    masks = sparsest(magnitude_scores(linears), 0.6, per_row=True)
    before = copy.deepcopy(made.state_dict())
    learn(made, 1, 3, hold(made, masks))
    for name, linear in linears.items():
        assert (linear.weight == 0).equal(~masks[name])
        assert not linear.weight[masks[name]].equal(before[f"{name}.weight"][masks[name]]), "nothing was trained"


def test_masks_are_restored_from_zeros_without_negative_zeros() -> None:
    made = network()
    linears = prunable(made, "attention")
    before = copy.deepcopy(made.state_dict())
    assert all(mask.all() for mask in masks_of(made, linears).values())
    masks = sparsest(magnitude_scores(linears), 0.3, per_row=False)
    apply_masks(made, masks)
    found = masks_of(made, linears)
    assert list(found) == list(linears)
    assert all(found[name].equal(masks[name]) for name in linears)
    for name, linear in linears.items():
        assert linear.weight.requires_grad
        assert not linear.weight[~masks[name]].signbit().any()
    for name, tensor in made.state_dict().items():
        kept = masks.get(name.removesuffix(".weight"), torch.ones_like(tensor, dtype=torch.bool))
        assert tensor[kept].equal(before[name][kept])


def test_zeros_are_counted_in_the_named_weights_of_the_file(tmp_path: Path) -> None:
    stored = {
        "a.weight": np.array([[0, 1], [-0.0, 2]], dtype=np.float32),
        "a.bias": np.zeros(2, dtype=np.float32),
        "b.weight": np.array([[1e-30, 0, 5]], dtype=np.float32),
        "c.weight": np.zeros((9, 9), dtype=np.float32),
    }
    save_file(stored, tmp_path / "made.safetensors")
    assert counted_sparsity(tmp_path / "made.safetensors", ["a", "b"]) == 3 / 7


def test_a_sparse_checkpoint_has_the_same_size_but_compresses_better(classifier: Classifier, tmp_path: Path) -> None:
    sparse = replace(classifier, network=copy.deepcopy(classifier.network))
    linears = prunable(sparse.network, "all")
    apply_masks(sparse.network, sparsest(magnitude_scores(linears), 0.8, per_row=False))
    save_classifier(classifier, tmp_path / "dense")
    save_classifier(sparse, tmp_path / "sparse")
    dense_file, sparse_file = (tmp_path / kind / WEIGHTS_FILE for kind in ("dense", "sparse"))
    count = sum(linear.weight.numel() for linear in linears.values())
    assert counted_sparsity(dense_file, linears) == 0
    assert counted_sparsity(sparse_file, linears) == round(0.8 * count) / count
    assert sparse_file.stat().st_size == dense_file.stat().st_size
    assert zstd_size(sparse_file) < zstd_size(dense_file) - count  # 3.2 bytes per weight are zero
    assert zstd_size(dense_file) < dense_file.stat().st_size


def test_zstd_uses_a_high_level(tmp_path: Path) -> None:
    """Level 19 compresses better than the default level."""
    data = " ".join(map(str, np.random.default_rng(0).integers(0, 999, 5_000))).encode()
    (tmp_path / "text").write_bytes(data)
    assert 0 < zstd_size(tmp_path / "text") < len(pa.compress(data, codec="zstd", asbytes=True))
