"""`hbt explain`: contributions that sum to the logit, words left out, and what the terminal and the page show."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from exporters.loaders.model_bin.library import missing_compiler
from exporters.registry import exporter
from tests.exporters.ngram.test_graph import TEXTS, package_of, student
from tests.helpers import ODD_TEXTS, Finished, Hbt
from toolkit import package
from toolkit.data.normalization import normalize
from toolkit.evaluation.decision_rule import DecisionRule
from toolkit.modeling.ngram import character_tokenizer
from toolkit.utils.errors import InputError
from toolkit.workflows.explaining.explain import explain_texts, heaviest_ngrams
from toolkit.workflows.explaining.view import page

ODD = [text for text in [*ODD_TEXTS, "ক্যামেরা ভালো", "a\u0301 \u200b ক্যামেরা", "İ ﬁ"] if normalize(text)]
RANDOM = [
    "".join(chr(97 + i) if i < 26 else " " for i in np.random.default_rng(seed).integers(0, 31, 40))
    for seed in range(60)
]
MANY = [*TEXTS[:40], *ODD, *RANDOM]
TARGETS = (
    "onnx-int8",
    "onnx-fp32",
    "python",
    pytest.param("c", marks=pytest.mark.skipif(bool(missing_compiler()), reason="no C")),
)


def packaged(folder: Path, target: str = "onnx-int8", labels: int = 2, word_rows: int = 101) -> Path:
    rule = DecisionRule(0.4) if labels == 2 else DecisionRule()
    tokenizer = character_tokenizer([*TEXTS, *ODD])
    made = replace(student(labels, rows=1009, word_rows=word_rows), tokenizer=tokenizer).with_rule(rule)
    package_of(made, target, folder)
    how = exporter(target)
    package.write_manifest(folder, how, "any", {}, package.golden_scores(how.load(folder), ["sea"]))
    return folder


@pytest.fixture(scope="module")
def shipped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return packaged(tmp_path_factory.mktemp("shipped") / "package")


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize(("labels", "word_rows"), [(2, 101), (4, 0)])
def test_bias_and_contributions_sum_to_the_logits(tmp_path: Path, target: str, labels: int, word_rows: int) -> None:
    folder = packaged(tmp_path / "package", target, labels, word_rows)
    texts = MANY if target == "onnx-int8" else MANY[:12]
    expected = package.load(folder).predict_logits(texts)
    for text, logits, found in zip(texts, expected, explain_texts(folder, texts), strict=True):
        assert found.method == "exact" and found.bias is not None
        for parts in (found.words, found.characters, found.ngrams):
            sums = np.sum([part.contributions for part in parts], axis=0) + found.bias
            assert sums == pytest.approx(logits, abs=1e-6 + 1e-6 * float(np.abs(logits).max())), text


def test_every_part_is_a_span_of_the_text(shipped: Path) -> None:
    for found in explain_texts(shipped, MANY):
        for part in (*found.words, *found.characters):
            assert found.text[part.start : part.end] == part.text
        if found.text.isprintable() and found.text.isascii():
            assert [part.text for part in found.words] == found.text.split()
        weights = [abs(found.of(part)) for part in found.ngrams]
        assert weights == sorted(weights, reverse=True)


def test_another_label_may_be_explained(shipped: Path) -> None:
    (found,) = explain_texts(shipped, ["sea and sun"])
    other = next(label for label in found.labels if label != found.label)
    (against,) = explain_texts(shipped, ["sea and sun"], other)
    assert (against.label, against.shown) == (found.label, other)
    assert [against.of(part) for part in against.words] == pytest.approx([-found.of(part) for part in found.words])
    with pytest.raises(InputError, match="not a label"):
        explain_texts(shipped, ["sea"], "nothing")


def test_a_transformer_is_explained_by_leaving_out_words(at_home: Finished) -> None:
    (found,) = explain_texts(Path("models/tiny-onnx-int8"), ["one  two three"])
    assert (found.method, found.bias, found.characters) == ("occlusion", None, ())
    assert [part.text for part in found.words] == ["one", "two", "three"]
    model = package.load(Path("models/tiny-onnx-int8"))
    whole, without = model.predict_logits(["one  two three", "one   three"])
    assert found.words[1].contributions == pytest.approx(whole - without, abs=1e-6)


def test_the_heaviest_ngrams_of_each_label(shipped: Path) -> None:
    found = heaviest_ngrams(shipped, [*TEXTS, *TEXTS], 5)
    assert [each.label for each in found] == [label for label in package.load(shipped).labels for _ in range(5)]
    first = [each.weight for each in found[:5]]
    assert first == sorted(first, reverse=True) and first[-1] > 0
    assert all(each.texts >= 2 and any(each.ngram.strip() in text.lower() for text in TEXTS) for each in found)


def test_nothing_in_the_page_is_markup_of_the_text(shipped: Path) -> None:
    shown = page(explain_texts(shipped, ['<script>alert("x")</script> & sea']))
    assert "<script" not in shown and "http" not in shown.replace("http-equiv", "")
    assert "&lt;" in shown and "&amp;" in shown


def test_the_command_prints_text_or_json(
    shipped: Path, tmp_path: Path, hbt: Hbt, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "page.html"
    assert hbt("explain", str(shipped), "sea \x1b[31m sun", "--html", str(file)) == 0
    out = capsys.readouterr().out
    assert "(bias)" in out and "\x1b" not in out  # no colors and no control characters outside a terminal
    assert file.read_text("utf-8").startswith("<!doctype html>")
    assert hbt("explain", str(shipped), "sea", "--html", str(file)) == 2
    capsys.readouterr()
    assert hbt("explain", str(shipped), "sea", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["method"] == "exact" and found["words"][0]["text"] == "sea"
    texts = tmp_path / "texts.txt"
    texts.write_text("\n".join([*TEXTS, *TEXTS]), "utf-8")
    assert hbt("explain", str(shipped), "--global", "--data", str(texts), "--top", "3", "--json") == 0
    assert len(json.loads(capsys.readouterr().out)) == 6


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "give texts, or --global"),
        (("", "sea"), "text 1 is blank"),
        (("sea", "--label", "nothing"), "not a label"),
        (("sea", "--data", "x.txt"), "needs --global"),
        (("--global",), "give texts that have them with --data"),
        (("--global", "--data", "missing.txt"), "--data missing.txt: no such file"),
        (("sea", "--global"), "takes no texts"),
    ],
)
def test_bad_input_is_one_line(
    shipped: Path, hbt: Hbt, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], message: str
) -> None:
    assert hbt("explain", str(shipped), *arguments) == 2
    assert message in capsys.readouterr().err


def test_only_ngram_packages_have_weights_of_ngrams(
    at_home: Finished, hbt: Hbt, capsys: pytest.CaptureFixture[str]
) -> None:
    assert hbt("explain", "models/tiny-onnx-int8", "--global", "--data", "comments.csv") == 2
    assert "not an n-gram package" in capsys.readouterr().err
