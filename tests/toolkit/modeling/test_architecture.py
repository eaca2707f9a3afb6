from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModel, BertConfig, BertForSequenceClassification

from toolkit.modeling.architecture import Sizes, architecture_of, encoder_weights, sizes, summary_of
from toolkit.modeling.classifier import PooledClassifier, SequenceClassifier
from toolkit.modeling.ngram import NgramConfig, NgramNetwork
from toolkit.utils.errors import InputError

WIDTH, HEADS, HEAD_WIDTH, NEURONS, DEPTH, LENGTH = 32, 4, 8, 64, 3, 24
OWN_LAYERS = ["bert", "roberta", "xlm-roberta", "electra", "electra-narrow", "distilbert"]
KINDS = [*OWN_LAYERS, "albert"]
UNKNOWN = {
    "bart": {"d_model": WIDTH, "encoder_layers": 1, "decoder_layers": 1},
    "deberta-v2": {},
    "convbert": {"embedding_size": WIDTH},
    "longformer": {"attention_window": 8},
    "mobilebert": {"embedding_size": 16, "true_hidden_size": 16, "intra_bottleneck_size": 16},
    "big_bird": {},
    "nystromformer": {},
}
"""Not known; the last five call the parts of their layers what BERT calls them."""
HEAD_WEIGHTS = 3 * (WIDTH * HEAD_WIDTH + HEAD_WIDTH) + HEAD_WIDTH * WIDTH
NEURON_WEIGHTS = WIDTH + 1 + WIDTH
LAYER_WEIGHTS = HEADS * HEAD_WEIGHTS + NEURONS * NEURON_WEIGHTS + 2 * WIDTH + 2 * 2 * WIDTH  # two biases, two norms


def encoder(kind: str, words: int, pad_id: int, **changed: Any) -> Any:
    """Random weights, also where an architecture would begin with ones and zeros."""
    torch.manual_seed(0)
    given: dict[str, Any] = {
        "vocab_size": words, "pad_token_id": pad_id, "max_position_embeddings": LENGTH + 2,
        "hidden_size": WIDTH, "num_hidden_layers": DEPTH, "num_attention_heads": HEADS,
    }  # fmt: skip
    given |= {"hidden_dim" if kind == "distilbert" else "intermediate_size": NEURONS}
    if kind in ("electra", "electra-narrow", "albert"):
        given |= {"embedding_size": WIDTH if kind == "electra" else WIDTH // 2}
    made = AutoModel.from_config(AutoConfig.for_model(kind.removesuffix("-narrow"), **given | changed))
    with torch.no_grad():
        for weight in made.parameters():
            weight.add_(0.2 * torch.randn_like(weight))
    return made


def network_of(kind: str, words: int = 50, pad_id: int = 1, **changed: Any) -> PooledClassifier:
    return PooledClassifier(encoder(kind, words, pad_id, **changed), "mean", 2, 0.1).eval()


@pytest.mark.parametrize("kind", KINDS)
def test_a_fresh_network_has_the_sizes_of_its_configuration(kind: str) -> None:
    network = network_of(kind)
    assert sizes(network) == [Sizes(HEADS, NEURONS)] * (1 if kind == "albert" else DEPTH)
    assert architecture_of(network).encoder is network.encoder


@pytest.mark.parametrize("kind", KINDS)
def test_a_layer_that_is_shared_is_there_once_and_gone_through_as_often_as_the_network_is_deep(kind: str) -> None:
    calls = []
    network = network_of(kind)
    parts = architecture_of(network)
    for part in parts.layers:
        part.linear("out").register_forward_hook(lambda *_: calls.append(1))
    ids = torch.tensor([[4, 5, 6]])
    network(ids, torch.ones_like(ids))
    assert len(parts.layers) == (1 if kind == "albert" else DEPTH)
    assert len(calls) == DEPTH


@pytest.mark.parametrize("kind", KINDS)
def test_weights_of_the_encoder_are_those_of_its_layers_alone(kind: str) -> None:
    assert encoder_weights(network_of(kind)) == LAYER_WEIGHTS * (1 if kind == "albert" else DEPTH)


@pytest.mark.parametrize("kind", ["camembert", "ernie", "rembert"])
def test_kin_of_bert_is_known_too(kind: str) -> None:
    network = network_of(kind)
    assert sizes(network) == [Sizes(HEADS, NEURONS)] * DEPTH
    assert encoder_weights(network) == LAYER_WEIGHTS * DEPTH


def test_an_imported_classifier_has_the_layers_of_its_encoder() -> None:
    config = BertConfig(
        vocab_size=50, hidden_size=WIDTH, num_hidden_layers=2, num_attention_heads=HEADS, intermediate_size=NEURONS
    )
    model = BertForSequenceClassification(config)
    parts = architecture_of(SequenceClassifier(model))
    assert [layer.module for layer in parts.layers] == list(model.bert.encoder.layer)


@pytest.mark.parametrize("kind", list(UNKNOWN))
def test_an_architecture_that_is_not_known_is_refused_with_those_that_are(kind: str) -> None:
    network = network_of(kind, **UNKNOWN[kind])
    with pytest.raises(InputError, match=rf"a {kind} network, .* take BERT, RoBERTa, .* or ALBERT$") as caught:
        architecture_of(network)
    assert "\n" not in str(caught.value)


def test_a_network_without_a_transformer_is_refused() -> None:
    with pytest.raises(InputError, match=r"without a transformer has no heads or neurons; leave pruning out$"):
        sizes(NgramNetwork(NgramConfig(8, 1)))


@pytest.mark.parametrize("groups", [{"num_hidden_groups": 3}, {"inner_group_num": 2}])
def test_an_albert_of_several_groups_is_refused(groups: dict[str, int]) -> None:
    with pytest.raises(InputError, match="several groups of layers; only one group can be pruned here") as caught:
        architecture_of(network_of("albert", **groups))
    assert "\n" not in str(caught.value)


def test_the_summary_tells_every_layer() -> None:
    left = [Sizes(6, 768), Sizes(5, 64)]
    assert summary_of(left) == "2 layers; heads 6 5; neurons 768 64"
