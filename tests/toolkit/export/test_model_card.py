"""The model card: the figures of the run, with any names of labels and files."""

import re
import socket
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from huggingface_hub import ModelCard

from toolkit.config.settings import CorpusSettings
from toolkit.data.corpus import Corpus, corpus_from_table
from toolkit.data.tables import Table
from toolkit.evaluation.decision_rule import DecisionRule
from toolkit.evaluation.label_keys import label_keys
from toolkit.evaluation.significance import Comparison
from toolkit.export.candidates import CandidateResult
from toolkit.export.card_metadata import languages
from toolkit.export.model_card import CANDIDATES_SHOWN, code, render_card, text, write_card
from toolkit.stages.result import StageResult
from toolkit.stages.results_table import Row
from toolkit.utils.machine import Machine

MACHINE = Machine("CPU X", "x86-64 AVX2", ("avx2",), 4, 7.6, "Linux", "3.11.9", {}, 0.25)
NASTY = ('a|b "c": d', "x`y``z # *e* <b>", "yes", "back\\slash|")
COMPARISON = Comparison(60, -0.0123, (-0.02, 0.001), -0.01, (-0.02, 0.0), 0.25, 4, 1, 0.9876, 0.01, "inconclusive", 863)


def corpus_of(labels: tuple[str, ...], source: str = "made-up") -> Corpus:
    texts = [f"text number {i}" for i in range(60 * len(labels))]
    table = Table(source, {"text": texts, "label": [labels[i % len(labels)] for i in range(len(texts))]})
    return corpus_from_table(table, CorpusSettings(data=source, folds=2, label_names=labels))


def result(name: str, p50_ms: float, fails: str = "", in_float: tuple[str, ...] = ()) -> dict[str, Any]:
    return asdict(CandidateResult(name, 0.8765, 0.0021, 0.98, 0.01, 0, 0.0, 2_500_000, p50_ms, 1.5, in_float, fails))


def metrics_of(labels: tuple[str, ...]) -> dict[str, float]:
    return {"accuracy": 0.9123, "macro_f1": 0.8456, "roc_auc": 0.95} | {f"f1_{key}": 0.8 for key in label_keys(labels)}


def result_of(labels: tuple[str, ...], **details: Any) -> StageResult:
    results = [result("static, minmax", 0.5), result("dynamic", 0.4), result("per token", 0.3, "loses 3.00 points")]
    beside = ("original (torch fp32)", "linear baseline")
    versus = [{"b": "onnx-int8", "a": a, "comparison": asdict(COMPARISON)} for a in beside]
    gate = {
        "rows": 1234,
        "max_drop": 0.005,
        "ships": 0,
        "trials": results,
        "reference": {"macro_f1": 0.8786, "p50_ms": 0.7},
        "this_cpu_only": False,
    }
    known = {
        "target": "onnx-int8", "name": "onnx-int8", "versus": versus, "gate": gate,
        "invariance": {"batch": 64, "rows": 2000, "label_flips": 0, "largest_score_difference": 0.0146},
    }  # fmt: skip
    metrics = metrics_of(labels)
    rule = DecisionRule(0.6) if len(labels) == 2 else DecisionRule()
    return StageResult("quantization", "model.onnx", metrics, {}, rule, 1000, 2_500_000, 1.0, details=known | details)


def card(labels: tuple[str, ...] = ("non_hate", "hate"), lineage: dict[str, Any] | None = None, **details: Any) -> str:
    corpus = corpus_of(labels)
    rows = [
        Row("linear baseline", metrics_of(labels), 100_000, 3199, 0.93),
        Row("onnx-int8", metrics_of(labels), 560_000, 488_578, 0.27),
        Row("linear baseline", metrics_of(labels), slice="kind=plain"),
        Row("onnx-int8", metrics_of(labels), slice="kind=plain"),
    ]
    lineage = {"corpus": "made-up", "run": "runs/x"} if lineage is None else lineage
    return render_card("demo", corpus, rows, result_of(labels, **details), lineage, MACHINE, ("onnxruntime",))


def section(rendered: str, heading: str) -> str:
    return rendered.split(f"\n## {heading}\n")[1].split("\n## ")[0]


def columns(line: str) -> int:
    return len(re.findall(r"(?<!\\)(?:\\\\)*\|", line)) - 1


def test_the_front_matter_is_valid_for_the_hub() -> None:
    front = yaml.safe_load(card().split("---\n")[1])
    assert (front["pipeline_tag"], front["library_name"], front["datasets"]) == (
        "text-classification", "onnxruntime", ["made-up"],
    )  # fmt: skip
    (model,) = front["model-index"]
    assert model["name"] == "demo (onnx-int8)"
    (found,) = model["results"]
    assert (found["task"], found["dataset"]) == (
        {"type": "text-classification"}, {"name": "made-up", "type": "made-up", "split": "test"},
    )  # fmt: skip
    values = [(each["name"], each["value"]) for each in found["metrics"]]
    assert values[:2] == [("Macro F1", 0.8456), ("Accuracy", 0.9123)]
    assert dict(values) == {"Macro F1": 0.8456, "Accuracy": 0.9123, "roc_auc": 0.95, "f1_non_hate": 0.8, "f1_hate": 0.8}
    assert front["tags"] == ["hbt", "onnx-int8"]
    assert "base_model" not in front and "language" not in front and "license" not in front


def test_license_language_and_base_model_are_stated_where_they_are_known() -> None:
    lineage = {"run": "runs/x", "model": "google/bert", "license": "mit", "data_license": "cc-by-4.0"}
    rendered = card(lineage=lineage)
    front = yaml.safe_load(rendered.split("---\n")[1])
    assert (front["license"], front["base_model"]) == ("mit", "google/bert")
    assert "Licenses: the model mit, the data cc-by-4.0." in rendered
    assert "Licenses: the model not stated, the data not stated." in card()
    alone = yaml.safe_load(card(lineage=lineage | {"teacher": "none: the labels alone"}).split("---\n")[1])
    assert "base_model" not in alone
    corpus = corpus_of(("a", "b"))
    assert languages(corpus) == []
    assert languages(replace(corpus, texts=["ক্যামেরা ভালো"] * len(corpus.texts))) == ["bn"]


def test_sections_are_in_order() -> None:
    found = re.findall(r"^## (.*)$", card(), flags=re.M)
    assert found == [
        "Use", "Results", "Paired comparisons", "What compression forgot", "Calibration", "Abstention",
        "Scope", "Drift", "Robustness", "Candidates evaluated", "Data", "How it was made", "Limitations",
    ]  # fmt: skip
    assert "\n\n\n" not in card()


def test_figures_are_those_that_were_measured() -> None:
    rendered = card(fp32_logit_gap=1.4e-6)
    assert "| linear baseline | 0.9123 | 0.8456 | 0.8000 | 0.8000 | 0.9500 | 0.10 | 3,199 | 0.93 |" in rendered
    assert "| kind=plain | onnx-int8 | 0.9123 | 0.8456 |" in section(rendered, "Results")
    assert "`hate` is predicted if its probability is at least 0.6" in rendered
    assert "one thread of CPU X (x86-64 AVX2)" in rendered
    comparisons = section(rendered, "Paired comparisons")
    assert "| onnx-int8 | linear baseline | -1.23 | -2.00 … +0.10 | 0.25 | 4 | 1 | -1.00 | 98.76 % |" in comparisons
    assert "(needs ~863 rows)" in comparisons
    assert "0 of 2,000 validation and test rows" in comparisons
    assert "differ from those of torch by at most 1.4e-06" in comparisons
    candidates = section(rendered, "Candidates evaluated")
    assert "(macro-F1 0.8786, median latency 0.700 ms)" in candidates
    assert "may lose at most 0.5 points" in candidates
    lines = [line for line in candidates.splitlines() if line.startswith("|")][2:]
    assert [line.split(" | ")[0] for line in lines] == ["| static, minmax", "| dynamic", "| per token"]
    assert [line.split(" | ")[-1] for line in lines] == ["selected |", "passes |", "loses 3.00 points |"]


@pytest.mark.parametrize("word", ["floor", "ships", "forms", "what was tried", "no choice", "yardstick"])
def test_no_private_words(word: str) -> None:
    assert word not in card().lower()


def test_the_card_of_a_forced_package_starts_with_its_failures() -> None:
    gate = result_of(("a", "b")).details["gate"] | {"ships": 2}
    rendered = card(gate=gate)
    first = rendered.split("# demo (onnx-int8)\n\n")[1].splitlines()[0]
    assert first.startswith("**Packaged with `--force`: it fails the quality gate. On 1,234 validation rows")
    assert "loses 3.00 points" in first
    assert "selected by force: loses 3.00 points |" in rendered
    assert "--force" not in card()


def test_a_package_for_this_cpu_only_starts_with_a_warning() -> None:
    gate = result_of(("a", "b")).details["gate"] | {"this_cpu_only": True}
    assert "**Warning: made with `--this-cpu-only`. Its eight-bit weights give wrong scores on x86" in card(gate=gate)
    assert "--this-cpu-only" not in card()


def test_an_unknown_origin_is_not_called_held_out() -> None:
    assert "held out: never used for model selection" in card()
    rendered = card(lineage={"corpus": "made-up", "model": "some/model"})
    assert "(whether the classifier was trained on them is not known)" in rendered
    assert "held out" not in rendered


def test_many_candidates_are_counted_and_those_in_float_named() -> None:
    results = [result(f"candidate {i}", 0.5 + i, in_float=("encoder.0|x",) if i == 3 else ()) for i in range(9)]
    gate = result_of(("a", "b")).details["gate"] | {"ships": 3, "trials": results}
    found = section(card(gate=gate), "Candidates evaluated")
    assert found.count("\n| candidate") == CANDIDATES_SHOWN
    assert "3 more were evaluated" in found
    assert "Kept in float: `encoder.0|x`." in found
    assert found.index("| candidate 3, 1 part in float |") < found.index("| candidate 0 |")


def test_a_synthetic_corpus_is_named_so() -> None:
    labels = ("no", "yes")
    given = result_of(labels), {"run": "x"}, MACHINE, "onnxruntime"
    rows = [Row("onnx-int8", metrics_of(labels))]
    assert "synthetic" in render_card("x", corpus_of(labels, "demo"), rows, *given)
    assert "synthetic" not in render_card("x", corpus_of(labels), rows, *given)


def test_trimming_is_reported() -> None:
    cut = {
        "pieces_before": 8000, "pieces_after": 650, "half_pieces": 600, "unseen_identical": 0.987, "unseen_texts": 1500,
        "unseen_unknown": 0.0012, "unseen_unknown_before": 0.0,
    }  # fmt: skip
    assert "- vocabulary trimmed from 8,000 to 650 tokens;" in card(trimming=cut)
    assert "vocabulary" not in card()


def test_nasty_labels_break_neither_tables_nor_yaml(tmp_path: Path) -> None:
    corpus = replace(corpus_of(NASTY), name='a|b: "c" # d\n---\ne')
    rows = [Row("onnx|int8\nx", metrics_of(NASTY), 560_000, 488_578, 0.27)]
    lineage = {"corpus": corpus.name, "student": "`x` | y", "run": "runs/x"}
    write_card(tmp_path, "x | y\nz", corpus, rows, result_of(NASTY), lineage, MACHINE, ("onnxruntime",))
    rendered = (tmp_path / "README.md").read_text("utf-8")
    assert ModelCard(rendered).data["datasets"] == [corpus.name]
    block: list[int] = []
    tables = 0
    for line in [*rendered.splitlines(), ""]:
        if line.startswith("| ") or line.startswith("|---"):
            block.append(columns(line))
        elif block:
            assert len(block) >= 3
            assert len(set(block)) == 1, block
            tables, block = tables + 1, []
    assert tables == 5
    assert "\n# x \\| y z (onnx-int8)\n" in rendered
    assert "- student: `` `x` | y ``\n" in rendered
    assert [line for line in rendered.splitlines() if line == "---"] == ["---", "---"]


@pytest.mark.parametrize(
    ("value", "expected"),
    [("a|b", "a\\|b"), ("a\\|b", "a\\\\\\|b"), ("a\r\nb\u2028c", "a b c"), ("non_hate", "non_hate")],
)
def test_text_is_not_markup(value: str, expected: str) -> None:
    assert text(value) == expected


@pytest.mark.parametrize(
    ("value", "expected"), [("a", "`a`"), ("a`b", "`` a`b ``"), ("``", "``` `` ```"), ("a\nb", "`a b`")]
)
def test_code_is_fenced(value: str, expected: str) -> None:
    assert code(value) == expected


def test_a_card_is_written_without_the_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("asks for the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    labels = ("no", "yes")
    rows = [Row("onnx-int8", metrics_of(labels))]
    write_card(tmp_path, "demo", corpus_of(labels), rows, result_of(labels), {"run": "x"}, MACHINE, ("onnxruntime",))
    assert (tmp_path / "README.md").read_text("utf-8").startswith("---\n")


def test_the_same_figures_give_the_same_card() -> None:
    assert card() == card()
