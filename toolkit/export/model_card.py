"""The model card: README.md of a package, made of what was measured and nothing else."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from toolkit.data.corpus import Corpus, describe_split
from toolkit.evaluation.comparison import Versus
from toolkit.evaluation.significance import Comparison
from toolkit.export.candidates import cells as cells_of_form
from toolkit.package import CARD_FILE
from toolkit.stages.result import StageResult
from toolkit.stages.results_table import UNSLICED, Row, cells, shown
from toolkit.utils.machine import Machine

CANDIDATES_SHOWN = 6
"""Of the forms that were tried, the one that ships among them; the run keeps them all."""


def write_card(
    folder: Path,
    name: str,
    corpus: Corpus,
    rows: Sequence[Row],
    result: StageResult,
    lineage: dict[str, Any],
    machine: Machine,
    runtime: str,
) -> None:
    """Write README.md into the package `folder`. rows: the table of the run, the package's own row in it. runtime: the
    distribution that runs it."""
    parts = [
        _front_matter(corpus, runtime),
        _head(name, corpus, result),
        _use(corpus),
        _accuracy(corpus, rows, machine, known="run" in lineage),
        _losses(result),
        _forms(result),
        _data(corpus),
        _origin(lineage, result),
        _limits(corpus, result, machine),
    ]
    (folder / CARD_FILE).write_text("\n\n".join(parts) + "\n", "utf-8")


def _front_matter(corpus: Corpus, runtime: str) -> str:
    return f"---\npipeline_tag: text-classification\nlibrary_name: {runtime}\ndatasets: [{corpus.name}]\n---"


def _head(name: str, corpus: Corpus, result: StageResult) -> str:
    labels = ", ".join(f"`{label}`" for label in corpus.label_names)
    cut = (
        f" `{corpus.label_names[1]}` is answered from a probability of {result.threshold:g} on, "
        "a threshold chosen on validation rows."
        if result.threshold is not None
        else " The label with the highest probability is answered."
    )
    synthetic = (
        "\n\n**Made from a synthetic corpus, to try the tool; of no use for real texts.**"
        if corpus.settings.data == "demo"
        else ""
    )
    return f"# {name} ({result.details['target']})\n\n{_warning(result)}Sorts a text into {labels}.{cut}{synthetic}"


def _warning(result: StageResult) -> str:
    """What a package that fails its gate says first."""
    gate = result.details["gate"]
    shipped = gate["trials"][gate["ships"]]
    if not shipped["fails"]:
        return ""
    return (
        f"**Shipped by force. It fails its gate on {gate['rows']:,} validation rows, beside the same classifier in "
        f"single precision: {shipped['fails']}.**\n\n"
    )


def _use(corpus: Corpus) -> str:
    return f"""## Use

```
pip install -r requirements.txt
python how_to_load.py "text"
```

From Python: `from how_to_load import load`, then `load().predict(["text"])` gives label and probability, and
`predict_proba` a float32 array with the columns {", ".join(corpus.label_names)}. Text goes in as it is: normalizing
and cutting happen inside `tokenizer.json`. `hbt verify` checks every file and the golden scores in `manifest.json`."""


def _accuracy(corpus: Corpus, rows: Sequence[Row], machine: Machine, known: bool) -> str:
    """known: whether the classifier was made in a run of this corpus, so that its test rows are unseen for sure."""
    seen = "that no choice has seen" if known else "(whether the classifier once learned from them is not known here)"
    table = _markdown([cells(row, corpus.label_names) for row in rows if row.slice is None])
    parts = [{"Slice": row.slice} | cells(row, corpus.label_names) for row in rows if row.slice is not None]
    parts.sort(key=lambda line: line["Slice"])
    if parts:
        table += "\n\n" + _markdown([{k: v for k, v in line.items() if k not in UNSLICED} for line in parts])
    return (
        f"## What it reaches\n\nOn {len(corpus.rows('test')):,} test rows {seen}. The linear baseline is a "
        "linear classifier on character n-grams, trained on the same rows. Latency: one text in, its label out, "
        f"tokenizer included, one thread, on {machine.cpu} ({machine.isa}).\n\n{table}"
    )


def _markdown(lines: Sequence[dict[str, Any]]) -> str:
    rows = ["| " + " | ".join(lines[0]) + " |", "|---" + "|---:" * (len(lines[0]) - 1) + "|"]
    return "\n".join([*rows, *("| " + " | ".join(shown(k, v) for k, v in line.items()) + " |" for line in lines)])


def _losses(result: StageResult) -> str:
    found = [Versus(each["b"], each["a"], Comparison(**each["comparison"])) for each in result.details["versus"]]
    invariance = result.details["invariance"]
    return f"""## What was lost on the way

B is this package; differences are B minus A on the same {found[0].comparison.rows:,} test rows. The interval
holds 95 % of the bootstrap differences, p is McNemar's exact test, the verdict is given at a margin of
{100 * found[0].comparison.margin:g} point of macro-F1.

{_markdown([each.shown() for each in found])}

Every figure here comes from texts scored one at a time, as `predict` does it. In mixed batches of
{invariance["batch"]}, padded to the longest, {invariance["label_flips"]:,} of {invariance["rows"]:,} validation and
test rows would change their label, and a probability would move by up to
{invariance["largest_score_difference"]:.4f}.{_gap(result)}"""


def _gap(result: StageResult) -> str:
    if "fp32_logit_gap" not in result.details:
        return ""
    return (
        " The ONNX graph in single precision differs from torch by at most "
        f"{result.details['fp32_logit_gap']:.1e} in a logit."
    )


def _forms(result: StageResult) -> str:
    """What was tried before this form was chosen: the one that ships, and the best of the others."""
    gate = result.details["gate"]
    order = sorted(
        range(len(gate["trials"])),
        key=lambda i: (i != gate["ships"], bool(gate["trials"][i]["fails"]), gate["trials"][i]["p50_ms"]),
    )
    table = _markdown([cells_of_form(gate["trials"][i], i == gate["ships"]) for i in order[:CANDIDATES_SHOWN]])
    more = len(order) - CANDIDATES_SHOWN
    rest = f"\n\n{more} more were tried; the run has them all." if more > 0 else ""
    kept = gate["trials"][gate["ships"]]["in_float"]
    in_float = f"\n\nIn float: {', '.join(f'`{part}`' for part in kept)}." if kept else ""
    reference = gate["reference"]
    return (
        f"## Forms that were tried\n\nOn {gate['rows']:,} validation rows, beside single precision with a macro-F1 of "
        f"{reference['macro_f1']:.4f} and a median of {reference['p50_ms']:.3f} ms. A form may lose "
        f"{100 * gate['max_drop']:g} points. Of those that pass and whose labels do not depend on what else is in a "
        "batch, the fastest ships; of those about as fast, the one nearest to single precision."
        f"\n\n{table}{in_float}{rest}"
    )


def _data(corpus: Corpus) -> str:
    facts = describe_split(corpus)
    table = ["| split | " + " | ".join(corpus.label_names) + " |", "|---" + "|---:" * len(corpus.label_names) + "|"]
    for split, counts in facts["counts"].items():
        table.append(f"| {split} | " + " | ".join(f"{count:,}" for count in counts.values()) + " |")
    return (
        f"## Data\n\n`{corpus.name}`, {facts['rows']:,} rows, fingerprint `{facts['fingerprint'][:16]}`. "
        f"{facts['duplicate_groups']:,} groups of duplicates ({facts['duplicate_rows']:,} rows) stay on one side of "
        f"every split; {facts['conflicting_groups']:,} of them carry conflicting labels.\n\n" + "\n".join(table)
    )


def _origin(lineage: dict[str, Any], result: StageResult) -> str:
    told = [f"- {key.replace('_', ' ')}: `{value}`" for key, value in lineage.items() if isinstance(value, str | int)]
    if "trimming" in result.details:
        told.append(_trimming(result.details["trimming"]))
    return "## How it was made\n\n" + "\n".join(told)


def _trimming(cut: dict[str, Any]) -> str:
    return (
        f"- vocabulary cut from {cut['pieces_before']:,} to {cut['pieces_after']:,} pieces; every text of the corpus "
        f"keeps its pieces. On text that cutting did not see: cut to half of the texts ({cut['half_pieces']:,} "
        f"pieces), {100 * cut['unseen_identical']:.1f} % of the {cut['unseen_texts']:,} texts of the other half keep "
        f"theirs, {100 * cut['unseen_unknown']:.2f} % of their pieces are unknown "
        f"({100 * cut['unseen_unknown_before']:.2f} % under the whole vocabulary)"
    )


def _limits(corpus: Corpus, result: StageResult, machine: Machine) -> str:
    shown = [
        f"- It knows the {len(corpus.label_names)} labels of its corpus and forces one of them on every text, "
        "in any language and on any subject. Errors of the labels are learned with them.",
        f"- Checked on {machine.isa}. On another processor, run `hbt verify`.",
    ]
    if result.stage == "quantization":
        shown.append("- Without 8-bit dot product instructions, scores may differ slightly and speed much.")
    if result.details["invariance"]["label_flips"]:
        shown.append("- With a batch size of your own, scores move with the texts that share a batch.")
    return "## Limits\n\n" + "\n".join(shown)
