import dataclasses
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch
from transformers import (
    AlbertConfig,
    AlbertModel,
    BertConfig,
    BertForSequenceClassification,
    BertModel,
    DistilBertConfig,
    DistilBertModel,
    MPNetConfig,
    MPNetModel,
)

from tests.helpers import TINY, examples, random_logits, rest_slow
from toolkit.config.settings import TrainingSettings
from toolkit.data.corpus import Corpus
from toolkit.modeling.classifier import (
    Classifier,
    PooledClassifier,
    SequenceClassifier,
    load_classifier,
    pad,
    save_classifier,
)
from toolkit.modeling.encoders import build_classifier
from toolkit.modeling.students import build_student
from toolkit.training.dataset import Examples
from toolkit.training.feature_distillation import (
    RELATION_WEIGHT,
    DistillationLoss,
    FeatureMethod,
    FeatureTargets,
    StudentWithTeacher,
    layer_pairs,
    refuse_unfit,
)
from toolkit.training.losses import attention_loss, hidden_loss, relation_loss
from toolkit.training.trainer import Fit, Loop, Mechanics, fit
from toolkit.utils.errors import InputError

METHODS: tuple[FeatureMethod, ...] = get_args(FeatureMethod)
SETTINGS = TrainingSettings(epochs=2, learning_rate=5e-3, batch_size=16)
NARROW, WIDE = "shape:2x32", "shape:2x64"
"""They have one and two heads of width 32."""


@pytest.fixture(scope="module")
def teacher(toy: Corpus) -> Classifier:
    settings = dataclasses.replace(TINY, model="shape:3x64")
    made = build_classifier(settings, toy.label_names, toy.take(toy.rows("train")), seed=7)
    made.network.eval()
    with torch.no_grad():
        for name, tensor in made.network.named_parameters():
            if "attention.self" in name:
                tensor.mul_(12)  # untrained attention is almost uniform for any model
    return made


def student_of(teacher: Classifier, student: str = NARROW) -> Classifier:
    return build_student(student, teacher, TINY, [], seed=0)


def encoder_of(made: Classifier) -> Any:
    return made.network.encoder


def around(encoder: Any, like: Classifier) -> Classifier:
    network = PooledClassifier(encoder, "mean", 2, 0.1)
    return Classifier(network.eval(), like.tokenizer, like.pad_id, like.labels)


def distilbert(like: Classifier, width: int = 32, heads: int = 2, layers: int = 2) -> Classifier:
    torch.manual_seed(3)
    shape = {"dim": width, "n_layers": layers, "n_heads": heads, "hidden_dim": 64, "max_position_embeddings": 32}
    return around(DistilBertModel(DistilBertConfig(vocab_size=like.tokenizer.get_vocab_size(), **shape)), like)


def bert_config(like: Classifier) -> BertConfig:
    shape = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    return BertConfig(vocab_size=like.tokenizer.get_vocab_size(), max_position_embeddings=32, **shape)


def batch(made: Classifier) -> tuple[torch.Tensor, torch.Tensor]:
    texts = ["sea number 3 of the made-up texts", "sun", "number 9 of texts"]
    return pad([encoding.ids for encoding in made.tokenizer.encode_batch(texts)], made.pad_id)


def feature_targets(teacher: Classifier, method: FeatureMethod) -> FeatureTargets:
    return FeatureTargets(teacher, method, hidden_weight=0.3, attention_weight=0.2)


def losses_of(student: Classifier, teacher: Classifier, method: FeatureMethod) -> dict[str, torch.Tensor]:
    """Return logits and feature losses in training mode, without the student's dropout for comparison."""
    pair = StudentWithTeacher(student.network, feature_targets(teacher, method), 0).train()
    student.network.eval()
    return {name: value.detach() for name, value in pair(*batch(teacher)).items()}


def with_teacher_logits(toy: Corpus) -> Examples:
    """A third of the training rows: what these tests check does not need more steps."""
    rows = toy.rows("train")[::3]
    return Examples(toy.take(rows), toy.labels[rows], random_logits(len(rows)))


def distill(
    student: Classifier,
    features: FeatureTargets | None,
    toy: Corpus,
    work: Path,
    settings: TrainingSettings = SETTINGS,
    **options: Any,
) -> Fit:
    loss, loop = DistillationLoss(0.6, 2.0, features), Loop(**options)
    return fit(student, with_teacher_logits(toy), examples(toy, "validation"), settings, 0, work, loss, loop)


def all_weights(network: torch.nn.Module) -> dict[str, bytes]:
    return {name: tensor.numpy().tobytes() for name, tensor in network.state_dict().items()}


@pytest.mark.parametrize(
    ("student", "teacher", "expected"),
    [
        (1, 12, [11]),
        (2, 12, [5, 11]),
        (4, 12, [2, 5, 8, 11]),
        (6, 12, [1, 3, 5, 7, 9, 11]),
        (5, 12, [1, 4, 6, 9, 11]),
        (2, 3, [1, 2]),
        (3, 3, [0, 1, 2]),
        (3, 2, [0, 0, 1]),
        (4, 1, [0, 0, 0, 0]),  # without a lower bound, rounding would give -1
    ],
)
def test_each_student_layer_is_paired_with_a_teacher_layer(student: int, teacher: int, expected: list[int]) -> None:
    assert layer_pairs(student, teacher) == list(enumerate(expected))


@pytest.mark.parametrize("kind", ["shape", "distilbert"])
def test_hidden_states_equal_those_returned_by_the_networks(teacher: Classifier, kind: str) -> None:
    student = student_of(teacher, WIDE) if kind == "shape" else distilbert(teacher, width=64)
    found = losses_of(student, teacher, "hidden")
    ids, mask = batch(teacher)
    mine, theirs = (
        encoder_of(each)(ids, attention_mask=mask, output_hidden_states=True).hidden_states[1:]
        for each in (student, teacher)
    )
    expected = [hidden_loss(mine[s], theirs[t], mask) for s, t in ((0, 1), (1, 2))]
    assert float(found["hidden_loss"]) == pytest.approx(torch.stack(expected).mean().item(), rel=1e-5)
    assert set(found) == {"logits", "hidden_loss"}


@pytest.mark.parametrize("kind", ["narrow", "wide", "distilbert"])
def test_attention_maps_equal_those_returned_by_the_networks(teacher: Classifier, kind: str) -> None:
    """Compare with the maps that the networks return, which requires eager attention."""
    student = distilbert(teacher) if kind == "distilbert" else student_of(teacher, WIDE if kind == "wide" else NARROW)
    found = losses_of(student, teacher, "attention")
    ids, mask = batch(teacher)
    maps = []
    for each in (student, teacher):
        encoder_of(each).set_attn_implementation("eager")
        maps.append(encoder_of(each)(ids, attention_mask=mask, output_attentions=True).attentions)
        encoder_of(each).set_attn_implementation("sdpa")
    logs = [[each.clamp_min(1e-30).log() for each in layers] for layers in maps]
    expected = [attention_loss(logs[0][s], logs[1][t], mask) for s, t in ((0, 1), (1, 2))]
    assert float(found["attention_loss"]) == pytest.approx(torch.stack(expected).mean().item(), rel=1e-4)
    assert set(found) == {"logits", "attention_loss"}


@pytest.mark.parametrize(("kind", "heads"), [("narrow", 1), ("wide", 2), ("distilbert", 2)])
def test_relations_are_those_of_the_last_layers(teacher: Classifier, kind: str, heads: int) -> None:
    student = distilbert(teacher) if kind == "distilbert" else student_of(teacher, WIDE if kind == "wide" else NARROW)
    found = losses_of(student, teacher, "relation")
    ids, mask = batch(teacher)
    vectors = []
    for each in (student, teacher):
        encoder = encoder_of(each)
        before = encoder(ids, attention_mask=mask, output_hidden_states=True).hidden_states[-2]
        layers = encoder.transformer.layer if hasattr(encoder, "transformer") else encoder.encoder.layer
        own = layers[-1].attention
        names = ("q_lin", "k_lin", "v_lin") if hasattr(own, "q_lin") else ("self.query", "self.key", "self.value")
        vectors.append([own.get_submodule(name)(before) for name in names])
    expected = relation_loss(vectors[0], vectors[1], heads, mask)
    assert float(found["relation_loss"]) == pytest.approx(expected.item(), rel=1e-4)
    assert set(found) == {"logits", "relation_loss"}


@pytest.mark.parametrize("method", METHODS)
def test_a_copy_of_the_teacher_has_no_feature_loss(teacher: Classifier, method: FeatureMethod) -> None:
    found = losses_of(student_of(teacher, "layers:3"), teacher, method)
    names = feature_targets(teacher, method).weights
    assert {name: float(found[name]) for name in names} == dict.fromkeys(names, 0.0)


def test_multi_level_is_hidden_and_attention(teacher: Classifier) -> None:
    found = losses_of(student_of(teacher), teacher, "multi_level")
    hidden, attention = (losses_of(student_of(teacher), teacher, method) for method in ("hidden", "attention"))
    assert set(found) == {"logits", "hidden_loss", "attention_loss"}
    assert float(found["hidden_loss"]) == float(hidden["hidden_loss"])
    assert float(found["attention_loss"]) == float(attention["attention_loss"])


@pytest.mark.parametrize(
    ("method", "weights"),
    [
        ("hidden", {"hidden_loss": 0.3}),
        ("attention", {"attention_loss": 0.2}),
        ("multi_level", {"hidden_loss": 0.3, "attention_loss": 0.2}),
        ("relation", {"relation_loss": RELATION_WEIGHT}),
    ],
)
def test_every_loss_is_in_the_history_and_has_its_weight(
    teacher: Classifier, toy: Corpus, tmp_path: Path, method: FeatureMethod, weights: dict[str, float]
) -> None:
    found = distill(student_of(teacher), feature_targets(teacher, method), toy, tmp_path)
    assert len(found.history) == SETTINGS.epochs
    for epoch in found.history:
        parts = {name[6:]: value for name, value in epoch.items() if name.startswith("train_")}
        assert set(parts) == {"loss", "total_loss", "soft_loss", "hard_loss"} | set(weights)
        expected = 0.6 * parts["soft_loss"] + 0.4 * parts["hard_loss"] + sum(w * parts[n] for n, w in weights.items())
        assert parts["total_loss"] == parts["loss"] == pytest.approx(expected, rel=1e-4)
        assert min(weight * parts[name] for name, weight in weights.items()) > 1e-3 * parts["total_loss"]


def test_logit_distillation_has_no_feature_losses(teacher: Classifier, toy: Corpus, tmp_path: Path) -> None:
    (epoch,) = distill(
        student_of(teacher), None, toy, tmp_path, settings=dataclasses.replace(SETTINGS, epochs=1)
    ).history
    losses = {name for name in epoch if name.startswith("train_")}
    assert losses == {"train_loss", "train_total_loss", "train_soft_loss", "train_hard_loss"}


@pytest.mark.parametrize(
    ("method", "part"), rest_slow(("hidden", "hidden"), ("attention", "attention"), ("relation", "relation"))
)
def test_training_lowers_the_feature_loss(
    teacher: Classifier, toy: Corpus, tmp_path: Path, method: FeatureMethod, part: str
) -> None:
    student = student_of(teacher)
    before = float(losses_of(student, teacher, method)[f"{part}_loss"])
    features = FeatureTargets(teacher, method, hidden_weight=10.0, attention_weight=10.0)
    found = distill(student, features, toy, tmp_path, settings=dataclasses.replace(SETTINGS, epochs=12))
    assert found.history[-1][f"train_{part}_loss"] < 0.8 * min(before, found.history[0][f"train_{part}_loss"])


@pytest.mark.parametrize("method", METHODS)
def test_the_teacher_does_not_change_and_is_not_part_of_the_student(
    teacher: Classifier, toy: Corpus, tmp_path: Path, method: FeatureMethod
) -> None:
    student = student_of(teacher)
    names, parameters, before = list(student.network.state_dict()), student.parameters, all_weights(teacher.network)
    distill(
        student,
        feature_targets(teacher, method),
        toy,
        tmp_path / "work",
        settings=dataclasses.replace(SETTINGS, epochs=1),
    )
    assert all_weights(teacher.network) == before
    assert all(p.grad is None for p in teacher.network.parameters())
    assert (list(student.network.state_dict()), student.parameters) == (names, parameters)
    pair = StudentWithTeacher(student.network, feature_targets(teacher, method), 0)
    own = {name for name in pair.state_dict() if not name.startswith("projections.")}
    assert own == {f"student.{name}" for name in names}
    for module in (*student.network.modules(), *teacher.network.modules()):
        ours = [hook for hook in module._forward_hooks.values() if hook.__module__.startswith("toolkit")]
        assert not ours  # transformers 5 leaves hooks of its own on layers whose states were once asked for
    save_classifier(student, tmp_path / "saved")
    again = load_classifier(tmp_path / "saved")
    assert again.predict_logits(["sea"]).tobytes() == student.predict_logits(["sea"]).tobytes()


def test_the_teacher_runs_without_dropout(teacher: Classifier) -> None:
    student = student_of(teacher)
    expected = losses_of(student, teacher, "attention")
    teacher.network.train()
    found = losses_of(student, teacher, "attention")
    assert not teacher.network.training
    assert float(found["attention_loss"]) == float(expected["attention_loss"])


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("shape", [NARROW, WIDE])
def test_projections_exist_only_if_hidden_states_differ_in_width(
    teacher: Classifier, method: FeatureMethod, shape: str
) -> None:
    student = student_of(teacher, shape)
    pair = StudentWithTeacher(student.network, feature_targets(teacher, method), 0)
    needed = method in ("hidden", "multi_level") and shape == NARROW
    assert [each.weight.shape for each in pair.projections.children()] == [(64, 32)] * (2 if needed else 0)
    others = 2 * (64 * 32 + 64) if needed else 0
    assert sum(p.numel() for p in pair.parameters()) == student.parameters + others


def test_projections_are_trained_with_the_student(teacher: Classifier, toy: Corpus, tmp_path: Path) -> None:
    from safetensors.torch import load_file

    student = student_of(teacher)
    before = StudentWithTeacher(student.network, feature_targets(teacher, "hidden"), 0).projections.state_dict()
    distill(
        student, feature_targets(teacher, "hidden"), toy, tmp_path, settings=dataclasses.replace(SETTINGS, epochs=1)
    )
    (checkpoint,) = tmp_path.glob("checkpoint-*")
    after = load_file(checkpoint / "model.safetensors")
    for name, tensor in before.items():
        assert not torch.equal(after[f"projections.{name}"], tensor)


def test_projections_depend_only_on_the_given_seed(teacher: Classifier) -> None:
    student, features = student_of(teacher), feature_targets(teacher, "hidden")
    made = []
    for seed in (1, 1, 2):
        torch.rand(3)  # earlier random numbers must not matter
        state = torch.get_rng_state()
        made.append(all_weights(StudentWithTeacher(student.network, features, seed).projections))
        assert torch.equal(torch.get_rng_state(), state)
    assert made[0] == made[1]
    assert made[0]["0.weight"] not in (made[0]["1.weight"], made[2]["0.weight"])


def test_the_teacher_does_not_run_in_validation(teacher: Classifier, monkeypatch: pytest.MonkeyPatch) -> None:
    student = student_of(teacher)
    pair = StudentWithTeacher(student.network, feature_targets(teacher, "multi_level"), 0).eval()
    calls: list[torch.Tensor] = []
    handle = teacher.network.register_forward_pre_hook(lambda module, inputs: calls.append(inputs[0]))
    expected = student.network(*batch(teacher))
    found = pair(*batch(teacher))
    assert list(found) == ["logits"]
    assert torch.equal(found["logits"], expected["logits"])
    assert not calls
    pair.train()(*batch(teacher))
    handle.remove()
    assert len(calls) == 1


@pytest.mark.parametrize("method", rest_slow(*METHODS))
def test_the_same_seed_trains_the_same_weights(
    teacher: Classifier, toy: Corpus, tmp_path: Path, method: FeatureMethod
) -> None:
    settings = dataclasses.replace(SETTINGS, epochs=1)
    made = [student_of(teacher), student_of(teacher)]
    for i, each in enumerate(made):
        torch.rand(i)  # earlier random numbers must not matter
        distill(each, feature_targets(teacher, method), toy, tmp_path / str(i), settings=settings)
    assert all_weights(made[0].network) == all_weights(made[1].network)
    logit_only = student_of(teacher)
    distill(logit_only, None, toy, tmp_path / "logit", settings=settings)
    assert all_weights(logit_only.network) != all_weights(made[0].network)


def test_feature_losses_with_weight_zero_change_nothing(teacher: Classifier, toy: Corpus, tmp_path: Path) -> None:
    """The teacher must not draw random numbers, which would change dropout and the order of batches."""
    settings = dataclasses.replace(SETTINGS, epochs=1)
    logit_only, with_features = student_of(teacher, WIDE), student_of(teacher, WIDE)
    distill(logit_only, None, toy, tmp_path / "logit", settings=settings)
    features = FeatureTargets(teacher, "multi_level", 0.0, 0.0)
    distill(with_features, features, toy, tmp_path / "features", settings=settings)
    assert all_weights(logit_only.network) == all_weights(with_features.network)


class Killed(Exception):
    pass


@pytest.mark.parametrize("method", rest_slow("hidden", "relation"))
def test_interrupted_distillation_resumes_and_ends_with_the_same_weights(
    teacher: Classifier, toy: Corpus, tmp_path: Path, method: FeatureMethod
) -> None:
    def killed(epoch: int, metrics: dict[str, float]) -> None:
        if epoch == 2:
            raise Killed

    settings, features = dataclasses.replace(SETTINGS, epochs=3), feature_targets(teacher, method)
    uninterrupted = student_of(teacher)
    expected = distill(uninterrupted, features, toy, tmp_path / "uninterrupted", settings=settings)
    with pytest.raises(Killed):
        distill(student_of(teacher), features, toy, tmp_path / "interrupted", settings=settings, watch=killed)
    resumed = student_of(teacher)
    seen: list[int] = []
    found = distill(
        resumed, features, toy, tmp_path / "interrupted", settings=settings, watch=lambda epoch, _: seen.append(epoch)
    )
    assert seen == [2, 3]
    assert found == expected
    assert all_weights(resumed.network) == all_weights(uninterrupted.network)


def test_the_weights_of_the_best_epoch_are_kept(teacher: Classifier, toy: Corpus, tmp_path: Path) -> None:
    """Training makes the student worse on validation rows with inverted labels, so an early epoch is the best."""
    student, validation = student_of(teacher), examples(toy, "validation")
    validation = Examples(validation.texts, 1 - validation.labels)
    distillation_loss = DistillationLoss(0.0, 2.0, feature_targets(teacher, "hidden"))
    settings = dataclasses.replace(SETTINGS, epochs=4)
    loop = Loop(mechanics=Mechanics(bf16=False))
    found = fit(student, with_teacher_logits(toy), validation, settings, 0, tmp_path, distillation_loss, loop)
    assert found.best_epoch < len(found.history)
    log_odds = student.predict_logits(validation.texts)
    log_p = log_odds - np.logaddexp(log_odds[:, 0], log_odds[:, 1])[:, None]
    loss = -log_p[np.arange(len(log_p)), validation.labels].mean()
    assert loss == pytest.approx(found.history[found.best_epoch - 1]["val_loss"], rel=1e-4)


@pytest.mark.parametrize("bf16", [False, True])
def test_a_trained_student_predicts_in_full_precision(
    teacher: Classifier, toy: Corpus, tmp_path: Path, bf16: bool
) -> None:
    student = student_of(teacher)
    settings, mechanics = dataclasses.replace(SETTINGS, epochs=1), Mechanics(bf16=bf16)
    distill(student, feature_targets(teacher, "multi_level"), toy, tmp_path, settings=settings, mechanics=mechanics)
    assert {tensor.dtype for tensor in student.network.state_dict().values()} == {torch.float32}
    assert student.network(*batch(teacher))["logits"].dtype == torch.float32
    assert not student.network.training


@pytest.mark.parametrize("method", METHODS)
def test_a_hugging_face_classifier_can_be_teacher_or_student(teacher: Classifier, method: FeatureMethod) -> None:
    torch.manual_seed(5)
    model = BertForSequenceClassification(bert_config(teacher))
    imported = Classifier(SequenceClassifier(model).eval(), teacher.tokenizer, teacher.pad_id, teacher.labels)
    torch.manual_seed(5)
    same = around(BertForSequenceClassification(bert_config(teacher)).bert, teacher)
    for mine, theirs in ((imported, teacher), (teacher, imported)):
        refuse_unfit(method, theirs, mine)
    found, expected = (losses_of(student_of(teacher), each, method) for each in (imported, same))
    assert {name: float(value) for name, value in found.items() if name != "logits"} == {
        name: float(value) for name, value in expected.items() if name != "logits"
    }


@pytest.mark.parametrize("method", ["logit", *METHODS])
def test_students_with_the_tokenization_of_their_teacher_are_accepted(
    teacher: Classifier, method: str, tmp_path: Path
) -> None:
    save_classifier(teacher, tmp_path)
    shorter = load_classifier(tmp_path)
    shorter.tokenizer.enable_truncation(8)
    shorter.tokenizer.enable_padding(length=8)
    for student in (student_of(teacher), student_of(teacher, "layers:1"), distilbert(teacher), shorter):
        refuse_unfit(method, teacher, student)


@pytest.mark.parametrize("method", METHODS)
def test_a_student_with_another_tokenizer_is_refused(teacher: Classifier, classifier: Classifier, method: str) -> None:
    other = build_classifier(TINY, classifier.labels, ["other words", "with other pieces"], seed=0)
    for student in (other, dataclasses.replace(student_of(teacher), pad_id=0)):
        with pytest.raises(InputError, match=rf"^--kd-method {method}: .*tokenizers.*--kd-method logit"):
            refuse_unfit(method, teacher, student)
        refuse_unfit("logit", teacher, student)


@pytest.mark.parametrize("method", METHODS)
def test_a_student_with_a_larger_max_length_than_its_teacher_is_refused(
    teacher: Classifier, method: str, tmp_path: Path
) -> None:
    save_classifier(teacher, tmp_path)
    longer = load_classifier(tmp_path)
    longer.tokenizer.enable_truncation(64)
    with pytest.raises(InputError, match=rf"^--kd-method {method}: the student reads up to 64 .* --max-length 32"):
        refuse_unfit(method, teacher, longer)
    refuse_unfit("logit", teacher, longer)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("role", ["teacher", "student"])
def test_a_network_without_separate_layers_is_refused(teacher: Classifier, method: str, role: str) -> None:
    shape = {"embedding_size": 16, "hidden_size": 32, "num_attention_heads": 2, "intermediate_size": 32}
    albert = around(AlbertModel(AlbertConfig(vocab_size=teacher.tokenizer.get_vocab_size(), **shape)), teacher)
    pair = (albert, teacher) if role == "teacher" else (teacher, albert)
    with pytest.raises(InputError, match=rf"^--kd-method {method}: layers of the {role} \(albert\).*--kd-method logit"):
        refuse_unfit(method, *pair)
    refuse_unfit("logit", *pair)


class NoTransformer(torch.nn.Module):
    """A network of an unknown kind."""

    config = None


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("role", ["teacher", "student"])
def test_a_network_without_a_transformer_is_refused(teacher: Classifier, method: str, role: str) -> None:
    other: Any = NoTransformer()
    simple = dataclasses.replace(teacher, network=other)
    pair = (simple, teacher) if role == "teacher" else (teacher, simple)
    with pytest.raises(
        InputError, match=rf"^--kd-method {method}: layers of the {role} \(NoTransformer\).*--kd-method logit"
    ):
        refuse_unfit(method, *pair)
    refuse_unfit("logit", *pair)


@pytest.mark.parametrize("role", ["teacher", "student"])
def test_a_network_with_unsupported_projections_is_refused_if_they_are_needed(teacher: Classifier, role: str) -> None:
    shape = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    mpnet = around(MPNetModel(MPNetConfig(vocab_size=teacher.tokenizer.get_vocab_size(), **shape)), teacher)
    pair = (mpnet, teacher) if role == "teacher" else (teacher, mpnet)
    for method in ("attention", "multi_level", "relation"):
        with pytest.raises(InputError, match=rf"^--kd-method {method}: .* of the {role} \(mpnet\) .*hidden or logit"):
            refuse_unfit(method, *pair)
    refuse_unfit("hidden", *pair)


def test_hidden_state_distillation_works_without_supported_projections(teacher: Classifier) -> None:
    shape = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    mpnet = around(MPNetModel(MPNetConfig(vocab_size=teacher.tokenizer.get_vocab_size(), **shape)), teacher)
    bert = around(BertModel(bert_config(teacher), add_pooling_layer=False), teacher)
    assert float(losses_of(mpnet, bert, "hidden")["hidden_loss"]) > 0
