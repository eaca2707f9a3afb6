"""The one picture: accuracy against latency, the size on disk as the area of each dot. Hand-written SVG."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.sax.saxutils import escape

from toolkit.latency.measure import Measurement
from toolkit.utils.errors import InputError

WIDTH, HEIGHT = 760, 460
LEFT, RIGHT, TOP, BOTTOM = 74, 24, 58, 62
SMALLEST, LARGEST = 5.0, 26.0  # radius of a dot
FONT, LETTER, LINE = 12, 6.6, 15  # font size, and the room that a letter and a line take
COLORS = {"package": "#0072b2", "checkpoint": "#d55e00", "floor": "#737373"}  # told apart with any eyes


@dataclass(frozen=True)
class Dot:
    """A model in the picture, in pixels."""

    x: float
    y: float
    radius: float
    color: str
    lines: tuple[str, str]


Box = tuple[float, float, float, float]
"""left, top, right, bottom"""


def picture(measurements: Sequence[Measurement], file: Path) -> None:
    """Write the SVG. Models without a median latency or a macro-F1 are left out.

    Raises: InputError if none has both.
    """
    shown = [m for m in measurements if m.p50_ms and m.metrics.get("macro_f1") is not None]
    if not shown:
        raise InputError("no model has both a median latency and a macro-F1; measure on 20 texts or more")
    slow = [m.p50_ms or 0.0 for m in shown]
    good = [m.metrics["macro_f1"] for m in shown]
    x_low, x_high = _widened(math.log10(min(slow)), math.log10(max(slow)), 0.18)
    step = _step(max(max(good) - min(good), 0.01) / 4)
    y_low, y_high = (math.floor(min(good) / step) - 1) * step, (math.ceil(max(good) / step) + 1) * step

    def x_of(log_ms: float) -> float:
        return LEFT + (log_ms - x_low) / (x_high - x_low) * (WIDTH - LEFT - RIGHT)

    def y_of(macro_f1: float) -> float:
        return HEIGHT - BOTTOM - (macro_f1 - y_low) / (y_high - y_low) * (HEIGHT - TOP - BOTTOM)

    biggest = max(m.size_bytes for m in shown)
    dots = [_dot(m, x_of(math.log10(m.p50_ms or 1)), y_of(m.metrics["macro_f1"]), biggest) for m in shown]
    x_ticks = [(x_of(math.log10(ms)), f"{ms:g}") for ms in _log_ticks(x_low, x_high)]
    y_ticks = [(y_of(y_low + i * step), y_low + i * step) for i in range(round((y_high - y_low) / step) + 1)]
    digits = max(2, -math.floor(math.log10(step)))
    threads = ", ".join(sorted({str(m.threads) for m in shown}))
    parts = [
        *_frame(f"Median latency of one text, tokenizer included (ms, log scale, threads: {threads})"),
        *(_x_tick(x, text) for x, text in x_ticks),
        *(_y_tick(y, f"{value:.{digits}f}") for y, value in y_ticks),
        *_legend({m.kind for m in shown}),
        *(_circle(dot) for dot in sorted(dots, key=lambda dot: -dot.radius)),
        *_labels(dots),
    ]
    body = "\n".join(parts)
    file.write_text(
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}" '
        f'font-family="system-ui, -apple-system, Segoe UI, Helvetica, Arial, sans-serif" font-size="{FONT}" '
        f'role="img" aria-label="Macro-F1 against median latency">\n{body}\n</svg>\n',
        "utf-8",
    )


def _dot(m: Measurement, x: float, y: float, biggest: int) -> Dot:
    radius = max(SMALLEST, LARGEST * math.sqrt(m.size_bytes / biggest)) if biggest else SMALLEST
    figures = f"{m.p50_ms:.2g} ms · {_size(m.size_bytes)} · {m.metrics['macro_f1']:.3f}"
    return Dot(x, y, radius, COLORS.get(m.kind, "#009e73"), (m.name, figures))


def _size(size_bytes: int) -> str:
    mib = size_bytes / 2**20
    return f"{mib:.0f} MiB" if mib >= 10 else f"{mib:.1f} MiB" if mib >= 0.1 else f"{size_bytes / 1024:.0f} KiB"


def _widened(low: float, high: float, share: float) -> tuple[float, float]:
    room = max((high - low) * share, 0.25)
    return low - room, high + room


def _step(about: float) -> float:
    """The nearest of 1, 2 and 5 times a power of ten above `about`."""
    power = 10.0 ** math.floor(math.log10(about))
    return next(power * n for n in (1, 2, 5, 10) if power * n >= about * (1 - 1e-9))


def _log_ticks(low: float, high: float) -> list[float]:
    """1, 2, 5, 10, 20 … between two powers; the powers of ten alone over more than two decades."""
    steps = (1,) if high - low > 2.3 else (1, 2, 5)
    ticks = [n * 10.0**power for power in range(math.floor(low), math.ceil(high) + 1) for n in steps]
    return [tick for tick in ticks if low <= math.log10(tick) <= high]


def _frame(x_title: str) -> list[str]:
    middle_x, middle_y = (LEFT + WIDTH - RIGHT) / 2, (TOP + HEIGHT - BOTTOM) / 2
    return [
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#ffffff"/>',
        f'<text x="{LEFT}" y="22" font-size="15" font-weight="600" fill="#1a1a1a">Accuracy against latency; '
        "the area of a dot is the size on disk</text>",
        f'<text x="{middle_x}" y="{HEIGHT - 14}" text-anchor="middle" fill="#333333">{escape(x_title)}</text>',
        f'<text transform="translate(18 {middle_y}) rotate(-90)" text-anchor="middle" fill="#333333">'
        "Macro-F1 on the test rows (0 to 1)</text>",
        f'<path d="M{LEFT} {TOP}V{HEIGHT - BOTTOM}H{WIDTH - RIGHT}" fill="none" stroke="#333333"/>',
    ]


def _x_tick(x: float, text: str) -> str:
    foot = HEIGHT - BOTTOM
    return (
        f'<path d="M{x:.1f} {foot}V{TOP}" stroke="#e6e6e6"/>'
        f'<text x="{x:.1f}" y="{foot + 18}" text-anchor="middle" fill="#555555">{text}</text>'
    )


def _y_tick(y: float, text: str) -> str:
    return (
        f'<path d="M{LEFT} {y:.1f}H{WIDTH - RIGHT}" stroke="#e6e6e6"/>'
        f'<text x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end" fill="#555555">{text}</text>'
    )


def _legend(kinds: set[str]) -> list[str]:
    parts = []
    x = float(LEFT)
    for kind in sorted(kinds):
        parts.append(f'<circle cx="{x + 5:.1f}" cy="40" r="5" fill="{COLORS.get(kind, "#009e73")}" opacity="0.8"/>')
        parts.append(f'<text x="{x + 15:.1f}" y="44" fill="#333333">{escape(kind)}</text>')
        x += 15 + LETTER * len(kind) + 20
    return parts


def _circle(dot: Dot) -> str:
    return (
        f'<circle cx="{dot.x:.1f}" cy="{dot.y:.1f}" r="{dot.radius:.1f}" fill="{dot.color}" fill-opacity="0.55" '
        f'stroke="{dot.color}"/>'
    )


def _labels(dots: Sequence[Dot]) -> list[str]:
    """Two lines beside each dot, at the first place that is free; a thin line leads to a place further off."""
    taken: list[Box] = [(d.x - d.radius, d.y - d.radius, d.x + d.radius, d.y + d.radius) for d in dots]
    parts = []
    for own, dot in enumerate(dots):
        places = _places(dot)
        others = [box for i, box in enumerate(taken) if i != own]
        box = min(
            places, key=lambda place: (_overlap(place, taken) + _crossed(dot, place, others), places.index(place))
        )
        taken.append(box)
        left, top = box[:2]
        if places.index(box) >= 8:
            nearest = _nearest(dot, box)
            parts.append(
                f'<path d="M{dot.x:.1f} {dot.y:.1f}L{nearest[0]:.1f} {nearest[1]:.1f}" stroke="#999999" '
                'stroke-width="0.7"/>'
            )
        first, second = (escape(line) for line in dot.lines)
        parts.append(f'<text x="{left:.1f}" y="{top + 11:.1f}" font-weight="600" fill="#1a1a1a">{first}</text>')
        parts.append(f'<text x="{left:.1f}" y="{top + 11 + LINE:.1f}" font-size="11" fill="#555555">{second}</text>')
    return parts


def _places(dot: Dot) -> list[Box]:
    """Where a label may stand: at a side or a corner of its dot, then the same further off; never outside the frame."""
    wide, high = LETTER * max(map(len, dot.lines)), 2.0 * LINE
    boxes = []
    for gap in (5.0, 24.0, 48.0, 80.0, 120.0):
        off = dot.radius + gap
        for x, y in (
            (dot.x + off, dot.y - high / 2),
            (dot.x - off - wide, dot.y - high / 2),
            (dot.x - wide / 2, dot.y - off - high),
            (dot.x - wide / 2, dot.y + off),
            (dot.x + off, dot.y - off - high),
            (dot.x + off, dot.y + off),
            (dot.x - off - wide, dot.y - off - high),
            (dot.x - off - wide, dot.y + off),
        ):
            x = min(max(x, LEFT + 2), WIDTH - wide - 2)
            y = min(max(y, TOP), HEIGHT - BOTTOM - high)
            boxes.append((x, y, x + wide, y + high))
    return boxes


def _nearest(dot: Dot, box: Box) -> tuple[float, float]:
    """The point of `box` that is nearest to the dot."""
    return min(max(dot.x, box[0]), box[2]), min(max(dot.y, box[1]), box[3])


def _crossed(dot: Dot, place: Box, others: Sequence[Box]) -> float:
    """How much of the line from the dot to its label at `place` runs through other dots and labels.

    In the unit of `_overlap`, a stretch of the line weighing as much as a strip of a line's height.
    """
    x, y = _nearest(dot, place)
    steps = [(dot.x + share * (x - dot.x), dot.y + share * (y - dot.y)) for share in (i / 40 for i in range(41))]
    inside = sum(any(b[0] <= px <= b[2] and b[1] <= py <= b[3] for b in others) for px, py in steps)
    return inside / 40 * math.hypot(x - dot.x, y - dot.y) * LINE


def _overlap(box: Box, taken: Sequence[Box]) -> float:
    """Area that `box` shares with the taken ones."""
    return sum(
        max(0.0, min(box[2], other[2]) - max(box[0], other[0]))
        * max(0.0, min(box[3], other[3]) - max(box[1], other[1]))
        for other in taken
    )
