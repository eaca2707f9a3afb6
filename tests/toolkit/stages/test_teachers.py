import dataclasses
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file
from transformers import BertConfig, BertForSequenceClassification, PreTrainedTokenizerFast as FastTokenizer

from tests.helpers import TINY, random_logits
from toolkit.config.recipe import Recipe
from toolkit.config.settings import CorpusSettings, DistillationSettings, TrainingSettings
from toolkit.config.toml_file import write_recipe
from toolkit.data.corpus import Corpus, corpus_from_table
from toolkit.data.tables import Table
from toolkit.evaluation.decision_rule import DecisionRule, rule_from
from toolkit.evaluation.metrics import softmax
from toolkit.evaluation.predictions import Predictions
from toolkit.evaluation.rule_choice import choose_rule
from toolkit.modeling.classifier import Classifier, load_classifier, save_classifier
from toolkit.modeling.encoders import build_classifier
from toolkit.modeling.tokenizer import train_tokenizer
from toolkit.stages import teacher_logits
from toolkit.stages.cross_validation import combine_folds, fold_predictions, train_baseline
from toolkit.stages.result import StageResult
from toolkit.stages.teacher_logits import NO_FOLD, cached_logits
from toolkit.stages.teachers import ENSEMBLE, TEACHER, Teacher, find_teacher, logits_of_texts
from toolkit.training.linear_fit import LinearFit, fit_linear
from toolkit.utils.errors import InputError

TRAINING = TrainingSettings(epochs=3, learning_rate=5e-3, batch_size=16)
SINGLE = "one checkpoint, which may have been trained on any of these rows"


def settings(**given: Any) -> DistillationSettings:
    return DistillationSettings(student="layers:1", **given)


@pytest.fixture(scope="module")
def noisy() -> Corpus:
    """240 rows with a word that indicates the label in three of four rows, so that no model predicts all of them."""
    random = np.random.default_rng(5)
    labels = random.integers(2, size=240)
    words = np.where(random.random(240) < 0.75, labels, 1 - labels)
    texts = [f"{('sea', 'sun')[words[i]]} number {i} of the made-up texts" for i in range(240)]
    table = Table("noisy", {"text": texts, "label": [("sea", "sun")[label] for label in labels]})
    return corpus_from_table(table, CorpusSettings(folds=3))


@pytest.fixture(scope="module")
def run(noisy: Corpus, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder with the files that a teacher needs."""
    folder = tmp_path_factory.mktemp("run")
    write_recipe(Recipe(), folder / "recipe.toml")
    (folder / "corpus.json").write_text(json.dumps({"fingerprint": noisy.fingerprint}))
    train_baseline(noisy, TINY, TRAINING, folder / "1-baseline")
    return folder


@pytest.fixture
def stage(run: Path) -> Path:
    return run / "1-baseline"


@pytest.fixture
def checkpoint(learned: Classifier, tmp_path: Path) -> Path:
    save_classifier(learned, tmp_path / "checkpoint")
    return tmp_path / "checkpoint"


def count_predictions(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return a list that collects the number of texts of every call of `predict_logits`."""
    calls: list[int] = []
    original = Classifier.predict_logits

    def counted(self: Classifier, texts: Sequence[str], *arguments: Any, **named: Any) -> np.ndarray:
        calls.append(len(texts))
        return original(self, texts, *arguments, **named)

    monkeypatch.setattr(Classifier, "predict_logits", counted)
    return calls


def held_out(corpus: Corpus) -> np.ndarray:
    return np.concatenate([corpus.rows("train"), corpus.rows("validation")])


def chosen_on(corpus: Corpus, predictions: Predictions, rows: np.ndarray) -> DecisionRule:
    return choose_rule(corpus.labels[rows], softmax(predictions.of(rows).astype(np.float64))).rule


def test_the_ensemble_gives_out_of_fold_logits_on_training_rows(noisy: Corpus, stage: Path, tmp_path: Path) -> None:
    teacher = find_teacher(settings(), noisy, stage, tmp_path)
    for row in noisy.rows("train"):
        expected = fold_predictions(stage, noisy.fold[row]).of(np.array([row]))
        np.testing.assert_array_equal(teacher.predictions.of(np.array([row])), expected)
    result = StageResult.load(stage)
    assert (teacher.name, teacher.rule) == (ENSEMBLE, result.rule)
    assert teacher.checkpoint == stage / result.checkpoint
    assert teacher.source == "fold ensemble, out-of-fold on training rows"


@pytest.mark.parametrize("given", ["run", "stage"])
def test_a_run_with_the_same_split_is_a_fold_ensemble_teacher(
    noisy: Corpus, run: Path, stage: Path, tmp_path: Path, given: str
) -> None:
    teacher = find_teacher(settings(teacher=(str({"run": run, "stage": stage}[given]),)), noisy, None, tmp_path)
    expected = combine_folds(noisy, [fold_predictions(stage, k) for k in range(3)])
    np.testing.assert_array_equal(teacher.predictions.of(expected.rows), expected.logits)
    assert teacher.name == TEACHER  # not the baseline of the run itself
    assert teacher.rule == StageResult.load(stage).rule


@pytest.mark.parametrize("own", [True, False])
def test_the_best_fold_can_be_the_teacher(noisy: Corpus, run: Path, stage: Path, tmp_path: Path, own: bool) -> None:
    given = settings(teacher_folds="best", teacher=() if own else (str(run),))
    teacher = find_teacher(given, noisy, stage if own else None, tmp_path)
    result = StageResult.load(stage)
    best = stage / result.checkpoint
    rows = noisy.rows("all")
    np.testing.assert_allclose(
        teacher.predictions.of(rows), load_classifier(best).predict_logits(noisy.take(rows)), atol=1e-5
    )
    assert (teacher.checkpoint, teacher.rule) == (best, rule_from(result.details["best_fold_rule"]))
    assert teacher.name == TEACHER
    assert "best fold" in teacher.source


def test_the_logits_of_a_run_and_a_checkpoint_are_averaged(
    noisy: Corpus, run: Path, stage: Path, checkpoint: Path, tmp_path: Path
) -> None:
    teacher = find_teacher(settings(teacher=(str(run), str(checkpoint))), noisy, None, tmp_path / "cache")
    rows = noisy.rows("all")
    folds = combine_folds(noisy, [fold_predictions(stage, k) for k in range(3)]).of(rows)
    single = load_classifier(checkpoint).predict_logits(noisy.take(rows))
    np.testing.assert_allclose(teacher.predictions.of(rows), (folds + single) / 2, atol=1e-5)
    assert teacher.checkpoint == stage / StageResult.load(stage).checkpoint
    assert teacher.source == f"fold ensemble, out-of-fold on training rows and {SINGLE}"
    # The checkpoint may have been trained on the training rows, so they are not used for the rule.
    assert teacher.rule == chosen_on(noisy, teacher.predictions, noisy.rows("validation"))


def test_two_ensembles_choose_their_rule_on_out_of_fold_rows_too(noisy: Corpus, run: Path, tmp_path: Path) -> None:
    second = shutil.copytree(run, tmp_path / "second")
    teacher = find_teacher(settings(teacher=(str(run), str(second))), noisy, None, tmp_path / "cache")
    assert teacher.rule == chosen_on(noisy, teacher.predictions, held_out(noisy))


def test_a_hugging_face_classifier_can_be_the_teacher(noisy: Corpus, tmp_path: Path) -> None:
    torch.manual_seed(0)
    tokenizer = train_tokenizer(noisy.texts, 32)
    config = BertConfig(
        vocab_size=tokenizer.get_vocab_size(), hidden_size=32, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=64, max_position_embeddings=32, initializer_range=0.3,
        id2label={0: "sea", 1: "sun"}, label2id={"sea": 0, "sun": 1},
    )  # fmt: skip
    BertForSequenceClassification(config).save_pretrained(tmp_path / "bert")
    FastTokenizer(tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]").save_pretrained(tmp_path / "bert")
    teacher = find_teacher(settings(teacher=(str(tmp_path / "bert"),)), noisy, None, tmp_path / "cache")
    rows = noisy.rows("all")
    expected = load_classifier(tmp_path / "bert").predict_logits(noisy.take(rows))
    np.testing.assert_array_equal(teacher.predictions.of(rows), expected)
    assert (teacher.name, teacher.source) == (TEACHER, SINGLE)
    assert teacher.rule == chosen_on(noisy, teacher.predictions, noisy.rows("validation"))


def test_a_checkpoint_keeps_its_own_rule(noisy: Corpus, checkpoint: Path, tmp_path: Path) -> None:
    assert find_teacher(settings(teacher=(str(checkpoint),)), noisy, None, tmp_path / "cache").rule == DecisionRule(
        0.45
    )


def test_a_run_with_another_split_is_one_checkpoint_and_is_reported(
    noisy: Corpus, run: Path, stage: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = corpus_from_table(
        Table("noisy", {"text": noisy.texts, "label": [noisy.label_names[i] for i in noisy.labels]}),
        CorpusSettings(folds=3, seed=7),
    )
    teacher = find_teacher(settings(teacher=(str(run),)), other, None, tmp_path / "cache")
    shown = capsys.readouterr()
    assert f"--teacher {run}: trained on another split" in shown.err
    assert shown.out == ""
    assert [member.checkpoints for member in teacher.members] == [(stage / StageResult.load(stage).checkpoint,)]
    assert teacher.source == SINGLE


def test_the_teacher_of_a_run_without_a_baseline_is_its_student(
    noisy: Corpus, checkpoint: Path, tmp_path: Path, learned: Classifier
) -> None:
    folder = tmp_path / "run"
    shutil.copytree(checkpoint, folder / "2-distillation")
    write_recipe(Recipe(), folder / "recipe.toml")
    (folder / "corpus.json").write_text(json.dumps({"fingerprint": "another"}))
    StageResult("distillation", ".", {}, {}, DecisionRule(0.45), 1, 1, 0.0).save(folder / "2-distillation")
    teacher = find_teacher(settings(teacher=(str(folder),)), noisy, None, tmp_path / "cache")
    assert teacher.checkpoint == folder / "2-distillation"
    rows = noisy.rows("test")
    np.testing.assert_allclose(teacher.predictions.of(rows), learned.predict_logits(noisy.take(rows)), atol=1e-5)


def test_a_teacher_without_label_names_gets_those_of_the_corpus_if_their_order_is_given(
    noisy: Corpus, learned: Classifier, tmp_path: Path
) -> None:
    save_classifier(dataclasses.replace(learned, labels=("LABEL_0", "LABEL_1")), tmp_path / "checkpoint")
    rows, given = noisy.rows("test"), settings(teacher=(str(tmp_path / "checkpoint"),))
    with pytest.raises(InputError, match=r"its labels are LABEL_0, LABEL_1, .* such as --label-names sea,sun$"):
        find_teacher(given, noisy, None, tmp_path / "cache")
    named = dataclasses.replace(noisy.settings, label_names=("sea", "sun"))
    ordered = dataclasses.replace(noisy, settings=named)
    teacher = find_teacher(given, ordered, None, tmp_path / "cache")
    np.testing.assert_allclose(teacher.predictions.of(rows), learned.predict_logits(noisy.take(rows)), atol=1e-5)


@pytest.mark.parametrize("labels", [("sun", "sea"), ("sea", "moon"), ("sea", "sun", "moon")])
def test_a_teacher_with_other_labels_is_refused(
    noisy: Corpus, checkpoint: Path, tmp_path: Path, labels: tuple[str, ...]
) -> None:
    other = dataclasses.replace(noisy, label_names=labels)
    with pytest.raises(InputError, match=r"--teacher .*: its labels are sea, sun, but those of the data are .*; "):
        find_teacher(settings(teacher=(str(checkpoint),)), other, None, tmp_path / "cache")
    assert not (tmp_path / "cache").exists()


# Logits of texts outside the corpus.


def test_a_variant_gets_out_of_fold_logits(noisy: Corpus, stage: Path, tmp_path: Path) -> None:
    teacher = find_teacher(settings(), noisy, stage, tmp_path)
    texts = [f"{word} {i}" for i, word in enumerate(["sea", "sun", "number", "texts", "moon", "made-up"])]
    folds = np.array([0, 2, NO_FOLD, 1, NO_FOLD, 0])
    logits = logits_of_texts(teacher, noisy, texts, folds, tmp_path)
    by_fold = np.stack([load_classifier(stage / f"fold-{k + 1}").predict_logits(texts) for k in range(3)])
    assert np.abs(by_fold[0] - by_fold[1]).max(axis=1).min() > 0.1, "the folds must differ for this test"
    expected = [by_fold.mean(axis=0)[i] if fold == NO_FOLD else by_fold[fold, i] for i, fold in enumerate(folds)]
    np.testing.assert_allclose(logits, expected, atol=0.03)  # bfloat16 where the processor has it
    assert logits.dtype == np.float32


def test_one_checkpoint_gives_the_logits_of_every_text(noisy: Corpus, checkpoint: Path, tmp_path: Path) -> None:
    teacher = find_teacher(settings(teacher=(str(checkpoint),)), noisy, None, tmp_path / "cache")
    texts, folds = ["sea 1", "sun 2", "sea sun"], np.array([0, NO_FOLD, 2])
    logits = logits_of_texts(teacher, noisy, texts, folds, tmp_path / "cache")
    np.testing.assert_allclose(logits, load_classifier(checkpoint).predict_logits(texts), atol=0.05)


def test_logits_of_additional_texts_are_averaged_over_members(
    noisy: Corpus, run: Path, checkpoint: Path, tmp_path: Path
) -> None:
    texts, folds = ["sea 1", "sun 2", "sea sun"], np.array([0, NO_FOLD, 2])
    both, first, second = (
        logits_of_texts(find_teacher(settings(teacher=given), noisy, None, tmp_path), noisy, texts, folds, tmp_path)
        for given in ((str(run), str(checkpoint)), (str(run),), (str(checkpoint),))
    )
    np.testing.assert_allclose(both, (first + second) / 2, atol=1e-5)


def test_an_empty_list_of_texts_is_accepted(noisy: Corpus, stage: Path, tmp_path: Path) -> None:
    teacher = find_teacher(settings(), noisy, stage, tmp_path)
    assert logits_of_texts(teacher, noisy, [], np.zeros(0, dtype=int), tmp_path).shape == (0, 2)


# The linear baseline, fitted without each fold and blended in.


@pytest.fixture(scope="module")
def linear(noisy: Corpus) -> LinearFit:
    return fit_linear(noisy)


def out_of_fold(linear: LinearFit, corpus: Corpus, rows: np.ndarray) -> np.ndarray:
    """The logits on `rows` of a linear baseline that was not fitted on the row."""
    return linear.logits(corpus.take(rows), np.maximum(corpus.fold[rows], NO_FOLD)).astype(np.float64)


def blended(corpus: Corpus, baseline: Path, cache: Path, **given: Any) -> Teacher:
    return find_teacher(settings(blend_floor=True, **given), corpus, baseline, cache)


@pytest.mark.parametrize("folds", ["ensemble", "best"])
def test_the_weight_of_the_linear_baseline_has_the_lowest_loss_on_held_out_rows(
    noisy: Corpus, stage: Path, tmp_path: Path, folds: Any, linear: LinearFit
) -> None:
    from sklearn.metrics import log_loss

    teacher = blended(noisy, stage, tmp_path, teacher_folds=folds)
    plain = find_teacher(settings(teacher_folds=folds), noisy, stage, tmp_path).predictions
    # The best fold was trained on most training rows, so they are not used for the choice.
    rows = held_out(noisy) if folds == "ensemble" else noisy.rows("validation")
    network, baseline = plain.of(rows).astype(np.float64), out_of_fold(linear, noisy, rows)

    def loss(share: float) -> float:
        logits = (1 - share) * network + share * baseline
        odds = np.exp(logits - logits.max(axis=1, keepdims=True))
        return log_loss(noisy.labels[rows], odds / odds.sum(axis=1, keepdims=True))

    losses = [loss(share / 10) for share in range(10)]
    assert teacher.floor_share == pytest.approx(np.argmin(losses) / 10)
    assert teacher.floor_share > 0
    everything = noisy.rows("all")
    expected = (1 - teacher.floor_share) * plain.of(everything)
    expected += teacher.floor_share * out_of_fold(linear, noisy, everything)
    np.testing.assert_allclose(teacher.predictions.of(everything), expected, atol=1e-4)
    assert teacher.rule == chosen_on(noisy, teacher.predictions, rows)
    assert teacher.name == TEACHER
    assert f"{100 * teacher.floor_share:.0f} % linear baseline blended in" in teacher.source


def test_test_rows_do_not_affect_weight_and_rule(noisy: Corpus, stage: Path, tmp_path: Path) -> None:
    flipped = noisy.labels.copy()
    flipped[noisy.rows("test")] = 1 - flipped[noisy.rows("test")]
    other = dataclasses.replace(noisy, labels=flipped)
    copy = shutil.copytree(stage.parent, tmp_path / "run")
    (copy / "corpus.json").write_text(json.dumps({"fingerprint": other.fingerprint}))
    first, second = (blended(c, s, tmp_path) for c, s in ((noisy, stage), (other, copy / "1-baseline")))
    assert first.members[0].out_of_fold
    assert second.members[0].out_of_fold
    assert (first.floor_share, first.rule) == (second.floor_share, second.rule)


def test_the_linear_baseline_is_blended_into_logits_of_additional_texts(
    noisy: Corpus, stage: Path, tmp_path: Path, linear: LinearFit
) -> None:
    teacher = blended(noisy, stage, tmp_path)
    texts, folds = ["sea 1 of the texts", "sun 2", "sea sun number"], np.array([0, NO_FOLD, 2])
    plain = logits_of_texts(find_teacher(settings(), noisy, stage, tmp_path), noisy, texts, folds, tmp_path)
    share = teacher.floor_share
    assert share > 0
    expected = (1 - share) * plain + share * linear.logits(texts, folds)
    np.testing.assert_allclose(logits_of_texts(teacher, noisy, texts, folds, tmp_path), expected, atol=1e-4)


# The cache of logits.


def test_logits_are_computed_once(
    noisy: Corpus, checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    calls = count_predictions(monkeypatch)
    given = settings(teacher=(str(checkpoint),))
    first = find_teacher(given, noisy, None, tmp_path / "cache")
    assert calls == [len(noisy.rows("all"))]
    assert "loaded from" not in capsys.readouterr().err
    moved = shutil.copytree(checkpoint, tmp_path / "moved")
    for folder in (checkpoint, moved):
        again = find_teacher(settings(teacher=(str(folder),)), noisy, None, tmp_path / "cache")
        assert again.predictions.logits.tobytes() == first.predictions.logits.tobytes()
        assert f"teacher: logits loaded from {tmp_path / 'cache'}" in capsys.readouterr().err
    assert len(calls) == 1


def test_other_weights_in_the_same_folder_are_computed_again(
    noisy: Corpus, checkpoint: Path, classifier: Classifier, tmp_path: Path
) -> None:
    given = settings(teacher=(str(checkpoint),))
    find_teacher(given, noisy, None, tmp_path / "cache")
    save_classifier(classifier, checkpoint)
    rows = noisy.rows("all")
    teacher = find_teacher(given, noisy, None, tmp_path / "cache")
    np.testing.assert_array_equal(teacher.predictions.of(rows), classifier.predict_logits(noisy.take(rows)))


@pytest.mark.parametrize(
    ("texts", "computed"), [(["sea", "sun"], False), (["sun", "sea"], True), (["sea"], True), (["seasun"], True)]
)
def test_other_texts_are_computed_again(
    learned: Classifier, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, texts: list[str], computed: bool
) -> None:
    cached_logits(learned, ["sea", "sun"], tmp_path, "teacher")
    calls = count_predictions(monkeypatch)
    cached_logits(learned, texts, tmp_path, "teacher")
    assert bool(calls) is computed


@pytest.mark.parametrize("change", ["pooling", "heads"])
def test_the_same_weights_in_another_network_are_computed_again(toy: Corpus, tmp_path: Path, change: str) -> None:
    first = build_classifier(TINY, toy.label_names, toy.texts, seed=0)
    settings = {"pooling": {"pooling": "max"}, "heads": {"model": "shape:1x32x2"}}[change]
    second = build_classifier(dataclasses.replace(TINY, **settings), toy.label_names, toy.texts, seed=0)
    texts = ["sea of texts", "sun number"]
    cached_logits(first, texts, tmp_path, "teacher")
    found = cached_logits(second, texts, tmp_path, "teacher")
    np.testing.assert_array_equal(found, second.predict_logits(texts))


def test_an_unfinished_cache_file_is_not_read(
    learned: Classifier, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(tensors: dict[str, np.ndarray], file: Path) -> None:
        save_file({"logits": random_logits(2)}, file)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(teacher_logits, "save_file", interrupted)
        cached_logits(learned, ["sea", "sun"], tmp_path, "teacher")
    found = cached_logits(learned, ["sea", "sun"], tmp_path, "teacher")
    np.testing.assert_array_equal(found, learned.predict_logits(["sea", "sun"]))
    assert [file.suffix for file in tmp_path.iterdir()] == [".safetensors"]


def test_logits_of_many_texts_resume_with_the_part_that_is_missing(
    learned: Classifier, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts, done = [f"sea number {i}" for i in range(10)], []
    predict = Classifier.predict_logits

    def interrupted(self: Classifier, some: Sequence[str], **how: Any) -> np.ndarray:
        if len(done) == 2:
            raise KeyboardInterrupt
        done.append(list(some))
        return predict(self, some, **how)

    monkeypatch.setattr(teacher_logits, "PART", 4)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Classifier, "predict_logits", interrupted)
        cached_logits(learned, texts, tmp_path, "teacher")
    assert done == [texts[:4], texts[4:8]]
    calls = count_predictions(monkeypatch)
    found = cached_logits(learned, texts, tmp_path, "teacher")
    assert len(calls) == 1  # of the last two texts
    np.testing.assert_allclose(found, learned.predict_logits(texts), atol=1e-6)
    calls.clear()
    np.testing.assert_array_equal(cached_logits(learned, texts, tmp_path, "teacher"), found)
    assert calls == []


@pytest.mark.skipif(not teacher_logits.has_bf16("cpu"), reason="this processor has no bfloat16")
def test_bfloat16_logits_are_cached_separately(learned: Classifier, tmp_path: Path) -> None:
    texts = ["sea of texts", "sun number"]
    rough = cached_logits(learned, texts, tmp_path, "teacher", exact=False)
    exact = cached_logits(learned, texts, tmp_path, "teacher")
    np.testing.assert_array_equal(exact, learned.predict_logits(texts))
    np.testing.assert_allclose(rough, exact, atol=0.05)
