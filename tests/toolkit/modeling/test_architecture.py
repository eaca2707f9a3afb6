from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModel, BertConfig, BertForSequenceClassification

from toolkit.modeling.architecture import Sizes, architecture_of, encoder_weights, sizes, summary_of
from toolkit.modeling.classifier import PooledClassifier, SequenceClassifier
from toolkit.modeling.ngram import NgramConfig, NgramNetwork
from toolkit.utils.errors import InputError

WIDTH, HEADS, HEAD_WIDTH, NEURONS, DEPTH, LENGTH = 32, 4, 8, 64, 3, 24
SEPARATE_LAYERS = ["bert", "roberta", "xlm-roberta", "electra", "electra-narrow", "distilbert"]
KINDS = [*SEPARATE_LAYERS, "albert"]
UNSUPPORTED = {
    "bart": {"d_model": WIDTH, "encoder_layers": 1, "decoder_layers": 1},
    "deberta-v2": {},
    "convbert": {"embedding_size": WIDTH},
    "longformer": {"attention_window": 8},
    "mobilebert": {"embedding_size": 16, "true_hidden_size": 16, "intra_bottleneck_size": 16},
    "big_bird": {},
    "nystromformer": {},
}
"""Unsupported architectures; the last five have the layer paths of BERT."""
HEAD_WEIGHTS = 3 * (WIDTH * HEAD_WIDTH + HEAD_WIDTH) + HEAD_WIDTH * WIDTH
NEURON_WEIGHTS = WIDTH + 1 + WIDTH
LAYER_WEIGHTS = HEADS * HEAD_WEIGHTS + NEURONS * NEURON_WEIGHTS + 2 * WIDTH + 2 * 2 * WIDTH  # two biases, two norms


def encoder(kind: str, words: int, pad_id: int, **changed: Any) -> Any:
    """Return an encoder with random weights, also for weights that are initialized with ones and zeros."""
    torch.manual_seed(0)
    options: dict[str, Any] = {
        "vocab_size": words, "pad_token_id": pad_id, "max_position_embeddings": LENGTH + 2,
        "hidden_size": WIDTH, "num_hidden_layers": DEPTH, "num_attention_heads": HEADS,
    }  # fmt: skip
    options |= {"hidden_dim" if kind == "distilbert" else "intermediate_size": NEURONS}
    if kind in ("electra", "electra-narrow", "albert"):
        options |= {"embedding_size": WIDTH if kind == "electra" else WIDTH // 2}
    made = AutoModel.from_config(AutoConfig.for_model(kind.removesuffix("-narrow"), **options | changed))
    with torch.no_grad():
        for weight in made.parameters():
            weight.add_(0.2 * torch.randn_like(weight))
    return made


def network_of(kind: str, words: int = 50, pad_id: int = 1, **changed: Any) -> PooledClassifier:
    return PooledClassifier(encoder(kind, words, pad_id, **changed), "mean", 2, 0.1).eval()


@pytest.mark.parametrize("kind", KINDS)
def test_a_new_network_has_the_sizes_of_its_configuration(kind: str) -> None:
    network = network_of(kind)
    assert sizes(network) == [Sizes(HEADS, NEURONS)] * (1 if kind == "albert" else DEPTH)
    assert architecture_of(network).encoder is network.encoder


@pytest.mark.parametrize("kind", KINDS)
def test_a_shared_layer_is_listed_once_and_applied_once_per_level_of_depth(kind: str) -> None:
    calls = []
    network = network_of(kind)
    architecture = architecture_of(network)
    for part in architecture.layers:
        part.linear("out").register_forward_hook(lambda *_: calls.append(1))
    ids = torch.tensor([[4, 5, 6]])
    network(ids, torch.ones_like(ids))
    assert len(architecture.layers) == (1 if kind == "albert" else DEPTH)
    assert len(calls) == DEPTH


@pytest.mark.parametrize("kind", KINDS)
def test_encoder_weights_counts_the_layers_only(kind: str) -> None:
    assert encoder_weights(network_of(kind)) == LAYER_WEIGHTS * (1 if kind == "albert" else DEPTH)


@pytest.mark.parametrize("kind", ["camembert", "ernie", "rembert"])
def test_bert_like_architectures_are_supported(kind: str) -> None:
    network = network_of(kind)
    assert sizes(network) == [Sizes(HEADS, NEURONS)] * DEPTH
    assert encoder_weights(network) == LAYER_WEIGHTS * DEPTH


def test_a_hugging_face_classifier_has_the_layers_of_its_encoder() -> None:
    config = BertConfig(
        vocab_size=50, hidden_size=WIDTH, num_hidden_layers=2, num_attention_heads=HEADS, intermediate_size=NEURONS
    )
    model = BertForSequenceClassification(config)
    architecture = architecture_of(SequenceClassifier(model))
    assert [layer.module for layer in architecture.layers] == list(model.bert.encoder.layer)


@pytest.mark.parametrize("kind", list(UNSUPPORTED))
def test_an_unsupported_architecture_is_refused_and_the_supported_ones_are_listed(kind: str) -> None:
    network = network_of(kind, **UNSUPPORTED[kind])
    with pytest.raises(
        InputError, match=rf"{kind} models are not supported; use BERT, RoBERTa, .* or ALBERT$"
    ) as caught:
        architecture_of(network)
    assert "\n" not in str(caught.value)


def test_a_network_without_a_transformer_is_refused() -> None:
    with pytest.raises(InputError, match=r"without a transformer has no heads or neurons; leave out pruning$"):
        sizes(NgramNetwork(NgramConfig(8, 1)))


@pytest.mark.parametrize("groups", [{"num_hidden_groups": 3}, {"inner_group_num": 2}])
def test_an_albert_with_several_layer_groups_is_refused(groups: dict[str, int]) -> None:
    with pytest.raises(InputError, match="several layer groups; use one with a single group") as caught:
        architecture_of(network_of("albert", **groups))
    assert "\n" not in str(caught.value)


def test_the_summary_lists_every_layer() -> None:
    remaining = [Sizes(6, 768), Sizes(5, 64)]
    assert summary_of(remaining) == "2 layers; heads 6 5; neurons 768 64"
