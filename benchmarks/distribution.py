"""Plot how the latencies of single texts are distributed: the share of texts that took at most so long."""

import io
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from benchmarks.plot import KINDS, OTHER_COLOR
from toolkit.latency.measure import Measurement
from toolkit.utils.figures import STYLE

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SIZE = (9.0, 4.6)
_LINES = ("-", "--", "-.", ":")


def distribution_svg(measurements: Sequence[Measurement]) -> str | None:
    """Return the figure as SVG; None if no model has latencies of single texts."""
    import matplotlib

    shown = [each for each in measurements if each.rounds_ms]
    if not shown:
        return None
    with matplotlib.rc_context(STYLE), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing")
        out = io.StringIO()
        _figure(shown).savefig(out, format="svg", metadata={"Date": None, "Creator": None})
    return out.getvalue()


def _figure(shown: Sequence[Measurement]) -> "Figure":
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter, PercentFormatter

    fig = Figure(SIZE, layout="constrained")
    FigureCanvasAgg(fig)
    axes = fig.add_subplot()
    of_kind: dict[str, int] = {}
    for each in shown:
        samples = np.sort([sample for turn in each.rounds_ms for sample in turn])
        color, number = KINDS.get(each.kind, ("", OTHER_COLOR))[1], of_kind.get(each.kind, 0)
        of_kind[each.kind] = number + 1
        style = _LINES[number % len(_LINES)]
        axes.step(samples, np.arange(1, len(samples) + 1) / len(samples), style, color=color, label=each.name)
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_major_formatter(PercentFormatter(1))
    axes.set_xlabel("latency of one text in ms, tokenization included (log scale)")
    axes.set_ylabel("texts that took at most so long")
    fig.legend(frameon=False, fontsize=8.5, loc="outside lower center", ncols=2)
    return fig
