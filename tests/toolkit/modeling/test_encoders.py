from pathlib import Path
from typing import Any

import pytest
import torch

from tests.helpers import ODD_TEXTS, TINY
from toolkit.config.settings import ModelSettings
from toolkit.data.corpus import Corpus
from toolkit.modeling.classifier import Classifier, save_classifier
from toolkit.modeling.encoders import build_classifier, parse_shape
from toolkit.modeling.tokenizer import VOCABULARY_SIZE, encode, train_tokenizer
from toolkit.utils.errors import InputError


def weights(made: Classifier) -> dict[str, torch.Tensor]:
    return made.network.state_dict()


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("shape:4x128", (4, 128, 4)), ("shape:1x32", (1, 32, 1)), ("shape:12x384", (12, 384, 12)),
        ("shape:4x128x2", (4, 128, 2)), ("shape:4x120x6", (4, 120, 6)), ("shape:2x32x32", (2, 32, 32)),
        ("bert", None), ("", None),
    ],
)  # fmt: skip
def test_a_shape_is_layers_times_width_and_heads(text: str, expected: tuple[int, int, int] | None) -> None:
    assert parse_shape(text, "--model") == expected


@pytest.mark.parametrize(
    "text",
    ["shape:", "shape:4", "shape:4x", "shape:x128", "shape:0x128", "shape:4x0", "shape:4x100", "shape:-1x32",
     "shape:4X128", "shape:4x128x", "shape:4x128x0", "shape:4x128x3", "shape:4x128x-2", "shape:4x128x2x2",
     "shape:4x120", "shape: 4x128", "shape:4.0x128"],
)  # fmt: skip
def test_an_invalid_shape_is_reported_with_an_example(text: str) -> None:
    with pytest.raises(InputError, match="shape:4x128") as caught:
        parse_shape(text, "--model")
    assert str(caught.value).startswith(f"--model {text}")


def test_the_encoder_has_the_requested_shape(toy: Corpus) -> None:
    made = build_classifier(ModelSettings(model="shape:3x64", dropout=0.25), toy.label_names, toy.texts, seed=0)
    config: Any = made.network.config
    assert (config.num_hidden_layers, config.hidden_size, config.num_attention_heads) == (3, 64, 2)
    assert (config.hidden_dropout_prob, made.network.dropout.p) == (0.25, 0.25)  # type: ignore[union-attr]
    assert made.labels == toy.label_names


def test_the_encoder_has_the_requested_number_of_heads(toy: Corpus) -> None:
    made = build_classifier(ModelSettings(model="shape:1x60x6"), toy.label_names, toy.texts, seed=0)
    config: Any = made.network.config
    assert (config.hidden_size, config.num_attention_heads) == (60, 6)
    assert made.predict_logits(ODD_TEXTS).shape == (len(ODD_TEXTS), 2)


def test_tokenizer_training_is_reproducible(toy: Corpus) -> None:
    texts = [*toy.texts, *ODD_TEXTS]
    assert train_tokenizer(texts, 32).to_str() == train_tokenizer(list(texts), 32).to_str()


def test_a_tokenizer_is_trained_on_the_given_texts_only(toy: Corpus) -> None:
    pieces = train_tokenizer(["zebra zebra"] * 4, 32).get_vocab()
    assert any("zebra" in piece for piece in pieces)
    assert not any("zebra" in piece for piece in train_tokenizer(toy.texts, 32).get_vocab())
    assert len(pieces) <= VOCABULARY_SIZE


@pytest.mark.parametrize("max_length", [4, 9, 32])
def test_long_texts_are_truncated_and_keep_special_tokens(toy: Corpus, max_length: int) -> None:
    tokenizer = train_tokenizer(toy.texts, max_length)
    (ids,) = encode(tokenizer, ["sun number of the made-up texts " * 20])
    assert len(ids) == max_length
    assert [ids[0], ids[-1]] == [tokenizer.token_to_id("[CLS]"), tokenizer.token_to_id("[SEP]")]


@pytest.mark.parametrize("text", ["", " ", "\u200b", "🙂", "\x00"])
def test_an_empty_text_still_has_tokens(toy: Corpus, text: str) -> None:
    assert len(encode(train_tokenizer(toy.texts, 32), [text])[0]) >= 2


def test_the_seed_determines_the_weights(toy: Corpus) -> None:
    def made(seed: int) -> dict[str, torch.Tensor]:
        return weights(build_classifier(TINY, toy.label_names, toy.texts, seed))

    assert same(made(0), made(0))
    assert not same(made(0), made(1))


def test_a_checkpoint_is_used_as_an_encoder_with_a_new_head(learned: Classifier, toy: Corpus, tmp_path: Path) -> None:
    save_classifier(learned, tmp_path)
    labels = ("one", "two", "three")
    made = build_classifier(ModelSettings(model=str(tmp_path), pooling="max"), labels, toy.texts, seed=0)
    encoder = {name: tensor for name, tensor in weights(made).items() if name.startswith("encoder.")}
    assert same(encoder, {k: v for k, v in weights(learned).items() if k.startswith("encoder.")})
    assert made.predict_logits(["sea"]).shape == (1, 3)
    assert (made.labels, made.threshold, made.network.pooling) == (labels, None, "max")  # type: ignore[union-attr]


@pytest.mark.parametrize(("requested", "expected"), [(8, 8), (32, 32), (4096, 32)])
def test_max_length_applies_to_a_checkpoint_up_to_its_positions(
    learned: Classifier, toy: Corpus, tmp_path: Path, requested: int, expected: int
) -> None:
    save_classifier(learned, tmp_path)
    settings = ModelSettings(model=str(tmp_path), max_length=requested)
    assert build_classifier(settings, toy.label_names, toy.texts, seed=0).max_length == expected


def test_dropout_applies_to_a_checkpoint(learned: Classifier, toy: Corpus, tmp_path: Path) -> None:
    save_classifier(learned, tmp_path)
    settings = ModelSettings(model=str(tmp_path), dropout=0.4)
    made = build_classifier(settings, toy.label_names, toy.texts, seed=0)
    shares = {module.p for module in made.network.modules() if isinstance(module, torch.nn.Dropout)}
    assert shares == {0.4}


@pytest.mark.parametrize("from_folder", [True, False])
def test_with_a_frozen_base_only_the_head_is_trainable(
    classifier: Classifier, toy: Corpus, tmp_path: Path, from_folder: bool
) -> None:
    save_classifier(classifier, tmp_path)
    settings = ModelSettings(model=str(tmp_path) if from_folder else "shape:1x32", freeze_base=True)
    made = build_classifier(settings, toy.label_names, toy.texts, seed=0)
    assert made.trainable_parameters == 32 * 2 + 2
    assert made.parameters > 1000


@pytest.mark.parametrize("folder", ["empty", "file.txt"])
def test_a_folder_without_a_model_is_reported_by_name(toy: Corpus, tmp_path: Path, folder: str) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "file.txt").write_text("x")
    with pytest.raises(InputError, match=folder):
        build_classifier(ModelSettings(model=str(tmp_path / folder)), toy.label_names, toy.texts, seed=0)
