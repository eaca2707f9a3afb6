import copy
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnx
import pytest
import torch
from tokenizers import Tokenizer
from transformers import AutoModelForSequenceClassification

from exporters.registry import Evidence, exporter
from tests.helpers import ODD_TEXTS, TINY, written
from tests.toolkit.modeling.test_architecture import (
    DEPTH,
    HEAD_WEIGHTS,
    HEAD_WIDTH,
    HEADS,
    KINDS,
    LENGTH,
    NEURON_WEIGHTS,
    NEURONS,
    SEPARATE_LAYERS,
    UNSUPPORTED,
    WIDTH,
    network_of,
)
from toolkit.config.settings import ModelSettings
from toolkit.data.corpus import Corpus
from toolkit.evaluation.decision_rule import DecisionRule
from toolkit.modeling.architecture import Sizes, encoder_weights, sizes
from toolkit.modeling.classifier import Classifier, SequenceClassifier, load_classifier, pad, save_classifier
from toolkit.modeling.encoders import build_classifier
from toolkit.modeling.ngram import NgramConfig, NgramNetwork
from toolkit.modeling.students import build_student
from toolkit.modeling.surgery import Kept, cut, is_cut, shrink
from toolkit.modeling.tokenizer import PAD, encode, train_tokenizer
from toolkit.training.feature_distillation import FeatureMethod, FeatureTargets, StudentWithTeacher, refuse_unfit
from toolkit.utils.errors import InputError

KEPT = (
    Kept((0, 2), tuple(range(0, NEURONS, 3))),
    Kept((3,), (5,)),
    Kept((0, 1, 3), tuple(range(40, NEURONS))),
)
"""Different in each layer. ALBERT has one layer and uses the first."""
KEPT_SIZES = [Sizes(2, 22), Sizes(1, 1), Sizes(3, 24)]
OUTPUT_MAPS = {
    "albert": (
        "encoder.encoder.albert_layer_groups.0.albert_layers.{}.attention.dense",
        "encoder.encoder.albert_layer_groups.0.albert_layers.{}.ffn_output",
    ),
    "distilbert": ("encoder.transformer.layer.{}.attention.out_lin", "encoder.transformer.layer.{}.ffn.lin2"),
}
BERT_OUTPUT_MAPS = ("encoder.encoder.layer.{}.attention.output.dense", "encoder.encoder.layer.{}.output.dense")
"""Names of the output maps of the heads and of the neurons of a layer."""


class Pair(NamedTuple):
    """A classifier and a pruned copy. Do not change them."""

    kind: str
    unpruned: Classifier
    pruned: Classifier

    @property
    def kept(self) -> tuple[Kept, ...]:
        return kept_of(self.kind)

    @property
    def kept_sizes(self) -> list[Sizes]:
        return KEPT_SIZES[: len(self.kept)]


class Exported(NamedTuple):
    pair: Pair
    folder: Path
    facts: dict[str, Any]
    """The facts that the exporter returns."""


@pytest.fixture(scope="module")
def tokenizer(toy: Corpus) -> Tokenizer:
    return train_tokenizer(toy.texts, LENGTH)


@pytest.fixture(scope="module")
def texts(toy: Corpus) -> list[str]:
    return [*ODD_TEXTS, *toy.texts[:20]]


@pytest.fixture(scope="module", params=KINDS)
def pair(request: pytest.FixtureRequest, tokenizer: Tokenizer) -> Pair:
    unpruned = tiny(request.param, tokenizer)
    return Pair(request.param, unpruned, cut_copy(unpruned, kept_of(request.param)))


@pytest.fixture(scope="module")
def exported(pair: Pair, texts: list[str], tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """The int8 export of the pruned network, in a folder that the exporter can load."""
    folder = tmp_path_factory.mktemp(pair.kind)
    facts = written("onnx-int8", pair.pruned, evidence_without_labels(texts), folder / "int8")
    return Exported(pair, folder / "int8", facts)


def kept_of(kind: str) -> tuple[Kept, ...]:
    return KEPT[:1] if kind == "albert" else KEPT


def tiny(kind: str, tokenizer: Tokenizer, **changed: Any) -> Classifier:
    """Return a classifier with random weights whose head gives different logits for different texts."""
    pad_id = tokenizer.token_to_id(PAD)
    network = network_of(kind, tokenizer.get_vocab_size(), pad_id, **changed)
    torch.nn.init.normal_(network.head.weight)
    return Classifier(network, tokenizer, pad_id, ("a", "b"))


def cut_copy(made: Classifier, kept: Sequence[Kept | None]) -> Classifier:
    network = copy.deepcopy(made.network)
    cut(network, kept)
    return replace(made, network=network)


def with_zeroed_units(made: Classifier, kind: str, kept: Sequence[Kept]) -> Classifier:
    """Return an unpruned copy in which the outputs of the units that are not kept are zeroed."""
    network = copy.deepcopy(made.network)
    for place, units in enumerate(kept):
        context, out = (name.format(place) for name in OUTPUT_MAPS.get(kind, BERT_OUTPUT_MAPS))
        with torch.no_grad():
            for head in set(range(HEADS)) - set(units.heads):
                network.get_parameter(f"{context}.weight")[:, head * HEAD_WIDTH : (head + 1) * HEAD_WIDTH] = 0
            for neuron in set(range(NEURONS)) - set(units.neurons):
                network.get_parameter(f"{out}.weight")[:, neuron] = 0
    return replace(made, network=network)


def evidence_without_labels(texts: list[str]) -> Evidence:
    return Evidence(texts, texts, np.zeros(len(texts), dtype=np.int64), DecisionRule())


def in_double(made: Classifier, texts: list[str]) -> np.ndarray:
    """Return the logits of one padded batch in double precision, to avoid rounding errors."""
    ids, mask = pad(encode(made.tokenizer, texts), made.pad_id)
    assert not mask.all()
    with torch.inference_mode():
        return copy.deepcopy(made.network).double()(ids, mask)["logits"].numpy()


def written_layers(folder: Path) -> Any:
    return json.loads((folder / "config.json").read_text("utf-8"))["hbt"].get("layers")


def overwrite_layers(folder: Path, layers: Any) -> None:
    config = json.loads((folder / "config.json").read_text("utf-8"))
    config["hbt"]["layers"] = layers
    (folder / "config.json").write_text(json.dumps(config), "utf-8")


def test_removing_units_without_effect_does_not_change_the_logits(pair: Pair, texts: list[str]) -> None:
    zeroed = with_zeroed_units(pair.unpruned, pair.kind, pair.kept)
    after = cut_copy(zeroed, pair.kept)
    assert sizes(after.network) == pair.kept_sizes
    np.testing.assert_allclose(in_double(after, texts), in_double(zeroed, texts), rtol=0, atol=1e-6)


def test_removing_units_equals_zeroing_their_outputs(pair: Pair, texts: list[str]) -> None:
    expected = with_zeroed_units(pair.unpruned, pair.kind, pair.kept).predict_logits(texts)
    np.testing.assert_allclose(pair.pruned.predict_logits(texts), expected, rtol=1e-5, atol=1e-5)
    assert np.abs(pair.unpruned.predict_logits(texts) - expected).mean() > 0.5, "the removed units must have an effect"
    assert expected.std(axis=0).min() > 0.1, "the logits must depend on the texts"


def test_pruning_removes_exactly_the_weights_of_the_units(pair: Pair) -> None:
    removed = [(2, 42), (3, 63), (1, 40)][: len(pair.kept)]  # heads and neurons
    weights = sum(heads * HEAD_WEIGHTS + neurons * NEURON_WEIGHTS for heads, neurons in removed)
    assert pair.unpruned.parameters - pair.pruned.parameters == weights
    assert encoder_weights(pair.unpruned.network) - encoder_weights(pair.pruned.network) == weights


def test_units_are_kept_in_the_given_order(tokenizer: Tokenizer, texts: list[str]) -> None:
    unpruned = tiny("bert", tokenizer)
    reversed_units = [Kept(units.heads[::-1], units.neurons[::-1]) for units in KEPT]
    first, second = (cut_copy(unpruned, kept) for kept in (KEPT, reversed_units))
    np.testing.assert_allclose(in_double(first, texts), in_double(second, texts), atol=1e-9)
    name = "encoder.encoder.layer.2.output.dense.weight"
    assert torch.equal(first.network.get_parameter(name), second.network.get_parameter(name).flip(1))


def test_pruning_twice_equals_pruning_once(tokenizer: Tokenizer, texts: list[str]) -> None:
    unpruned = tiny("bert", tokenizer)
    first = cut_copy(unpruned, [Kept((0, 2, 3), tuple(range(0, NEURONS, 2)))] * DEPTH)
    second = cut_copy(first, [Kept((1, 2), (0, 5, 7))] * DEPTH)
    once = cut_copy(unpruned, [Kept((2, 3), (0, 10, 14))] * DEPTH)
    assert second.predict_logits(texts).tobytes() == once.predict_logits(texts).tobytes()


def test_a_pruned_network_can_be_saved_and_loaded(pair: Pair, texts: list[str], tmp_path: Path) -> None:
    save_classifier(pair.pruned, tmp_path)
    assert written_layers(tmp_path) == [{"heads": each.heads, "neurons": each.neurons} for each in pair.kept_sizes]
    again = load_classifier(tmp_path)
    assert sizes(again.network) == pair.kept_sizes
    assert again.parameters == pair.pruned.parameters
    assert again.predict_logits(texts).tobytes() == pair.pruned.predict_logits(texts).tobytes()
    save_classifier(again, tmp_path / "again")
    assert written_layers(tmp_path / "again") == written_layers(tmp_path)


def test_an_unpruned_network_is_saved_without_sizes(pair: Pair, tmp_path: Path) -> None:
    save_classifier(pair.unpruned, tmp_path)
    assert written_layers(tmp_path) is None


def test_a_pruned_checkpoint_can_be_used_as_a_model(tokenizer: Tokenizer, toy: Corpus, tmp_path: Path) -> None:
    save_classifier(cut_copy(tiny("bert", tokenizer), KEPT), tmp_path)
    settings = ModelSettings(model=str(tmp_path), max_length=16, dropout=0.3)
    made = build_classifier(settings, toy.label_names, toy.texts, seed=0)
    assert sizes(made.network) == KEPT_SIZES
    assert np.isfinite(made.predict_logits(ODD_TEXTS)).all()


@pytest.mark.parametrize(
    "layers",
    [
        [{"heads": 2, "neurons": 22}] * 4,
        [{"heads": 2, "neurons": 22}] * 2,
        [],
        None,
        3,
        "many",
        {"heads": 2, "neurons": 22},
        [2, 1, 3],
        [{"heads": 5, "neurons": 22}] * 3,
        [{"heads": 2, "neurons": 65}] * 3,
        [{"heads": 0, "neurons": 22}] * 3,
        [{"heads": 2, "neurons": -1}] * 3,
        [{"heads": 2}] * 3,
        [{"neurons": 22}] * 3,
        [{"heads": "two", "neurons": 22}] * 3,
        [{"heads": None, "neurons": 22}] * 3,
        [{"heads": float("inf"), "neurons": 22}] * 3,
        [{"heads": float("nan"), "neurons": 22}] * 3,
    ],
)
def test_invalid_sizes_are_reported_in_one_line_with_the_file(
    tokenizer: Tokenizer, tmp_path: Path, layers: Any
) -> None:
    save_classifier(cut_copy(tiny("bert", tokenizer), KEPT), tmp_path)
    overwrite_layers(tmp_path, layers)
    with pytest.raises(InputError, match=r"config\.json: invalid layer sizes \(.+\)$") as caught:
        load_classifier(tmp_path)
    assert "\n" not in str(caught.value)
    assert "--prune" not in str(caught.value)


def test_sizes_that_do_not_match_the_weights_are_reported_in_one_line(tokenizer: Tokenizer, tmp_path: Path) -> None:
    save_classifier(cut_copy(tiny("bert", tokenizer), KEPT), tmp_path)
    overwrite_layers(tmp_path, [{"heads": 2, "neurons": 21}, {"heads": 1, "neurons": 1}, {"heads": 3, "neurons": 24}])
    with pytest.raises(InputError, match=r"model\.safetensors: cannot load the weights") as caught:
        load_classifier(tmp_path)
    assert "\n" not in str(caught.value)


def test_sizes_for_an_unsupported_architecture_are_reported_with_the_file(tokenizer: Tokenizer, tmp_path: Path) -> None:
    save_classifier(tiny("longformer", tokenizer, **UNSUPPORTED["longformer"]), tmp_path)
    overwrite_layers(tmp_path, [{"heads": 2, "neurons": 22}] * 3)
    with pytest.raises(InputError, match=r"config\.json: invalid layer sizes"):
        load_classifier(tmp_path)


@pytest.mark.parametrize("kept", [[0, 2], [1, 2], [0, 1], [1]])
@pytest.mark.parametrize("kind", SEPARATE_LAYERS)
def test_a_network_without_some_layers_equals_one_built_from_the_others(
    kind: str, kept: list[int], tokenizer: Tokenizer, texts: list[str], tmp_path: Path
) -> None:
    unpruned = tiny(kind, tokenizer)
    all_units = Kept(tuple(range(HEADS)), tuple(range(NEURONS)))
    found = cut_copy(unpruned, [all_units if place in kept else None for place in range(DEPTH)])
    other = tiny(kind, tokenizer, num_hidden_layers=len(kept))
    weights = {}
    for name, tensor in unpruned.network.state_dict().items():
        before, layer, after = name.partition(".layer.")
        place, _, rest = after.partition(".")
        if not layer:
            weights[name] = tensor
        elif int(place) in kept:
            weights[f"{before}.layer.{kept.index(int(place))}.{rest}"] = tensor
    other.network.load_state_dict(weights)
    expected = other.predict_logits(texts).tobytes()
    assert found.predict_logits(texts).tobytes() == expected != unpruned.predict_logits(texts).tobytes()
    assert found.network.config.num_hidden_layers == len(kept)
    assert unpruned.network.config.num_hidden_layers == len(sizes(unpruned.network)) == DEPTH
    assert not is_cut(found.network)
    save_classifier(found, tmp_path)
    assert load_classifier(tmp_path).predict_logits(texts).tobytes() == expected


@pytest.mark.parametrize("kind", ["bert", "distilbert"])
def test_layers_are_removed_and_the_others_are_pruned(
    kind: str, tokenizer: Tokenizer, texts: list[str], tmp_path: Path
) -> None:
    unpruned = tiny(kind, tokenizer)
    found = cut_copy(unpruned, [None, *KEPT[1:]])
    assert sizes(found.network) == KEPT_SIZES[1:]
    all_units = Kept(tuple(range(HEADS)), tuple(range(NEURONS)))
    expected = cut_copy(with_zeroed_units(unpruned, kind, KEPT), [None, all_units, all_units])
    np.testing.assert_allclose(in_double(found, texts), in_double(expected, texts), atol=1e-6)
    save_classifier(found, tmp_path)
    again = load_classifier(tmp_path)
    assert sizes(again.network) == KEPT_SIZES[1:]
    assert again.predict_logits(texts).tobytes() == found.predict_logits(texts).tobytes()


@pytest.mark.parametrize("kind", ["bert", "albert"])
def test_at_least_one_layer_head_and_neuron_must_be_kept(kind: str) -> None:
    network = network_of(kind)
    layers = len(sizes(network))
    for kept in (None, Kept((), (0,)), Kept((0,), ())):
        with pytest.raises(AssertionError, match="keeps at least one"):
            cut(network, [kept] * layers)
    with pytest.raises(AssertionError):
        cut(network, [Kept((0,), (0,))] * (layers + 1))
    assert sizes(network) == [Sizes(HEADS, NEURONS)] * layers


def test_the_graph_of_a_pruned_network_gives_the_logits_of_torch(pair: Pair, texts: list[str], tmp_path: Path) -> None:
    made = written("onnx-fp32", pair.pruned, evidence_without_labels(texts[:4]), tmp_path / "made")
    loaded = exporter("onnx-fp32").load(tmp_path / "made")
    expected = pair.pruned.predict_logits(texts)
    for batch_size in (1, 7):
        np.testing.assert_allclose(loaded.predict_logits(texts, batch_size), expected, atol=1e-4)
    assert made["fp32_logit_gap"] < 1e-4


def test_the_int8_graph_of_a_pruned_network_is_close(exported: Exported, texts: list[str]) -> None:
    """The mean error is below a quarter of the spread of the logits; int8 is coarse for untrained weights."""
    pruned = exported.pair.pruned
    loaded = exporter("onnx-int8").load(exported.folder)
    expected = pruned.predict_logits(texts)
    shift = np.abs(loaded.predict_logits(texts) - expected).mean()
    assert 0 < shift < 0.25 * expected.std(axis=0).mean()
    assert exported.facts["fp32_logit_gap"] < 1e-4
    assert {label for label, _ in loaded.predict(texts)} <= {"a", "b"}


def test_the_matrices_of_a_pruned_graph_are_small_and_int8(exported: Exported) -> None:
    graph = onnx.load(exported.folder / "onnx" / "model.onnx").graph
    shapes = [tuple(each.dims) for each in graph.initializer if each.data_type == onnx.TensorProto.INT8]
    for size in exported.pair.kept_sizes:
        inner = size.heads * HEAD_WIDTH
        for shape in ((WIDTH, inner), (inner, WIDTH), (WIDTH, size.neurons), (size.neurons, WIDTH)):
            assert shape in shapes, (size, shape)
    assert (WIDTH, NEURONS) not in shapes
    assert (WIDTH, WIDTH) not in shapes or exported.pair.kind == "electra"


@pytest.mark.parametrize("kind", SEPARATE_LAYERS)
def test_a_student_of_layers_keeps_the_sizes_of_its_pruned_teacher(
    kind: str, tokenizer: Tokenizer, texts: list[str], tmp_path: Path
) -> None:
    teacher = cut_copy(tiny(kind, tokenizer), KEPT)
    student = build_student("layers:0,2", teacher, TINY, [], seed=1)
    assert sizes(student.network) == [KEPT_SIZES[0], KEPT_SIZES[2]]
    assert sizes(teacher.network) == KEPT_SIZES
    expected = cut_copy(tiny(kind, tokenizer), [KEPT[0], None, KEPT[2]]).predict_logits(texts)
    assert student.predict_logits(texts).tobytes() == expected.tobytes()
    save_classifier(student, tmp_path)
    again = load_classifier(tmp_path)
    assert sizes(again.network) == [KEPT_SIZES[0], KEPT_SIZES[2]]
    assert again.predict_logits(texts).tobytes() == expected.tobytes()


@pytest.mark.parametrize("kind", SEPARATE_LAYERS)
def test_a_pruned_student_can_be_trained_on_hidden_states(kind: str, tokenizer: Tokenizer) -> None:
    teacher = tiny(kind, tokenizer)
    student = cut_copy(teacher, KEPT)
    refuse_unfit("hidden", teacher, student)
    refuse_unfit("hidden", student, student)
    refuse_unfit("logit", teacher, student)
    network = StudentWithTeacher(student.network, FeatureTargets(teacher, "hidden", 1.0, 1.0), seed=0).train()
    ids, mask = pad(encode(tokenizer, ODD_TEXTS), student.pad_id)
    loss = network(ids, mask)["hidden_loss"]
    loss.backward()
    assert loss > 0.01
    for name in OUTPUT_MAPS.get(kind, BERT_OUTPUT_MAPS):
        gradient = student.network.get_parameter(f"{name.format(0)}.weight").grad
        assert gradient is not None
        assert gradient.abs().max() > 0


@pytest.mark.parametrize("method", ["attention", "multi_level", "relation"])
@pytest.mark.parametrize("role", ["teacher", "student"])
def test_attention_distillation_refuses_pruned_networks(method: FeatureMethod, role: str, tokenizer: Tokenizer) -> None:
    unpruned = tiny("bert", tokenizer)
    refuse_unfit(method, unpruned, unpruned)
    classifiers = {"teacher": unpruned, "student": unpruned} | {role: cut_copy(unpruned, KEPT)}
    with pytest.raises(InputError, match=rf"--kd-method {method}: the {role} is pruned, .*hidden or logit$") as caught:
        refuse_unfit(method, **classifiers)
    assert "\n" not in str(caught.value)


def test_is_cut_is_true_when_any_unit_is_missing(pair: Pair) -> None:
    assert not is_cut(pair.unpruned.network)
    assert is_cut(pair.pruned.network)
    everything = Kept(tuple(range(HEADS)), tuple(range(NEURONS)))
    for last in (Kept(everything.heads, everything.neurons[1:]), Kept(everything.heads[1:], everything.neurons)):
        assert is_cut(cut_copy(pair.unpruned, [*[everything] * (len(pair.kept) - 1), last]).network)
    assert not is_cut(cut_copy(pair.unpruned, [everything] * len(pair.kept)).network)


@pytest.mark.parametrize("kind", list(UNSUPPORTED))
def test_an_unsupported_network_is_not_cut_and_can_be_saved_and_loaded(
    kind: str, tokenizer: Tokenizer, tmp_path: Path
) -> None:
    made = tiny(kind, tokenizer, **UNSUPPORTED[kind])
    assert not is_cut(made.network)
    save_classifier(made, tmp_path)
    assert written_layers(tmp_path) is None
    weights = load_classifier(tmp_path).network.state_dict()
    assert all(torch.equal(weights[name], tensor) for name, tensor in made.network.state_dict().items())


def test_a_network_without_a_transformer_is_not_cut() -> None:
    assert not is_cut(NgramNetwork(NgramConfig(8, 1)))


def test_an_albert_with_several_layer_groups_is_not_cut() -> None:
    assert not is_cut(network_of("albert", num_hidden_groups=3))


def test_a_network_can_be_shrunk_but_not_enlarged() -> None:
    network = network_of("distilbert")
    shrink(network, KEPT_SIZES)
    assert sizes(network) == KEPT_SIZES
    with pytest.raises(InputError, match="3 heads and 22 neurons for a layer with 2 and 22"):
        shrink(network, [Sizes(3, 22), *KEPT_SIZES[1:]])
    with pytest.raises(InputError, match="2 layer sizes for a model with 3 layers"):
        shrink(network, KEPT_SIZES[:2])


@pytest.mark.parametrize("kind", ["bert", "roberta", "electra", "distilbert", "albert"])
def test_a_hugging_face_classifier_can_be_pruned_in_memory(kind: str, tokenizer: Tokenizer, texts: list[str]) -> None:
    torch.manual_seed(0)
    model = AutoModelForSequenceClassification.from_config(network_of(kind, tokenizer.get_vocab_size()).config)
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(0.2 * torch.randn_like(weight))
    unpruned = Classifier(SequenceClassifier(model).eval(), tokenizer, tokenizer.token_to_id(PAD), ("a", "b"))
    pruned = cut_copy(unpruned, kept_of(kind))
    assert sizes(pruned.network) == KEPT_SIZES[: len(kept_of(kind))]
    assert is_cut(pruned.network)
    assert not is_cut(unpruned.network)
    zeroed = replace(unpruned, network=SequenceClassifier(copy.deepcopy(model)))
    zeroed.network.encoder = zeroed.network.model.base_model  # the attribute that `with_zeroed_units` uses
    zeroed = with_zeroed_units(zeroed, kind, kept_of(kind))
    np.testing.assert_allclose(in_double(pruned, texts), in_double(zeroed, texts), atol=1e-6)
    assert np.abs(in_double(pruned, texts) - in_double(unpruned, texts)).max() > 0.01


def test_training_a_pruned_network_changes_every_weight(pair: Pair, texts: list[str]) -> None:
    network = copy.deepcopy(pair.pruned.network).train()
    ids, mask = pad(encode(pair.pruned.tokenizer, texts), pair.pruned.pad_id)
    before = {name: weight.detach().clone() for name, weight in network.named_parameters()}
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    labels = torch.arange(len(texts)) % 2
    torch.nn.functional.cross_entropy(network(ids, mask)["logits"], labels).backward()
    optimizer.step()
    assert all(weight.requires_grad for weight in network.parameters())
    still = {name for name, weight in network.named_parameters() if torch.equal(weight, before[name])}
    inside = {name for name in before if ".layer." in name or ".albert_layers." in name}
    assert len(inside) == 16 * len(pair.kept)  # six maps and two norms a layer, weight and bias each
    assert not {name for name in still & inside if name.endswith("weight")}


def test_pruning_a_copy_does_not_change_the_original(pair: Pair, texts: list[str]) -> None:
    before = pair.unpruned.predict_logits(texts)
    weights = {name: tensor.clone() for name, tensor in pair.unpruned.network.state_dict().items()}
    pruned = cut_copy(pair.unpruned, pair.kept)
    with torch.no_grad():
        for weight in pruned.network.parameters():
            weight.zero_()
    assert sizes(pair.unpruned.network) == [Sizes(HEADS, NEURONS)] * len(pair.kept)
    assert all(torch.equal(weights[name], tensor) for name, tensor in pair.unpruned.network.state_dict().items())
    assert pair.unpruned.predict_logits(texts).tobytes() == before.tobytes()


def test_a_pruned_network_keeps_the_precision_of_its_weights(tokenizer: Tokenizer) -> None:
    made = tiny("bert", tokenizer)
    made.network.to(torch.bfloat16)
    assert {weight.dtype for weight in cut_copy(made, KEPT).network.parameters()} == {torch.bfloat16}
