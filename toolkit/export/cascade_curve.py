"""The curve of a cascade: macro-F1 on the test rows against mean latency, as a picture for the model card."""

from collections.abc import Sequence
from pathlib import Path

from toolkit.training.routing import Point
from toolkit.utils.figures import STYLE, save_svg

CURVE_FILE = "cascade.svg"
SIZE = (7.2, 4.0)
"""Inches."""


def draw_curve(curve: Sequence[Point], chosen: Point, folder: Path) -> None:
    """Write CURVE_FILE into `folder`.

    curve: the cascade at increasing shares of deferred texts. chosen: as packaged.
    """
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with matplotlib.rc_context(STYLE):
        fig = Figure(SIZE, layout="constrained")
        FigureCanvasAgg(fig)
        axes = fig.add_subplot()
        latencies, scores = [point.mean_ms for point in curve], [point.macro_f1 for point in curve]
        axes.plot(latencies, scores, color="#0072b2", marker="o", markersize=4, zorder=2)
        axes.scatter([chosen.mean_ms], [chosen.macro_f1], s=90, color="#d55e00", zorder=3)
        packaged = f"packaged: {100 * chosen.share:.0f} % deferred, {chosen.mean_ms:.2g} ms, {chosen.macro_f1:.4f}"
        axes.annotate(
            packaged, (chosen.mean_ms, chosen.macro_f1), xytext=(10, -22), textcoords="offset points", color="#d55e00"
        )
        for point, name in ((curve[0], "n-gram student alone"), (curve[-1], "both for every text")):
            left = point is curve[0]
            axes.annotate(
                name, (point.mean_ms, point.macro_f1), xytext=(8 if left else -8, 8), textcoords="offset points",
                ha="left" if left else "right", fontsize=9, color="#333333",
            )  # fmt: skip
        axes.margins(x=0.06, y=0.18)
        axes.set_xlabel("Mean latency of one text in ms, tokenization included (1 thread)")
        axes.set_ylabel("Macro-F1 on the test rows")
        save_svg(fig, folder / CURVE_FILE)
