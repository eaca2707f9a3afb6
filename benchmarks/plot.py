"""Plot a benchmark: macro-F1 against latency, with size on disk as marker area.

    python -m benchmarks.plot [--front] FILE.json …

redraws the figures of JSON files from `hbt bench`, with --front those of `python -m benchmarks.peers`. The same
measurements always give a byte-identical SVG.
"""

import argparse
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.label_placement import Label, place_labels
from benchmarks.report import read_json
from toolkit.latency.measure import Measurement
from toolkit.latency.scenarios import OFFLINE, SINGLE_STREAM
from toolkit.utils.errors import InputError
from toolkit.utils.figures import STYLE, save_svg

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SIZE, DPI = (9.0, 5.6), 200
"""Size in inches, and resolution of the PNG in dots per inch."""
MANY, LARGE = 12, (11.0, 7.6)
"""Models from which the figure is larger, and its size then."""
KINDS = {
    "package": ("package", "#0072b2"),
    "checkpoint": ("checkpoint", "#d55e00"),
    "linear": ("linear baseline", "#555555"),
    "device": ("package on another machine", "#cc79a7"),
    "onnx": ("other model", "#009e73"),
    "python": ("other model", "#009e73"),
    "words": ("words and n-grams, other tools", "#009e73"),
    "compressed": ("transformers, other tools", "#e69f00"),
    "floor": ("linear baseline", "#555555"),  # in files of earlier versions
}
"""Legend name and color of each kind of model; the colors are from the color-blind-safe palette of Okabe and Ito."""
OTHER_COLOR = "#009e73"
SMALLEST, LARGEST = 4.0, 20.0
"""Minimum and maximum radius of a marker in points."""
LOG_FROM = 3.0
"""The latency axis is logarithmic if the slowest model takes more than this many times as long as the fastest."""
NAME_SIZE, FIGURES_SIZE = 8.5, 7.5
LINE = 10.0
"""Line height of a label in points."""
LEADER_FROM = 8.0
"""A label at least this many points from its marker has a leader line."""


def plot(measurements: Sequence[Measurement], file: Path, front: bool = False) -> None:
    """Write the figure to `file` as SVG, and as PNG with the same name.

    Models without a latency or a macro-F1 are omitted. front: with a line through the models of the Pareto front.
    Raises: InputError if no model has both.
    """
    import matplotlib

    with matplotlib.rc_context(STYLE), warnings.catch_warnings():
        warnings.filterwarnings(
            "ignore", message="Glyph .* missing"
        )  # the PNG then shows boxes; the SVG contains the text
        drawn = figure(measurements, front)
        save_svg(drawn, file)
        drawn.savefig(file.with_suffix(".png"), format="png", dpi=DPI)


def figure(measurements: Sequence[Measurement], front: bool = False) -> "Figure":
    """Return the figure; see `plot`."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    shown = [m for m in measurements if _is_timed(m) and m.metrics.get("macro_f1") is not None]
    if not shown:
        raise InputError(
            "no model has both a latency and a macro-F1; measure on 20 texts or more, or with a wider --p99-ms"
        )
    kind, latencies = _latencies(shown)
    points = np.array([(x, m.metrics["macro_f1"]) for x, m in zip(latencies, shown, strict=True)])  # (models, 2)
    sizes = np.array([m.size_bytes for m in shown])
    radii = (LARGEST * np.sqrt(sizes / max(1, sizes.max()))).clip(SMALLEST)
    fig = Figure(LARGE if len(shown) >= MANY else SIZE, dpi=DPI)
    FigureCanvasAgg(fig)
    fig.subplots_adjust(left=0.09, right=0.985, bottom=0.115, top=0.865)
    axes = fig.add_subplot()
    _set_axes(axes, points, kind, {m.threads for m in shown})
    for i in np.argsort(-radii, kind="stable"):  # small markers on top
        color = KINDS.get(shown[i].kind, ("", OTHER_COLOR))[1]
        x, y = points[i]
        axes.scatter(x, y, s=(2 * radii[i]) ** 2, color=color, alpha=0.6, edgecolors=color, zorder=2)
    if front:
        best = pareto_front(points)
        axes.plot(best[:, 0], best[:, 1], color="#999999", linewidth=1.0, linestyle="--", zorder=1)
    _add_legend(fig, {m.kind: None for m in shown}, "dashed: Pareto front · " * front)
    _add_labels(axes, shown, points, radii)
    return fig


def _is_timed(m: Measurement) -> bool:
    return bool(m.p50_ms if m.scenario == SINGLE_STREAM else m.ms_per_text)


def pareto_front(points: np.ndarray) -> np.ndarray:
    """Return those of `points` (models, 2: latency, macro-F1) that no other beats in both, fastest first."""
    best = [
        point
        for point in points
        if not any(other[0] <= point[0] and other[1] >= point[1] and (other != point).any() for other in points)
    ]
    return np.unique(np.array(best), axis=0)


def _latencies(shown: Sequence[Measurement]) -> tuple[str, list[float]]:
    """Return what the axis shows, and its values in milliseconds: medians in a file that is older than the means."""
    if shown[0].scenario != SINGLE_STREAM:
        how = "all texts at once" if shown[0].scenario == OFFLINE else "highest rate that holds the bound of p99"
        return f"Milliseconds per text, {how}", [m.ms_per_text or 0.0 for m in shown]
    means = [m.mean_ms for m in shown if m.mean_ms is not None]
    return ("Mean", means) if len(means) == len(shown) else ("Median", [m.p50_ms or 0.0 for m in shown])


def _set_axes(axes: "Axes", points: np.ndarray, kind: str, threads: set[int]) -> None:
    """Set scale, limits, ticks and axis labels."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    (fastest, lowest), (slowest, highest) = points.min(axis=0), points.max(axis=0)
    logarithmic = slowest > LOG_FROM * fastest
    if logarithmic:
        room = (slowest / fastest) ** 0.12
        axes.set_xscale("log")
        axes.set_xlim(fastest / room, slowest * room)
        axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axes.xaxis.set_minor_locator(NullLocator())
    else:
        margin = max(0.3 * (slowest - fastest), 0.2 * slowest)
        axes.set_xlim(max(0.0, fastest - margin), slowest + margin)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    margin = max(0.16 * (highest - lowest), 0.005)
    axes.set_ylim(lowest - margin, highest + margin)
    counted = f"{', '.join(map(str, sorted(threads)))} thread{'s' * (threads != {1})}"
    scale = ", log scale" if logarithmic else ""
    latency = " latency of one text in ms" if kind in ("Mean", "Median") else ""
    axes.set_xlabel(f"{kind}{latency}, tokenization included ({counted}{scale})", labelpad=8)
    axes.set_ylabel("Macro-F1 on the test rows", labelpad=5)


def _add_legend(fig: "Figure", kinds: dict[str, None], lines: str) -> None:
    """Add the title, the legend of colors, and the meaning of the marker area and of `lines`."""
    from matplotlib.lines import Line2D

    fig.text(0.012, 0.955, "Macro-F1 against latency", fontsize=13, fontweight="bold", color="#1a1a1a")
    handles = []
    for kind in kinds:
        title, color = KINDS.get(kind, (kind, OTHER_COLOR))
        handles.append(Line2D([], [], marker="o", linestyle="", markersize=8, alpha=0.6, color=color, label=title))
    fig.legend(
        handles=handles, loc="center left", bbox_to_anchor=(0.0, 0.918), ncols=len(handles), frameon=False,
        fontsize=9.5, handletextpad=0.1, columnspacing=1.2, borderaxespad=0.2, labelcolor="#333333",
    )  # fmt: skip
    meaning = f"{lines}area of a marker: size on disk"
    height = 0.962 if lines else 0.918  # the legend of many kinds takes the whole second line
    fig.text(0.985, height, meaning, fontsize=9.5, color="#333333", ha="right", va="center")


def _add_labels(axes: "Axes", shown: Sequence[Measurement], points: np.ndarray, radii: np.ndarray) -> None:
    """Add the name and figures of each model next to its marker, without overlaps."""
    fig: Any = axes.figure
    to_points = 72 / fig.dpi
    texts, labels = [], []
    centers = axes.transData.transform(points) * to_points
    for m, latency, center, radius in zip(shown, points[:, 0], centers, radii, strict=True):
        figures = f"{latency:.3g} ms · {_size(m.size_bytes)} · {m.metrics['macro_f1']:.3f}"
        pair = (
            _text(axes, _printable(m.name), fontsize=NAME_SIZE, fontweight="bold", color="#1a1a1a"),
            _text(axes, figures, fontsize=FIGURES_SIZE, color="#555555"),
        )
        texts.append(pair)
        width = max(each.get_window_extent().width for each in pair) * to_points
        labels.append(Label(float(center[0]), float(center[1]), float(radius), width + 1, 2 * LINE))
    frame = np.array(axes.get_window_extent().extents) * to_points + np.array([4, 3, -2, 0])
    for label, box, pair in zip(labels, place_labels(labels, frame), texts, strict=True):
        side = (box[0] + box[2]) / 2 - label.x
        alignment, x = ("right", box[2]) if side < -label.radius else ("left", box[0])
        for line, each in enumerate(pair):
            each.set_horizontalalignment(alignment)
            each.xyann = (x, box[1] + LINE * (1 - line) + 2)
        if label.gap(box) >= LEADER_FROM:
            style = {"arrowstyle": "-", "color": "#999999", "linewidth": 0.7, "shrinkA": 1, "shrinkB": label.radius}
            _text(axes, "", xy=(label.x, label.y), xytext=tuple(label.nearest(box)), arrowprops=style)


def _text(axes: "Axes", text: str, **options: Any) -> Any:
    """Add a text in figure points; the caller sets its position."""
    defaults: dict[str, Any] = {"xy": (0, 0), "xycoords": "figure points", "zorder": 4}
    return axes.annotate(text, **defaults | options)


def _printable(name: str) -> str:
    """Return `name` with each non-printable character replaced by U+FFFD: XML does not allow control characters."""
    return "".join(each if each.isprintable() else "\ufffd" for each in name)


def _size(size_bytes: int) -> str:
    """Return a size for display, such as `1.5 MiB`."""
    mib = size_bytes / 2**20
    return f"{mib:.0f} MiB" if mib >= 10 else f"{mib:.1f} MiB" if mib >= 0.1 else f"{size_bytes / 1024:.0f} KiB"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m benchmarks.plot", description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("files", nargs="+", type=Path, help="JSON files of hbt bench")
    parser.add_argument("--front", action="store_true", help="draw a line through the models of the Pareto front")
    given = parser.parse_args()
    for each in given.files:
        plot(read_json(each)[0], each.with_suffix(".svg"), given.front)
