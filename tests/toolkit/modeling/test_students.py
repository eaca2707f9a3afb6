from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import (
    AlbertConfig,
    AlbertModel,
    BertConfig,
    BertModel,
    DistilBertConfig,
    DistilBertModel,
    PreTrainedTokenizerFast as FastTokenizer,
    RobertaConfig,
    RobertaModel,
)

from tests.helpers import ODD_TEXTS, TINY
from toolkit.config.settings import ModelSettings
from toolkit.data.corpus import Corpus
from toolkit.modeling.architecture import encoder_layers
from toolkit.modeling.classifier import Classifier, load_classifier, save_classifier
from toolkit.modeling.encoders import build_classifier
from toolkit.modeling.students import build_student, evenly_spaced
from toolkit.modeling.tokenizer import train_tokenizer
from toolkit.utils.errors import InputError

LENGTH = 24


def encoder(kind: str, words: int, pad_id: int) -> Any:
    torch.manual_seed(0)
    common: dict[str, Any] = {"vocab_size": words, "pad_token_id": pad_id, "initializer_range": 0.3}
    usual = common | {
        "hidden_size": 32, "num_hidden_layers": 5, "num_attention_heads": 2, "intermediate_size": 64,
        "max_position_embeddings": LENGTH,
    }  # fmt: skip
    if kind == "bert":
        return BertModel(BertConfig(**usual))
    if kind == "roberta":
        return RobertaModel(RobertaConfig(**usual))
    if kind == "albert":
        return AlbertModel(AlbertConfig(**usual, embedding_size=16))
    sizes = {"dim": 32, "n_layers": 5, "n_heads": 2, "hidden_dim": 64, "max_position_embeddings": LENGTH}
    return DistilBertModel(DistilBertConfig(**common, **sizes))


@pytest.fixture(scope="module", params=["bert", "distilbert", "roberta"])
def teacher(request: pytest.FixtureRequest, toy: Corpus, tmp_path_factory: pytest.TempPathFactory) -> Classifier:
    """A teacher with five random layers of one architecture, loaded from a Hugging Face folder."""
    folder = tmp_path_factory.mktemp(request.param)
    tokenizer = train_tokenizer(toy.texts, 512)
    encoder(request.param, tokenizer.get_vocab_size(), tokenizer.token_to_id("[PAD]")).save_pretrained(folder)
    FastTokenizer(tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]").save_pretrained(folder)
    settings = ModelSettings(model=str(folder), pooling="mean", max_length=512)
    return build_classifier(settings, toy.label_names, toy.texts, seed=0)


@pytest.mark.parametrize(
    ("layers", "count", "kept"),
    [
        (12, 12, list(range(12))),
        (12, 4, [0, 4, 7, 11]),
        (12, 6, [0, 2, 4, 7, 9, 11]),
        (12, 2, [0, 11]),
        (12, 1, [11]),
        (5, 3, [0, 2, 4]),
        (2, 2, [0, 1]),
        (1, 1, [0]),
    ],
)
def test_kept_layers_are_evenly_spaced_with_both_ends(layers: int, count: int, kept: list[int]) -> None:
    assert evenly_spaced(layers, count) == kept


@pytest.mark.parametrize("layers", range(1, 25))
def test_no_layer_is_kept_twice(layers: int) -> None:
    for count in range(1, layers + 1):
        kept = evenly_spaced(layers, count)
        assert len(set(kept)) == count
        assert kept == sorted(kept)


@pytest.mark.parametrize(("count", "kept"), [(1, [4]), (2, [0, 4]), (3, [0, 2, 4]), (5, [0, 1, 2, 3, 4])])
def test_a_student_has_the_weights_of_the_layers_it_kept(teacher: Classifier, count: int, kept: list[int]) -> None:
    student = build_student(f"layers:{count}", teacher, TINY, [], seed=1)
    teacher_layers, student_layers = (encoder_layers(each.network.encoder) for each in (teacher, student))  # type: ignore[union-attr]
    assert len(student_layers) == count
    for place, layer in enumerate(kept):
        for name, tensor in teacher_layers[layer].state_dict().items():
            assert torch.equal(student_layers[place].state_dict()[name], tensor), (layer, name)
    assert len(teacher_layers) == 5
    assert teacher.network.config.num_hidden_layers == 5
    assert student.labels == teacher.labels


@pytest.mark.parametrize("count", [2, 5])
def test_a_student_of_layers_can_be_saved_and_loaded(teacher: Classifier, tmp_path: Path, count: int) -> None:
    student = build_student(f"layers:{count}", teacher, TINY, [], seed=1)
    save_classifier(student, tmp_path)
    found = student.predict_logits(ODD_TEXTS)
    assert np.isfinite(found).all()
    assert load_classifier(tmp_path).predict_logits(ODD_TEXTS).tobytes() == found.tobytes()


@pytest.mark.parametrize("teacher", ["bert", "distilbert"], indirect=True)
@pytest.mark.parametrize(("student", "kept"), [("layers:0,2,3", [0, 2, 3]), ("layers:1,4", [1, 4])])
def test_a_student_of_listed_layers_has_exactly_those(teacher: Classifier, student: str, kept: list[int]) -> None:
    made = build_student(student, teacher, TINY, [], seed=1)
    student_layers, teacher_layers = (encoder_layers(each.network.encoder) for each in (made, teacher))  # type: ignore[union-attr]
    assert len(student_layers) == len(kept)
    for layer, index in zip(student_layers, kept, strict=True):
        for a, b in zip(layer.parameters(), teacher_layers[index].parameters(), strict=True):
            assert torch.equal(a, b)


@pytest.mark.parametrize("student", ["layers:0,5", "layers:2,1", "layers:1,1", "layers:0,99"])
@pytest.mark.parametrize("teacher", ["bert"], indirect=True)
def test_invalid_layer_lists_are_reported_with_the_layers_of_the_teacher(teacher: Classifier, student: str) -> None:
    with pytest.raises(InputError, match=r"the teacher has layers 0 to 4; list each layer once, in ascending order"):
        build_student(student, teacher, TINY, [], seed=1)


def test_a_student_of_all_layers_predicts_as_the_teacher(teacher: Classifier) -> None:
    student = build_student("layers:5", teacher, TINY, [], seed=1)
    np.testing.assert_array_equal(student.predict_logits(ODD_TEXTS), teacher.predict_logits(ODD_TEXTS))


def test_training_a_student_does_not_change_the_teacher(classifier: Classifier) -> None:
    before = classifier.predict_logits(["sea"])
    student = build_student("layers:1", classifier, TINY, [], seed=1)
    with torch.no_grad():
        for weight in student.network.parameters():
            weight.add_(1.0)
    assert classifier.predict_logits(["sea"]).tobytes() == before.tobytes()


def test_a_student_of_a_frozen_teacher_trains_every_weight(classifier: Classifier, toy: Corpus, tmp_path: Path) -> None:
    save_classifier(classifier, tmp_path)
    frozen = ModelSettings(model=str(tmp_path), freeze_base=True)
    teacher = build_classifier(frozen, toy.label_names, toy.texts, seed=0)
    for student in ("layers:1", "shape:1x32", str(tmp_path)):
        made = build_student(student, teacher, frozen, toy.texts, seed=0)
        assert made.trainable_parameters == made.parameters, student


def test_texts_are_truncated_to_the_positions_of_each_architecture(teacher: Classifier) -> None:
    offset = 2 if teacher.network.config.model_type == "roberta" else 0
    assert teacher.max_length == LENGTH - offset
    assert np.isfinite(teacher.predict_logits(["sun number of texts " * 50])).all()


@pytest.mark.parametrize("teacher", ["albert"], indirect=True)
def test_albert_is_refused_with_the_reason_and_a_fix(teacher: Classifier) -> None:
    with pytest.raises(InputError, match=r"albert encoders have no separate layers to select; use shape:LxH"):
        build_student("layers:2", teacher, TINY, [], seed=1)


@pytest.mark.parametrize(
    "student",
    ["layers:", "layers:0", "layers:-1", "layers:two", "layers:1.5", "layers:02", "layers:1,", "layers:,1",
     "layers:1;2", "layers:-1,2", "layers:1, 2"],
)  # fmt: skip
def test_an_invalid_layer_count_is_reported_with_an_example(classifier: Classifier, student: str) -> None:
    with pytest.raises(InputError, match="such as layers:4"):
        build_student(student, classifier, TINY, [], seed=1)


def test_too_many_layers_are_reported_with_the_number_of_the_teacher(classifier: Classifier) -> None:
    with pytest.raises(InputError, match="the teacher has 1 layers"):
        build_student("layers:2", classifier, TINY, [], seed=1)


@pytest.mark.parametrize("student", ["shape:1x33", "shape:x", "shape:1x32x3", "nobody/no-such-student"])
def test_a_student_that_cannot_be_built_is_an_input_error(classifier: Classifier, toy: Corpus, student: str) -> None:
    with pytest.raises(InputError):
        build_student(student, classifier, TINY, toy.texts, seed=1)


def test_a_student_of_a_shape_has_the_tokenizer_of_its_teacher(classifier: Classifier) -> None:
    made = build_student("shape:2x64", classifier, TINY, [], seed=1)
    assert made.tokenizer.to_str() == classifier.tokenizer.to_str()
    assert (made.pad_id, made.labels, made.max_length) == (classifier.pad_id, classifier.labels, classifier.max_length)
    again = build_student("shape:2x64", classifier, TINY, [], seed=1)
    assert made.predict_logits(ODD_TEXTS).tobytes() == again.predict_logits(ODD_TEXTS).tobytes()
