"""Write a benchmark as one HTML page that needs no other file and no network."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.columns import NOTES, TITLES
from benchmarks.distribution import distribution_svg
from benchmarks.report import Row, cells
from toolkit.latency.measure import Measurement
from toolkit.latency.scenarios import SINGLE_STREAM
from toolkit.utils.files import write_text
from toolkit.utils.machine import Machine

TEMPLATE = Path(__file__).with_name("page_template.html")


def write_page(
    rows: Sequence[Row],
    measurements: Sequence[Measurement],
    machine: Machine,
    reference: str,
    svg: str,
    file: Path,
    imitated: str | None = None,
) -> None:
    """Write the page: figure, table that sorts, distribution of latencies, machine.

    svg: the figure of `plot`. imitated: the machine that was imitated, in words.
    """
    from jinja2 import Environment, StrictUndefined

    page = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True).from_string(
        TEMPLATE.read_text("utf-8")
    )
    headings, lines = cells(rows)
    scenario = next((row.scenario for row in rows if not row.machine), SINGLE_STREAM)
    facts: dict[str, Any] = {
        "title": file.stem,
        "reference": reference,
        "scenario": TITLES[scenario],
        "notes": NOTES[scenario],
        "imitated": imitated,
        "headings": headings,
        "lines": lines,
        "figure": _inline(svg),
        "distribution": _inline(distribution_svg(measurements) or ""),
        "machine": machine,
        "versions": ", ".join(f"{name} {version}" for name, version in machine.versions.items()),
        "elsewhere": [row for row in rows if row.machine],
    }
    write_text(file, page.render(facts))


def _inline(svg: str) -> str:
    """Return an SVG without its XML declaration, for use inside HTML."""
    return svg[svg.index("<svg") :] if "<svg" in svg else ""
