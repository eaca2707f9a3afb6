import dataclasses
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.helpers import TINY, Finished, Hbt, contents, tiny_recipe
from toolkit import package
from toolkit.config.settings import CorpusSettings, ExportSettings
from toolkit.config.toml_file import write_recipe
from toolkit.data.corpus import Corpus, corpus_from_table, load_corpus
from toolkit.data.tables import Table
from toolkit.evaluation.decision_rule import DecisionRule
from toolkit.export.stage import TORCH_ORIGINAL
from toolkit.modeling.classifier import Classifier, save_classifier
from toolkit.modeling.encoders import build_classifier
from toolkit.stages.result import StageResult
from toolkit.stages.teachers import with_corpus_labels
from toolkit.utils.errors import InputError
from toolkit.workflows.compress import compress_checkpoint, compress_run

DATA = CorpusSettings(data="comments.csv", folds=2)
INT8, FP32 = ExportSettings(max_drop=0.5), ExportSettings(target="onnx-fp32")


@pytest.fixture
def checkpoint(workplace: Path) -> Path:
    recipe = tiny_recipe(model="shape:1x32", student=None, pipeline="baseline")
    corpus = load_corpus(recipe.corpus)
    made = build_classifier(recipe.model, corpus.label_names, corpus.take(corpus.rows("train")), seed=1)
    save_classifier(made.with_rule(DecisionRule(0.4)), workplace / "checkpoint")
    return Path("checkpoint")


def test_a_checkpoint_is_packaged_with_its_own_threshold(checkpoint: Path, workplace: Path) -> None:
    outcome = compress_checkpoint(str(checkpoint), DATA, INT8, None, force=False)
    assert outcome.package == Path("models/checkpoint-onnx-int8")
    assert package.verify(outcome.package).problems == []
    assert package.load(outcome.package).threshold == 0.4
    lineage = package.read_manifest(outcome.package)["lineage"]
    assert lineage["model"] == "checkpoint"
    assert lineage["corpus_fingerprint"] == load_corpus(DATA).fingerprint
    assert [row.stage for row in outcome.rows] == ["linear baseline", "checkpoint in torch", "onnx-int8"]
    assert not (workplace / "runs").exists()
    card = (outcome.package / "README.md").read_text("utf-8")
    assert "whether the classifier was trained on them is not known" in card
    assert "held out" not in card


def test_a_checkpoint_is_packaged_with_a_trimmed_vocabulary(workplace: Path) -> None:
    corpus = load_corpus(DATA)
    made = build_classifier(TINY, corpus.label_names, [*corpus.texts, *["zebras gallop over grass"] * 9], seed=1)
    save_classifier(made, workplace / "checkpoint")
    checkpoint = Path("checkpoint")
    untrimmed = compress_checkpoint(str(checkpoint), DATA, FP32, Path("untrimmed"), force=False).package
    trimming = ExportSettings(target="onnx-fp32", trim_vocabulary=0)
    outcome = compress_checkpoint(str(checkpoint), DATA, trimming, Path("trimmed"), force=False)
    assert outcome.package is not None
    assert untrimmed is not None
    assert package.verify(outcome.package).problems == []
    first, second = (package.load(folder).predict_logits(corpus.texts) for folder in (untrimmed, outcome.package))
    np.testing.assert_allclose(first, second, atol=1e-5)
    assert outcome.rows[-1].parameters < outcome.rows[-2].parameters  # type: ignore[operator]
    assert "- vocabulary trimmed from " in (outcome.package / "README.md").read_text("utf-8")
    assert "vocabulary trimmed" not in (untrimmed / "README.md").read_text("utf-8")


def test_an_interrupted_export_does_not_block_the_next(checkpoint: Path, workplace: Path) -> None:
    half = workplace / "models" / "checkpoint-onnx-fp32.partial"
    (half / "tmp1234").mkdir(parents=True)
    (half / "tmp1234" / "fp32.onnx").write_bytes(b"half")
    (half / "model.onnx").write_bytes(b"half")
    outcome = compress_checkpoint(str(checkpoint), DATA, FP32, None, force=False)
    assert outcome.package is not None
    assert package.verify(outcome.package).problems == []


def test_a_graph_that_differs_from_torch_is_never_packaged(
    checkpoint: Path, workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("exporters.onnx_fp32.largest_logit_gap", lambda *_: 0.5)
    with pytest.raises(
        InputError, match=r"cannot export this classifier .*differ from torch by 0\.5.*--target torch-int8"
    ):
        compress_checkpoint(str(checkpoint), DATA, FP32, None, force=False)
    assert not (workplace / "models" / "checkpoint-onnx-fp32").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model": "no-such-folder"}, "as SOURCE"),
        ({"model": "comments.csv"}, "cannot be loaded"),
        ({"export": ExportSettings(target="onnx-int9")}, "no such target"),
        ({"settings": CorpusSettings(data="nothing.csv")}, "no such file"),
        ({"settings": CorpusSettings(data="comments.csv", label_names=("calm", "angry"))}, "--label-names"),
        ({"out": Path("comments.csv")}, "exists"),
        ({"export": ExportSettings(target="onnx-fp32", trim_vocabulary=9)}, "--trim-vocabulary 9: the texts need"),
    ],
)
def test_an_invalid_source_is_one_line_and_no_folder(
    checkpoint: Path, workplace: Path, change: dict[str, Any], message: str
) -> None:
    given: dict[str, Any] = {"model": str(checkpoint), "settings": DATA, "export": FP32, "out": None}
    before = contents(workplace)
    with pytest.raises(InputError, match=message) as caught:
        compress_checkpoint(**(given | change), force=False)
    assert "\n" not in str(caught.value)
    assert contents(workplace) == before


def test_a_folder_that_is_not_a_run_is_reported(workplace: Path) -> None:
    with pytest.raises(InputError, match=r"nothing: not a run folder"):
        compress_run(Path("nothing"), INT8, None, force=False)


def test_a_run_whose_data_changed_is_refused(at_home: Finished) -> None:
    data = at_home.home / "comments.csv"
    original = data.read_bytes()
    data.write_bytes(original + b"another row,0,plain\n")
    try:
        with pytest.raises(InputError, match="not the rows that runs/tiny was trained on"):
            compress_run(Path("runs/tiny"), FP32, Path("models/other"), force=False)
    finally:
        data.write_bytes(original)
    assert not (at_home.home / "models" / "other").exists()


def test_the_quantized_student_is_compared_with_its_fp32_checkpoint(finished: Finished) -> None:
    result = StageResult.load(finished.run / "4-export-onnx-int8")
    student = StageResult.load(finished.run / "2-distillation")
    versus = {each["a"]: each["comparison"] for each in result.details["versus"]}
    assert set(versus) == {TORCH_ORIGINAL, "linear baseline", "fold ensemble"}
    reference = versus[TORCH_ORIGINAL]
    assert reference["rows"] == student.details["versus_teacher"]["rows"]
    assert reference["macro_f1_difference"] == pytest.approx(result.metrics["macro_f1"] - student.metrics["macro_f1"])
    linear = StageResult.load(finished.run / "0-floor")
    expected = result.metrics["macro_f1"] - linear.metrics["macro_f1"]
    assert versus["linear baseline"]["macro_f1_difference"] == pytest.approx(expected)
    assert result.parameters == student.parameters
    assert result.details["package_size_bytes"] == sum(map(len, contents(finished.package).values()))


@pytest.mark.parametrize(
    ("labels", "corpus_labels", "accepted"),
    [
        (("sea", "sun"), ("sea", "sun"), True),
        (("LABEL_0", "LABEL_1"), ("sea", "sun"), False),
        (("sun", "sea"), ("sea", "sun"), False),
        (("LABEL_0", "LABEL_1", "LABEL_2"), ("sea", "sun"), False),
        (("LABEL_1", "LABEL_0"), ("sea", "sun"), False),
    ],
)
def test_a_model_keeps_its_label_names(
    classifier: Classifier, toy: Corpus, labels: tuple[str, ...], corpus_labels: tuple[str, ...], accepted: bool
) -> None:
    from dataclasses import replace

    given = replace(classifier, labels=labels)
    if accepted:
        assert with_corpus_labels(given, toy, "m").labels == corpus_labels
    else:
        with pytest.raises(InputError, match=r"--label-names|another model"):
            with_corpus_labels(given, toy, "m")


def test_the_advice_for_a_run_without_export_makes_its_package(
    copied: Path, hbt: Hbt, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = Path("runs/tiny/recipe.toml")
    recipe.write_text(recipe.read_text("utf-8").replace("baseline_kd_quant", "baseline_kd"), "utf-8")
    shutil.rmtree("models")
    write_recipe(tiny_recipe(), Path("again.toml"))
    assert hbt("run", "--recipe", "again.toml") == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "runs/tiny: is a run of baseline_kd; make its package with hbt compress runs/tiny, or" in line
    assert hbt("compress", "runs/tiny", "--max-drop", "0.5") == 0
    assert Path("models/tiny-onnx-int8/manifest.json").is_file()


def test_labels_that_differ_only_in_case_are_the_same(toy: Corpus, classifier: Classifier) -> None:
    given = dataclasses.replace(classifier, labels=("Sea", "SUN"))
    assert with_corpus_labels(given, toy, "m").labels == ("sea", "sun")


def test_the_advice_for_labels_in_another_order_is_an_option_that_works(toy: Corpus, classifier: Classifier) -> None:
    given = dataclasses.replace(classifier, labels=("Sun", "Sea"))
    with pytest.raises(InputError, match=r"give --label-names sun,sea$"):
        with_corpus_labels(given, toy, "m")
    table = Table("made-up", {"text": toy.texts, "label": [toy.label_names[i] for i in toy.labels]})
    again = corpus_from_table(table, CorpusSettings(folds=2, label_names=("sun", "sea")))
    assert with_corpus_labels(given, again, "m").labels == ("sun", "sea")


def test_a_package_that_a_killed_command_did_not_record_is_made_again(copied: Path) -> None:
    other = Path("models/other")
    for out in (Path("models/fp32"), other):
        compress_run(Path("runs/tiny"), FP32, out, force=False)
    with pytest.raises(InputError, match="models/fp32: exists"):
        compress_run(Path("runs/tiny"), FP32, Path("models/fp32"), force=False)
    before = contents(other)
    shutil.rmtree("runs/tiny/4-export-onnx-fp32")  # as if killed just after the package was moved into place
    compress_run(Path("runs/tiny"), FP32, other, force=False)
    assert {name for name, held in contents(other).items() if held != before[name]} <= {"manifest.json", "README.md"}
