"""Candidate search: selection, no passing candidate, and a network that int8 quantization breaks."""

import copy
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import binom

from exporters.registry import exporter
from tests.conftest import Hbt
from tests.helpers import TINY, evidence_of
from toolkit.config.settings import CorpusSettings, ExportSettings
from toolkit.data.corpus import Corpus, load_corpus
from toolkit.evaluation.decision_rule import DecisionRule
from toolkit.evaluation.metrics import macro_f1, softmax
from toolkit.export.candidates import CandidateResult, significantly_slower
from toolkit.export.search import QAT, _winner, choose, fewest_that_pass, lines, qat_summary
from toolkit.export.stage import refuse_unready
from toolkit.modeling.classifier import Classifier, save_classifier
from toolkit.modeling.encoders import build_classifier
from toolkit.stages.result import StageResult
from toolkit.utils.errors import CannotExport, InputError, NothingPasses
from toolkit.utils.machine import describe_machine
from toolkit.workflows.compress import compress_checkpoint, compress_run

DATA = CorpusSettings(data="comments.csv", folds=2)
GOOD = CandidateResult("good", 0.8, 0.0, 1.0, 0.01, 0, 0.0, 100, 1.0, 2.0, (), "")


@pytest.fixture(scope="module")
def hard(learned: Classifier) -> Classifier:
    """The learned classifier with two outlier channels, each removed again after the layer that it disturbs.

    One stands in every row of the word embeddings, the token type takes it away; one in what query, key and value
    see, their biases take it away. Each is about a hundred times as large as its neighbors.
    """
    network = copy.deepcopy(learned.network)
    embeddings = network.encoder.embeddings  # type: ignore[union-attr]
    layer = network.encoder.encoder.layer[0]  # type: ignore[union-attr]
    with torch.no_grad():
        embeddings.word_embeddings.weight[:, 3] += 300.0
        embeddings.token_type_embeddings.weight[:, 3] -= 300.0
        embeddings.LayerNorm.bias[3] += 300.0
        for part in (layer.attention.self.query, layer.attention.self.key, layer.attention.self.value):
            part.bias -= 300.0 * part.weight[:, 3]
        layer.attention.output.dense.bias[3] -= 300.0
    return replace(learned, network=network)


def search(made: Classifier, corpus: Corpus, out: Path, force: bool = False, **settings: Any) -> Any:
    given = ExportSettings(**({"max_drop": 0.0} | settings))
    return choose(exporter(given.target), made, evidence_of(corpus, DecisionRule(0.45)), given, out, force)


@pytest.mark.parametrize(("flags", "fine"), [(("avx2", "avx512_vnni"), True), (("avx2",), False), (("asimd",), False)])
def test_eight_bit_weights_are_only_made_where_they_are_right(
    flags: tuple[str, ...], fine: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = replace(describe_machine(), flags=flags)
    monkeypatch.setattr("toolkit.export.stage.describe_machine", lambda: here)
    refuse_unready(ExportSettings())
    if fine:
        return refuse_unready(ExportSettings(this_cpu_only=True))
    with pytest.raises(InputError, match="--this-cpu-only: this processor has no VNNI"):
        refuse_unready(ExportSettings(this_cpu_only=True))


def test_the_search_says_whether_the_selected_candidate_is_for_this_cpu_only(
    learned: Classifier, toy: Corpus, tmp_path: Path
) -> None:
    for only in (False, True):
        found = search(learned, toy, tmp_path / str(only), search="off", max_drop=1.0, this_cpu_only=only, force=True)
        assert found.facts["gate"]["this_cpu_only"] == only
        (trial,) = found.facts["gate"]["trials"]
        assert ("7-bit weights" in trial["form"]) != only


def test_outlier_channels_do_not_change_predictions(learned: Classifier, hard: Classifier, toy: Corpus) -> None:
    np.testing.assert_allclose(hard.predict_logits(toy.texts), learned.predict_logits(toy.texts), atol=0.1)


TABLE = "encoder/embeddings/word_embeddings"


def test_naive_int8_fails_and_the_search_selects_a_passing_candidate(
    hard: Classifier, toy: Corpus, tmp_path: Path
) -> None:
    choice = search(hard, toy, tmp_path)
    gate = choice.facts["gate"]
    naive = [result for result in gate["trials"] if not result["in_float"]]
    assert len(naive) == 6
    assert gate["reference"]["macro_f1"] > 0.95
    assert max(result["macro_f1"] for result in naive) < 0.7
    shipped = gate["trials"][gate["ships"]]
    assert (shipped["fails"], shipped["in_float"]) == ("", (TABLE,))
    validation = toy.rows("validation")
    loaded = exporter("onnx-int8").load(choice.folder)
    predicted = DecisionRule(0.45).predict(loaded.predict_proba(toy.take(validation)))
    assert macro_f1(toy.labels[validation], predicted, 2) == pytest.approx(shipped["macro_f1"])


def test_a_weaker_candidate_needs_more_parts_in_float(hard: Classifier, toy: Corpus, tmp_path: Path) -> None:
    gate = search(hard, toy, tmp_path, quant_method="dynamic").facts["gate"]
    shipped = gate["trials"][gate["ships"]]
    assert shipped["fails"] == ""
    assert TABLE in shipped["in_float"]
    assert any("attention/self" in part for part in shipped["in_float"])
    fewer = [len(result["in_float"]) for result in gate["trials"] if result["fails"]]
    assert len(shipped["in_float"]) > max(fewer)


def test_the_results_of_a_candidate_match_its_logits(learned: Classifier, toy: Corpus, tmp_path: Path) -> None:
    choice = search(learned, toy, tmp_path, search="off", max_drop=1.0)
    (result,) = choice.facts["gate"]["trials"]
    rows = toy.rows("validation")
    found = exporter("onnx-int8").load(choice.folder).predict_logits(toy.take(rows))
    exact = learned.predict_logits(toy.take(rows))
    ours, theirs = (DecisionRule(0.45).predict(softmax(each)) for each in (found, exact))
    assert result["macro_f1"] == pytest.approx(macro_f1(toy.labels[rows], ours, 2))
    assert result["drop"] == pytest.approx(macro_f1(toy.labels[rows], theirs, 2) - result["macro_f1"])
    assert result["agreement"] == pytest.approx((ours == theirs).mean())
    assert result["mean_logit_shift"] == pytest.approx(np.abs(found - exact).mean(), rel=1e-3)
    assert result["size_bytes"] == (choice.folder / "onnx" / "model.onnx").stat().st_size == choice.size_bytes


@pytest.mark.slow
def test_the_full_search_evaluates_all_candidates_and_selects_one(
    learned: Classifier, toy: Corpus, tmp_path: Path
) -> None:
    gate = search(learned, toy, tmp_path, search="full").facts["gate"]
    names = [result["form"] for result in gate["trials"]]
    assert len(names) == len(set(names)) > 40
    assert sum(name.endswith(", fused") for name in names) == 6
    assert any("S8S8" in name for name in names)
    assert any("float embeddings" in name for name in names)
    assert gate["trials"][gate["ships"]]["fails"] == ""
    fast = search(learned, toy, tmp_path / "fast").facts["gate"]
    assert [result["form"] for result in fast["trials"]] == names[:6]


@pytest.mark.parametrize(("how", "passes"), [("off", True), ("fast", False)])
def test_without_a_search_no_candidate_fails_for_its_latency(
    learned: Classifier, toy: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str, passes: bool
) -> None:
    monkeypatch.setattr("toolkit.export.candidates.significantly_slower", lambda *_: True)
    found = search(learned, toy, tmp_path, force=True, search=how, max_drop=1.0)
    assert all(not trial["fails"] for trial in found.facts["gate"]["trials"]) == passes


@pytest.mark.parametrize("dtype", ["int8", "uint8"])
def test_a_search_only_evaluates_the_requested_dtype(
    learned: Classifier, toy: Corpus, tmp_path: Path, dtype: str
) -> None:
    results = search(learned, toy, tmp_path, quant_dtype=dtype).facts["gate"]["trials"]
    assert results
    assert all(("U8U8" in result["form"]) == (dtype == "uint8") for result in results)


@pytest.mark.parametrize(
    ("results", "expected"),
    [
        ([GOOD, replace(GOOD, p50_ms=0.5)], 1),  # the fastest
        ([GOOD, replace(GOOD, p50_ms=0.95)], 0),  # about as fast, and not nearer
        ([GOOD, replace(GOOD, p50_ms=1.05, mean_logit_shift=0.001)], 1),  # about as fast, and nearer
        ([GOOD, replace(GOOD, p50_ms=0.5, fails="loses 0.61 points")], 0),
        ([GOOD, replace(GOOD, p50_ms=0.5, batch_flips=3, share_flipped=0.03)], 0),  # batches flip its labels
        ([replace(GOOD, share_flipped=0.03), replace(GOOD, p50_ms=0.5, share_flipped=0.02)], 1),  # as all do
        ([replace(GOOD, fails="slower than fp32")], None),
        ([GOOD, replace(GOOD, form=QAT + "good", macro_f1=0.81, p50_ms=1.3)], 1),
        ([GOOD, replace(GOOD, form=QAT + "good", macro_f1=0.8, p50_ms=0.3)], 0),  # no better than without
        ([GOOD, replace(GOOD, form=QAT + "good", macro_f1=0.81, fails="slower than fp32")], 0),
        ([], None),
    ],
)
def test_the_winner(results: list[CandidateResult], expected: int | None) -> None:
    assert _winner(results, force=False) == expected


def test_by_force_the_candidate_with_the_smallest_loss_is_selected() -> None:
    results = [
        replace(GOOD, drop=0.02, fails="loses 2.00 points"),
        replace(GOOD, drop=0.01, fails="loses 1.00 points"),
        replace(GOOD, drop=0.0, fails="slower than fp32"),
    ]
    assert _winner(results, force=False) is None
    assert _winner(results, force=True) == 1


def test_quantization_aware_training_without_gain_is_reported() -> None:
    tuned = replace(GOOD, form=QAT + "good", macro_f1=0.79)
    assert "no better than static without it" in qat_summary([GOOD, tuned])
    assert "no better" not in qat_summary([GOOD, replace(tuned, macro_f1=0.85)])


@pytest.mark.parametrize("needed", range(1, 41))
@pytest.mark.parametrize("most", [1, 2, 7, 40])
def test_the_fewest_parts_are_found_in_few_evaluations(needed: int, most: int) -> None:
    tried: list[int] = []

    def passes(count: int) -> bool:
        tried.append(count)
        return count >= needed

    assert fewest_that_pass(passes, most) == min(needed, most)
    assert len(tried) == len(set(tried)) <= 2 * np.log2(most) + 2


@pytest.mark.parametrize("longer", [50, 62, 63, 64, 100])
def test_slower_means_significantly_slower(longer: int) -> None:
    reference = np.ones(100)
    times = np.where(np.arange(100) < longer, 1.01, 0.5)
    expected = binom.sf(longer - 1, 100, 0.5) < 0.01
    assert significantly_slower(reference, times) == expected
    assert not significantly_slower(reference, reference)


def test_when_nothing_passes_there_is_no_package_and_the_table_is_kept(
    copied: Path, hbt: Hbt, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("toolkit.export.candidates.significantly_slower", lambda *_: True)
    assert hbt("compress", "runs/tiny", "--max-drop", "0.5", "-o", "models/never") == 3
    captured = capsys.readouterr()
    assert "slower than fp32" in captured.err
    assert captured.err.strip().splitlines()[-1].startswith("hbt: onnx-int8: none of ")
    assert "--force" in captured.err
    assert not Path("models/never").exists()
    assert list(Path("models").glob(".hbt-*")) == []
    table = Path("runs/tiny/outputs/forms_onnx-int8.csv").read_text("utf-8")
    assert "slower than fp32" in table


def test_the_card_of_a_forced_package_starts_with_its_failures(copied: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("toolkit.export.candidates.significantly_slower", lambda *_: True)
    settings = ExportSettings(max_drop=0.5)
    with pytest.raises(NothingPasses):
        compress_run(Path("runs/tiny"), settings, Path("models/forced"), force=False)
    outcome = compress_run(Path("runs/tiny"), settings, Path("models/forced"), force=True)
    card = (Path("models/forced") / "README.md").read_text("utf-8")
    first = next(line for line in card.splitlines() if line.startswith("**") and "Warning" not in line)
    assert first.startswith("**Packaged with `--force`: it fails the quality gate.")
    assert "slower than fp32" in first
    assert "selected by force: slower than fp32" in card
    assert outcome.package == Path("models/forced")


def test_the_card_of_a_passing_package_does_not_mention_force(finished: Any) -> None:
    card = (finished.package / "README.md").read_text("utf-8")
    assert "force" not in card
    gate = StageResult.load(finished.run / "4-export-onnx-int8").details["gate"]
    for line in lines(gate)[:3]:
        assert line["Candidate"] in card
    assert "| selected |" in card


def bare_checkpoint(folder: Path) -> None:
    """An untrained classifier of the labels of comments.csv."""
    corpus = load_corpus(DATA)
    save_classifier(
        build_classifier(TINY, corpus.label_names, corpus.texts, seed=1).with_rule(DecisionRule(0.5)), folder
    )


@pytest.mark.slow
def test_a_classifier_that_onnx_does_not_support_becomes_torch_int8(
    workplace: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    bare_checkpoint(workplace / "odd")

    plain = torch.nn.functional.gelu
    from transformers.activations import GELUActivation

    def odd(self: Any, value: torch.Tensor) -> torch.Tensor:
        return plain(value) + 0 * torch.linalg.qr(value)[0].sum()

    monkeypatch.setattr(GELUActivation, "forward", odd)
    outcome = compress_checkpoint("odd", DATA, ExportSettings(max_drop=0.5), None, force=False)
    assert outcome.package == Path("models/odd-torch-int8")
    assert (outcome.package / "model.safetensors").is_file()
    assert not Path("models/odd-onnx-int8").exists()
    message = capsys.readouterr().err
    assert "onnx-int8: cannot export this classifier" in message
    assert "using torch-int8 instead" in message
    with pytest.raises(InputError, match=r"--target onnx-fp16: cannot export this classifier .*--target torch-int8"):
        compress_checkpoint("odd", DATA, ExportSettings(target="onnx-fp16"), None, force=False)


def test_without_onnx_runtime_torch_int8_is_used(
    workplace: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    bare_checkpoint(workplace / "plain")
    exporter("torch-int8")  # imports the function that is replaced
    monkeypatch.setattr("exporters.onnx_fp32.missing_modules", lambda *_: "onnxruntime missing: pip install it")
    outcome = compress_checkpoint("plain", DATA, ExportSettings(max_drop=0.5), None, force=False)
    assert outcome.package == Path("models/plain-torch-int8")
    assert "onnxruntime missing: pip install it" in capsys.readouterr().err
    with pytest.raises(InputError, match=r"--target onnx-fp32: onnxruntime missing: pip install it"):
        compress_checkpoint("plain", DATA, ExportSettings(target="onnx-fp32"), None, force=False)


def test_a_result_survives_json() -> None:
    assert CandidateResult(**asdict(GOOD)) == GOOD


def test_a_network_that_cannot_be_traced_is_reported(hard: Classifier, tmp_path: Path) -> None:
    from exporters.onnx_fp32 import export_graph

    class Broken(torch.nn.Module):
        config = hard.network.config

        def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> dict[str, torch.Tensor]:
            return {"logits": torch.linalg.qr(input_ids.float())[0]}

    with pytest.raises(CannotExport):
        export_graph(replace(hard, network=Broken()), tmp_path / "model.onnx")  # type: ignore[arg-type]
