"""`hbt compress` with a Hugging Face classifier: the order of its labels, its length, and whether it is worth it."""

import csv
import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from transformers import BertConfig, BertForSequenceClassification, PreTrainedTokenizerFast

from tests.helpers import Hbt, contents
from toolkit.config.settings import ModelSettings
from toolkit.data.corpus import Corpus
from toolkit.evaluation.standing import Standing
from toolkit.modeling.classifier import load_sequence_classifier
from toolkit.modeling.students import build_student
from toolkit.modeling.tokenizer import PAD, train_tokenizer

NEEDS_FORCE = Standing.needs_force  # before conftest.py lets toy models be packaged
WORDS = {"calm": "sea", "angry": "sun", "odd": "moon"}
"""Label to the word that tells it."""
LONG = "long " * 140
FAST = ("--target", "onnx-fp32")


def rows(labels: Sequence[str], padding: str = "") -> list[tuple[str, str]]:
    """Labeled texts, each with the word of its label after `padding`."""
    order = [labels[i % len(labels)] for i in range(240)]
    return [(f"{padding}number {i} of the made-up texts {WORDS[label]}", label) for i, label in enumerate(order)]


def write(file: str, labeled: Sequence[tuple[str, str]]) -> None:
    with Path(file).open("w", newline="", encoding="utf-8") as out:
        csv.writer(out).writerows([("text", "label"), *labeled])


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Hugging Face classifier without label names that reads 192 tokens; its outputs are angry, calm, odd."""
    labels, folder = ("angry", "calm", "odd"), tmp_path_factory.mktemp("trained") / "bert"
    labeled = rows(labels)[:60] + rows(labels, LONG)[:30]
    tokenizer = train_tokenizer([text for text, _ in rows(labels, LONG)], 192)
    config = BertConfig(
        vocab_size=tokenizer.get_vocab_size(), hidden_size=32, num_hidden_layers=1, num_attention_heads=1,
        intermediate_size=64, max_position_embeddings=192, type_vocab_size=1, num_labels=3, pad_token_id=1,
        hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0,
    )  # fmt: skip
    torch.manual_seed(0)
    network = BertForSequenceClassification(config)
    tokenizer.enable_padding(pad_id=tokenizer.token_to_id(PAD), pad_token=PAD)
    encoded = tokenizer.encode_batch([text for text, _ in labeled])
    ids, mask = (torch.tensor([getattr(each, name) for each in encoded]) for name in ("ids", "attention_mask"))
    truth = torch.tensor([labels.index(label) for _, label in labeled])
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-2)
    for _ in range(80):
        loss = network(input_ids=ids, attention_mask=mask, labels=truth).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    assert loss.item() < 0.05
    network.save_pretrained(folder)
    tokenizer.no_padding()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token=PAD, unk_token="[UNK]").save_pretrained(folder)
    return folder


@pytest.fixture
def model(trained: Path, workplace: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The classifier in the current folder, with a file of its labels; packages may need --force."""
    shutil.copytree(trained, "bert")
    write("rows.csv", rows(("calm", "angry", "odd")))
    monkeypatch.setattr(Standing, "needs_force", NEEDS_FORCE)
    return Path("bert")


def test_outputs_without_names_need_the_names_in_their_order(
    model: Path, hbt: Hbt, capsys: pytest.CaptureFixture[str]
) -> None:
    before = contents(Path())
    assert hbt("compress", "bert", "--data", "rows.csv", *FAST) == 2
    (line,) = (line for line in capsys.readouterr().err.splitlines() if line.startswith("hbt:"))
    assert "its labels are LABEL_0, LABEL_1, LABEL_2, but those of the data are angry, calm, odd" in line
    assert line.endswith("--label-names angry,calm,odd")
    assert contents(Path()) == before
    assert hbt("compress", "bert", "--data", "rows.csv", *FAST, "--label-names", "angry,calm,odd") == 0


def test_names_in_another_order_are_refused_and_the_advice_works(
    model: Path, hbt: Hbt, capsys: pytest.CaptureFixture[str]
) -> None:
    assert hbt("compress", "bert", "--data", "rows.csv", *FAST, "--label-names", "odd,calm,angry") == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert (
        "read as odd, calm, angry, have macro-F1 0.3333 on 24 validation rows, and 1.0000 read as angry, calm, odd"
        in line
    )
    assert line.endswith("give --label-names angry,calm,odd")
    assert not Path("models").exists()


def test_numbered_labels_are_the_outputs_in_order(model: Path, hbt: Hbt, capsys: pytest.CaptureFixture[str]) -> None:
    numbers = {"angry": "0", "calm": "1", "odd": "2"}
    write("rows.csv", [(text, numbers[label]) for text, label in rows(("calm", "angry", "odd"))])
    assert hbt("compress", "bert", "--data", "rows.csv", *FAST, "-o", "first") == 0
    swapped = {"angry": "1", "calm": "0", "odd": "2"}
    write("rows.csv", [(text, swapped[label]) for text, label in rows(("calm", "angry", "odd"))])
    assert hbt("compress", "bert", "--data", "rows.csv", *FAST, "-o", "second") == 2
    assert capsys.readouterr().err.splitlines()[-1].endswith("give --label-names 1,0,2")
    assert hbt("compress", "bert", "--data", "rows.csv", *FAST, "--label-names", "1,0,2", "-o", "second") == 0


def test_named_outputs_in_another_order_are_not_an_option(
    model: Path, hbt: Hbt, capsys: pytest.CaptureFixture[str]
) -> None:
    config = json.loads((model / "config.json").read_text("utf-8"))
    config["id2label"] = {"0": "calm", "1": "angry", "2": "odd"}
    (model / "config.json").write_text(json.dumps(config), "utf-8")
    assert hbt("compress", "bert", "--data", "rows.csv", *FAST, "--label-names", "calm,angry,odd") == 2
    assert capsys.readouterr().err.splitlines()[-1].endswith("or id2label in the config.json of the model")


def test_a_teacher_whose_names_are_in_another_order_is_refused_before_a_run_begins(
    model: Path, hbt: Hbt, capsys: pytest.CaptureFixture[str]
) -> None:
    how = ("--data", "rows.csv", "--folds", "2", "--teacher", "bert", "--student", "ngram:10", "--name", "new")
    assert hbt("train", *how, "--label-names", "odd,calm,angry") == 2
    assert capsys.readouterr().err.splitlines()[-1].endswith("give --label-names angry,calm,odd")
    assert not Path("runs").exists()


def test_a_model_near_chance_is_packaged_only_by_force_and_says_so_everywhere(
    model: Path, hbt: Hbt, capsys: pytest.CaptureFixture[str]
) -> None:
    write(
        "rows.csv", [(text.replace(WORDS[label], "x" + label), label) for text, label in rows(("calm", "angry", "odd"))]
    )
    how = ("compress", "bert", "--data", "rows.csv", *FAST, "--label-names", "angry,calm,odd")
    assert hbt(*how) == 3
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith("hbt: onnx-fp32: the selected candidate is near chance: macro-F1 0.")
    assert "the linear baseline 1.0000; package it anyway with --force" in line
    assert not Path("models").exists() or not any(Path("models").iterdir())
    assert hbt(*how, "--force") == 0
    shown = capsys.readouterr().out
    assert "onnx-fp32 (near chance)" in shown
    assert shown.splitlines()[-1].startswith("warning: the package is near chance: macro-F1 0.")
    card = Path("models/bert-onnx-fp32/README.md").read_text("utf-8")
    after_title = card.partition("\n# ")[2].splitlines()[2]
    assert after_title.startswith("**Warning: this model is near chance: macro-F1 0.")


@pytest.mark.slow
def test_texts_are_read_up_to_the_length_of_the_model_and_cuts_are_counted(
    model: Path, hbt: Hbt, capsys: pytest.CaptureFixture[str]
) -> None:
    write("long.csv", rows(("calm", "angry", "odd"), LONG))
    how = ("compress", "bert", "--data", "long.csv", *FAST, "--label-names", "angry,calm,odd")
    assert hbt(*how) == 0
    assert "\n0 of 36 test texts are cut at 192 tokens\n" in capsys.readouterr().out
    assert (
        json.loads(Path("models/bert-onnx-fp32/tokenizer.json").read_text("utf-8"))["truncation"]["max_length"] == 192
    )
    assert "- Longer texts are cut: 0 of 36 test texts" in Path("models/bert-onnx-fp32/README.md").read_text("utf-8")
    assert hbt(*how, "--max-length", "128", "-o", "short") == 3  # the word at the end tells the label
    assert hbt(*how, "--max-length", "128", "-o", "short", "--force") == 0
    assert "\n36 of 36 test texts (100.0 %) are cut at 128 tokens\n" in capsys.readouterr().out
    card = Path("short/README.md").read_text("utf-8")
    assert "- Longer texts are cut: 36 of 36 test texts (100.0 %) are cut at 128 tokens." in card
    assert hbt(*how, "--max-length", "193", "-o", "longer") == 2
    assert capsys.readouterr().err.splitlines()[-1] == (
        "hbt: --max-length 193: bert reads at most 192 tokens; give 192 or less"
    )


def test_hbt_data_counts_the_texts_that_a_run_cuts(model: Path, hbt: Hbt, capsys: pytest.CaptureFixture[str]) -> None:
    write("long.csv", rows(("calm", "angry", "odd"))[:180] + rows(("calm", "angry", "odd"), LONG)[180:])
    assert hbt("data", "long.csv") == 0
    assert "60 rows (25.0%) are longer than 128 tokens; a run cuts them" in capsys.readouterr().out
    assert hbt("data", "long.csv", "--max-length", "512") == 0
    assert "0 rows (0.0%) are longer than 512 tokens" in capsys.readouterr().out
    assert hbt("data", "long.csv", "--model", "bert", "--max-length", "512", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["max_length"], found["cut_rows"]) == (192, 0)


def test_a_student_of_a_given_teacher_keeps_the_length_of_the_run(model: Path, toy: Corpus) -> None:
    teacher = load_sequence_classifier("bert")
    assert teacher.max_length == 192
    student = build_student("shape:1x32", teacher, ModelSettings(max_length=32), toy.texts, seed=0)
    assert (student.max_length, teacher.max_length) == (32, 192)
