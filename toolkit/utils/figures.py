"""How all figures look and are written, so that the same data give the same file."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure

STYLE: dict[Any, Any] = {
    "font.family": "sans-serif",
    "font.sans-serif": [
        "DejaVu Sans",
        "Verdana",
        "Arial",
    ],  # the first is bundled with matplotlib, so widths are reproducible
    "svg.fonttype": "none",  # keep text as text: searchable, and the viewer provides fonts for other scripts
    "svg.hashsalt": "hbt",
    "text.parse_math": False,  # names may contain dollar signs
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#555555",
    "axes.labelcolor": "#333333",
    "xtick.color": "#555555",
    "ytick.color": "#555555",
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e8e8e8",
}


def save_svg(figure: "Figure", file: Path) -> None:
    """Write a figure as SVG without date and program."""
    figure.savefig(file, format="svg", metadata={"Date": None, "Creator": None})
