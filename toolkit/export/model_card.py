"""The model card: README.md of a package, rendered from measured results only.

The text is in model_card_template.md. User-defined names (labels, files, models) are escaped by `text` or `code`.
"""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from toolkit.data.corpus import Corpus, describe_split
from toolkit.evaluation.comparison import Versus
from toolkit.evaluation.significance import Comparison
from toolkit.evaluation.slices import LEAST_ROWS, SHOWN, as_slice
from toolkit.evaluation.standing import standing_in
from toolkit.export.candidates import cells as candidate_cells
from toolkit.export.card_metadata import front_matter
from toolkit.export.cascade_curve import CURVE_FILE
from toolkit.export.reliability.abstaining import CURVE_FILE as ABSTENTION_FILE
from toolkit.export.reliability.calibration_facts import DIAGRAM_FILE
from toolkit.modeling.tokenizer import truncation_in
from toolkit.package import CARD_FILE, GOLDEN_TOLERANCE
from toolkit.stages.result import StageResult
from toolkit.stages.results_table import UNSLICED, Row, shown_line
from toolkit.utils.files import MB
from toolkit.utils.machine import Machine

TEMPLATE = Path(__file__).with_name("model_card_template.md")
NEARLY_ALL = 0.9
"""Share of the texts from which on a part of a line is no shift."""
CANDIDATES_SHOWN = 6
"""Including the selected candidate; the run folder lists all of them."""
Line = dict[str, str]
"""One line of a table: heading to cell."""


class Table(NamedTuple):
    """A table of the card."""

    headings: list[str]
    rows: list[list[str]]


def write_card(
    folder: Path,
    name: str,
    corpus: Corpus,
    rows: Sequence[Row],
    result: StageResult,
    lineage: dict[str, Any],
    machine: Machine,
    distributions: tuple[str, ...],
) -> None:
    """Write README.md into the package `folder`.

    rows: the results table of the run, including the row of the package.
    distributions: what the package needs at run time, the runtime first.
    """
    from huggingface_hub import ModelCard

    rendered = render_card(name, corpus, rows, result, lineage, machine, distributions)
    ModelCard(rendered).save(folder / CARD_FILE)  # ModelCard validates the front matter


def render_card(
    name: str,
    corpus: Corpus,
    rows: Sequence[Row],
    result: StageResult,
    lineage: dict[str, Any],
    machine: Machine,
    distributions: tuple[str, ...],
) -> str:
    """Return the text of the card; see `write_card`."""
    from jinja2 import Environment, StrictUndefined

    environment = Environment(
        trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True, undefined=StrictUndefined
    )
    environment.filters |= {"text": text, "code": code, "grouped": "{:,}".format}
    found = [Versus(each["b"], each["a"], Comparison(**each["comparison"])) for each in result.details["versus"]]
    gate = result.details["gate"]
    split = describe_split(corpus)
    return environment.from_string(TEMPLATE.read_text("utf-8")).render(
        front_matter=front_matter(name, corpus, result, distributions, lineage),
        name=name,
        target=result.details["target"],
        needs_nothing=not distributions,
        has_c=result.details["target"] == "c" or distributions == ("numpy",),
        labels=corpus.label_names,
        rule=result.rule,
        macro_f1=result.metrics["macro_f1"],
        size_mb=result.size_bytes / MB,
        p50_ms=result.details.get("p50_ms"),
        synthetic=corpus.settings.data == "demo",
        machine=machine,
        test_rows=len(corpus.rows("test")),
        held_out="run" in lineage,  # made in a run of this corpus, so its test rows were never trained on
        results=_table(_results(rows, corpus)),
        slices=_table(_slices(rows, corpus)),
        comparisons=_table([each.shown() for each in found]),
        compared_rows=found[0].comparison.rows,
        margin=found[0].comparison.margin,
        invariance=result.details["invariance"],
        logit_gap=result.details.get("fp32_logit_gap"),
        gate=gate | {"selected": gate["trials"][gate["ships"]]},
        candidates=_table(_candidates(gate)),
        candidates_left_out=len(gate["trials"]) - CANDIDATES_SHOWN,
        split=split,
        counts=Table(
            ["split", *corpus.label_names],
            [[part, *(f"{count:,}" for count in counts.values())] for part, counts in split["counts"].items()],
        ),
        lineage={key.replace("_", " "): value for key, value in lineage.items() if isinstance(value, str | int)},
        trimming=result.details.get("trimming"),
        truncation=truncation_in(result.details),
        standing=standing_in(result.details),
        tolerance=GOLDEN_TOLERANCE,
        cascade=_cascade(result.details),
        quantized=result.stage == "quantization",
        forgotten=_forgotten(result.details),
        calibration=_calibration(result.details),
        abstention=result.details.get("abstention"),
        abstention_picture=ABSTENTION_FILE,
        scope=result.details.get("scope"),
        drift=_drift(result.details),
        description=result.details.get("description"),
        robustness=_robustness(result.details),
        functional=_functional(result.details),
    )


def _drift(details: dict[str, Any]) -> dict[str, Any] | None:
    """Return what the card says of simulated shifts, the worst of each line; None if it was not measured."""
    found = details.get("drift")
    if found is None:
        return None
    worst: dict[str, dict[str, Any]] = {}
    for each in found["simulated"]:
        shown = LEAST_ROWS / found["rows"] <= each["share"] < NEARLY_ALL
        if shown and each["macro_f1"] < worst.get(each["line"], {"macro_f1": 2})["macro_f1"]:
            worst[each["line"]] = each
    lines = [
        {
            "Line": name,
            "half of the texts from": each["bin"],
            "now": f"{each['share']:.0%}",
            "macro-F1": f"{each['macro_f1']:.4f}",
        }
        for name, each in worst.items()
    ]
    return {"rows": found["rows"], "macro_f1": found["macro_f1"], "worst": _table(lines)}


def _robustness(details: dict[str, Any]) -> dict[str, Any] | None:
    """Return what the card says of perturbed rows; None if it was not measured."""
    found = details.get("robustness")
    if found is None:
        return None
    lines = [{"Change": "none", "texts": "–"} | {f"macro-F1, {name}": f"{v:.4f}" for name, v in found["clean"].items()}]
    lines[0] |= {f"flips, {name}": "–" for name in found["clean"]}
    for change, line in found["changes"].items():
        cells = {"Change": change, "texts": f"{line['changed']:,}"}
        cells |= {f"macro-F1, {name}": f"{each['macro_f1']:.4f}" for name, each in line["models"].items()}
        lines.append(cells | {f"flips, {name}": f"{each['flips']:,}" for name, each in line["models"].items()})
    return {"rows": found["rows"], "changes": _table(lines)}


def _functional(details: dict[str, Any]) -> Table | None:
    """Return the table of the functional tests; None if there were none."""
    found = details.get("functional_tests")
    if found is None:
        return None
    return _table(
        [
            {
                "Functionality": each["functionality"],
                "texts": f"{each['rows']:,}",
                "right": f"{each['right']:,}",
                "accuracy": f"{each['right'] / each['rows']:.4f}",
            }
            for each in found["functionalities"]
        ]
    )


def _calibration(details: dict[str, Any]) -> dict[str, Any] | None:
    """Return what the card says of the calibration; None if it was not measured."""
    found = details.get("calibration")
    if found is None:
        return None
    models = {"this package": found["package"]}
    if "before" in found:
        models["this package before calibration"] = found["before"]
    models |= found["beside"]
    lines = [
        {
            "Model": name,
            "error, points": f"{100 * each['ece']:.2f}",
            "95 % interval": f"{100 * each['interval'][0]:.2f} … {100 * each['interval'][1]:.2f}",
            "by chance": f"{100 * each['by_chance']:.2f}",
        }
        for name, each in models.items()
    ]
    return {"scaling": found["scaling"], "picture": DIAGRAM_FILE, "errors": _table(lines)}


def _forgotten(details: dict[str, Any]) -> dict[str, Any] | None:
    """Return what the card says of the slices; None if it was not measured."""
    if "forgotten" not in details:
        return None
    report = details["forgotten"][0]
    slices = [as_slice(each) for each in report["slices"]]
    return {
        "a": report["a"],
        "slices": len(slices),
        "worse": sum(each.verdict == "worse" for each in slices),
        "lost": len(report["lost"]),
        "gained": len(report["gained"]),
        "worst": _table([each.cells() for each in slices[:SHOWN]]),
    }


def _cascade(details: dict[str, Any]) -> dict[str, Any] | None:
    """Return what the card says of a cascade; None for any other package."""
    found = details.get("cascade")
    if found is None:
        return None
    latencies = {key: found[key] for key in ("ngram_ms", "transformer_ms")}
    return latencies | {
        "share": found["test"]["share"],
        "mean_ms": found["test"]["mean_ms"],
        "worst_ms": found["ngram_ms"] + found["transformer_ms"],
        "picture": CURVE_FILE,
        "curve": Table(
            ["deferred, test rows", "mean latency ms", "macro-F1, test rows", "macro-F1, validation rows"],
            [
                [f"{test['share']:.0%}", f"{test['mean_ms']:.3f}", f"{test['macro_f1']:.4f}", f"{on_validation:.4f}"]
                for test, on_validation in (
                    (point["test"], point["validation"]["macro_f1"]) for point in found["curve"]
                )
            ],
        ),
    }


def text(value: object) -> str:
    """Return `value` on one line, with Markdown markup escaped."""
    return re.sub(r"([\\|`*<>\[\]])", r"\\\1", " ".join(str(value).splitlines()))


def code(value: object) -> str:
    """Return `value` as a Markdown code span, fenced by more backticks than `value` has in a row."""
    inside = " ".join(str(value).splitlines())
    fence = "`" * (1 + max(map(len, re.findall(r"`+", inside)), default=0))
    space = " " if "`" in inside else ""
    return f"{fence}{space}{inside}{space}{fence}"


def _results(rows: Sequence[Row], corpus: Corpus) -> list[Line]:
    """Return the table of results on all test rows."""
    return [shown_line(row, corpus.label_names) for row in rows if row.slice is None]


def _slices(rows: Sequence[Row], corpus: Corpus) -> list[Line]:
    """Return the table of the test slices, without the columns that are the same for all of them."""
    lines = [{"Slice": row.slice} | shown_line(row, corpus.label_names) for row in rows if row.slice is not None]
    lines.sort(key=lambda line: line["Slice"])
    return [{k: v for k, v in line.items() if k not in UNSLICED} for line in lines]


def _candidates(gate: dict[str, Any]) -> list[Line]:
    """Return the table of the selected candidate and the best other candidates."""
    results, selected = gate["trials"], gate["ships"]
    order = sorted(range(len(results)), key=lambda i: (i != selected, bool(results[i]["fails"]), results[i]["p50_ms"]))
    return [candidate_cells(results[i], i == selected) for i in order[:CANDIDATES_SHOWN]]


def _table(lines: Sequence[Line]) -> Table:
    return Table(list(lines[0]) if lines else [], [list(line.values()) for line in lines])
