import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from tokenizers.models import WordPiece
from tokenizers.normalizers import Replace
from tokenizers.pre_tokenizers import Whitespace
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BertConfig,
    BertForSequenceClassification,
    PreTrainedTokenizerFast as FastTokenizer,
)

from tests.helpers import ODD_TEXTS, TINY
from toolkit.config.settings import ModelSettings
from toolkit.data.corpus import Corpus
from toolkit.evaluation.decision_rule import DecisionRule
from toolkit.modeling.classifier import (
    Classifier,
    load_classifier,
    load_sequence_classifier,
    pad,
    pool,
    save_classifier,
)
from toolkit.modeling.encoders import build_classifier
from toolkit.modeling.tokenizer import encode, train_tokenizer
from toolkit.utils.errors import InputError


@pytest.fixture(scope="module")
def hugging_face(toy: Corpus, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder written by transformers: three labels, a fast tokenizer, safetensors."""
    folder = tmp_path_factory.mktemp("hugging-face")
    tokenizer = train_tokenizer(toy.texts, 32)
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=tokenizer.get_vocab_size(),
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=32,
        pad_token_id=tokenizer.token_to_id("[PAD]"),
        id2label={0: "calm", 1: "glad", 2: "sad"},
        label2id={"calm": 0, "glad": 1, "sad": 2},
        initializer_range=0.5,
    )
    BertForSequenceClassification(config).save_pretrained(folder)
    fast = FastTokenizer(tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]", model_max_length=32)
    fast.save_pretrained(folder)
    return folder


@pytest.mark.parametrize("pooling", ["cls", "mean", "max"])
@pytest.mark.parametrize("threshold", [None, 0.35])
def test_a_saved_classifier_gives_bit_identical_logits(
    toy: Corpus, tmp_path: Path, pooling: str, threshold: float | None
) -> None:
    settings = ModelSettings(model="shape:2x32", pooling=pooling, max_length=16)  # type: ignore[arg-type]
    made = build_classifier(settings, toy.label_names, toy.texts, seed=3).with_rule(DecisionRule(threshold))
    save_classifier(made, tmp_path / "deep" / "checkpoint")
    back = load_classifier(tmp_path / "deep" / "checkpoint")
    assert back.predict_logits(ODD_TEXTS).tobytes() == made.predict_logits(ODD_TEXTS).tobytes()
    assert (back.labels, back.threshold, back.max_length, back.pad_id) == (made.labels, threshold, 16, made.pad_id)
    assert back.parameters == made.parameters


@pytest.mark.parametrize("garbage", [0.0, 50.0, -50.0])
def test_pooling_agrees_with_a_manual_computation_for_any_values_in_the_padding(garbage: float) -> None:
    # All negative, so that a maximum over padding masked with 0 would be wrong.
    vectors = -1 - np.random.default_rng(0).random((2, 4, 3)).astype(np.float32)
    lengths = [4, 2]
    padded, mask = vectors.copy(), np.zeros((2, 4), dtype=np.int64)
    for text, length in enumerate(lengths):
        padded[text, length:] = garbage
        mask[text, :length] = 1
    found = {kind: pool(torch.tensor(padded), torch.tensor(mask), kind).numpy() for kind in ("cls", "mean", "max")}
    for text, length in enumerate(lengths):
        real = vectors[text, :length]
        np.testing.assert_allclose(found["cls"][text], real[0])
        np.testing.assert_allclose(found["mean"][text], real.mean(axis=0), rtol=1e-6)
        np.testing.assert_allclose(found["max"][text], real.max(axis=0))


@pytest.mark.parametrize("pooling", ["cls", "mean", "max"])
def test_a_single_text_has_the_same_logits_as_in_a_padded_batch(toy: Corpus, pooling: str) -> None:
    settings = ModelSettings(model="shape:2x32", pooling=pooling, max_length=32)  # type: ignore[arg-type]
    made = build_classifier(settings, toy.label_names, toy.texts, seed=0)
    made.network.eval()
    encoded = encode(made.tokenizer, ODD_TEXTS)
    assert len({len(ids) for ids in encoded}) > 3
    with torch.inference_mode():
        batched = made.network(*pad(encoded, made.pad_id))["logits"]
        further = made.network(*pad(encoded, made.pad_id, to=32))["logits"]
        single = torch.cat([made.network(*pad([ids], made.pad_id))["logits"] for ids in encoded])
    torch.testing.assert_close(batched, single, atol=1e-5, rtol=0)
    torch.testing.assert_close(further, single, atol=1e-5, rtol=0)


@pytest.mark.parametrize("batch_size", [1, 2, 3, 100])
def test_logits_are_in_the_order_of_the_texts(learned: Classifier, batch_size: int) -> None:
    single = np.concatenate([learned.predict_logits([text]) for text in ODD_TEXTS])
    assert len(np.unique(single[:, 0])) >= 7
    done: list[int] = []
    np.testing.assert_allclose(learned.predict_logits(ODD_TEXTS, batch_size, done.append), single, atol=1e-5)
    assert sum(done) == len(ODD_TEXTS)
    assert max(done) <= batch_size


@pytest.mark.parametrize(("texts", "batch_size"), [(["sea"], 0), (["sea", "sun"], -1), ("sea", 32)])
def test_no_scores_are_made_up(classifier: Classifier, texts: list[str], batch_size: int) -> None:
    with pytest.raises(ValueError, match=r"batch_size must be|not one text"):
        classifier.predict_proba(texts, batch_size)


def test_probabilities_are_rows_that_sum_to_one(learned: Classifier) -> None:
    found = learned.predict_proba(ODD_TEXTS)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found.sum(axis=1), 1, atol=1e-6)


def test_a_hugging_face_folder_gives_the_logits_of_transformers(hugging_face: Path) -> None:
    texts = ["sea number 3", "sun", "sun number 12 of the made-up texts " * 9]
    model = AutoModelForSequenceClassification.from_pretrained(hugging_face).eval()
    batch = AutoTokenizer.from_pretrained(hugging_face)(texts, padding=True, truncation=True, return_tensors="pt")
    with torch.inference_mode():
        expected = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits.numpy()
    made = load_classifier(hugging_face)
    np.testing.assert_allclose(made.predict_logits(texts), expected, atol=1e-5)
    assert made.labels == ("calm", "glad", "sad")
    assert made.threshold is None


def test_a_hugging_face_model_normalizes_texts_as_in_training(hugging_face: Path) -> None:
    made = load_classifier(hugging_face)
    untidy, tidy = "\ufeff sun\u200b  number\u00a07 ", "sun number 7"
    assert made.predict_logits([untidy]).tobytes() == made.predict_logits([tidy]).tobytes()


def test_an_imported_model_splits_text_as_its_tokenizer_json_says(hugging_face: Path, tmp_path: Path) -> None:
    """A class of transformers may bring a normalizer of its own, with which every other runtime would disagree."""
    for file in hugging_face.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    words = {"[PAD]": 0, "[UNK]": 1, "[CLS]": 2, "[SEP]": 3, "[MASK]": 4, "sea": 5, "SEA": 6, "sun": 7}
    tokenizer = Tokenizer(WordPiece(words, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = Whitespace()
    tokenizer.normalizer = Replace("moon", "sun")
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    special = {f"{name}_token": f"[{name.upper()}]" for name in ("pad", "unk", "cls", "sep", "mask")}
    settings = json.dumps(special | {"tokenizer_class": "BertTokenizer", "do_lower_case": True})
    (tmp_path / "tokenizer_config.json").write_text(settings, "utf-8")
    assert encode(load_classifier(tmp_path).tokenizer, ["SEA moon", "sea"]) == [[6, 7], [5]]


def test_a_hugging_face_model_is_never_saved_as_a_checkpoint(hugging_face: Path, tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="own folder"):
        save_classifier(load_classifier(hugging_face), tmp_path)


def _truncated_weights(folder: Path) -> None:
    weights = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(weights[: len(weights) // 2])


def _empty_weights(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(b"")


def _no_weights(folder: Path) -> None:
    (folder / "model.safetensors").unlink()


def _only_pickle(folder: Path) -> None:
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    _no_weights(folder)


def _other_shape(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    name = next(name for name in weights if name.endswith("word_embeddings.weight"))
    weights[name] = weights[name][:-1].clone()
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def _one_matrix_missing(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    del weights[next(name for name in weights if name.endswith("query.weight"))]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def _no_config(folder: Path) -> None:
    (folder / "config.json").unlink()


def _broken_config(folder: Path) -> None:
    (folder / "config.json").write_text('{"model_type": ', "utf-8")


def _no_tokenizer(folder: Path) -> None:
    (folder / "tokenizer.json").unlink()
    (folder / "tokenizer_config.json").unlink(missing_ok=True)


def _broken_tokenizer(folder: Path) -> None:
    (folder / "tokenizer.json").write_text("{}", "utf-8")


def _unknown_kind(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text("utf-8"))
    (folder / "config.json").write_text(json.dumps(config | {"model_type": "no-such-model"}), "utf-8")


DAMAGES = [
    _truncated_weights,
    _empty_weights,
    _no_weights,
    _only_pickle,
    _other_shape,
    _one_matrix_missing,
    _no_config,
    _broken_config,
    _no_tokenizer,
    _broken_tokenizer,
    _unknown_kind,
]


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("is_checkpoint", [True, False], ids=["checkpoint", "hugging-face"])
def test_a_damaged_folder_is_reported_in_one_line_with_its_name(
    classifier: Classifier, hugging_face: Path, tmp_path: Path, damage: Callable[[Path], None], is_checkpoint: bool
) -> None:
    folder = tmp_path / "model"
    if is_checkpoint:
        save_classifier(classifier, folder)
    else:
        folder.mkdir()
        for file in hugging_face.iterdir():
            (folder / file.name).write_bytes(file.read_bytes())
    damage(folder)
    with pytest.raises(InputError) as caught:
        load_classifier(folder)
    assert "\n" not in str(caught.value)
    assert str(folder) in str(caught.value)


def test_an_encoder_without_a_head_is_refused_as_a_classifier(hugging_face: Path, tmp_path: Path) -> None:
    for file in hugging_face.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    weights = load_file(tmp_path / "model.safetensors")
    bare = {name: tensor for name, tensor in weights.items() if not name.startswith("classifier")}
    save_file(bare, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(InputError, match=r"classifier\.bias and 1 other weights are missing"):
        load_sequence_classifier(str(tmp_path))


@pytest.mark.parametrize("model", ["nobody/no-such-model", "no-such-model-at-all", "a b/c?d"])
def test_an_unreachable_hub_is_reported_with_the_advice_to_give_a_folder(toy: Corpus, model: str) -> None:
    with pytest.raises(InputError, match="--model PATH") as caught:
        build_classifier(ModelSettings(model=model), toy.label_names, toy.texts, seed=0)
    assert "\n" not in str(caught.value)


def test_a_checkpoint_is_three_files_and_no_pickle(classifier: Classifier, tmp_path: Path) -> None:
    save_classifier(classifier, tmp_path)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["config.json", "model.safetensors", "tokenizer.json"]
    assert TINY.pooling == json.loads((tmp_path / "config.json").read_text("utf-8"))["hbt"]["pooling"]
