"""Line charts as inline SVG. Pure."""

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape

WIDTH, HEIGHT, MARGIN = 620, 300, 46
LEGEND_WIDTH, LEGEND_LINE, LEGEND_TEXT = 300, 20, 38
COLOURS = (
    "#0b7a53",
    "#2463c4",
    "#c2541b",
    "#7a3fb0",
    "#b8324f",
    "#0e7490",
    "#a16207",
    "#4d7c0f",
    "#9d6bce",
    "#d08770",
)
GREY = "#8a94a6"


@dataclass(frozen=True, slots=True)
class Curve:
    """A line of a chart, (x, y) in order of x; NaN is a gap."""

    name: str
    points: Sequence[tuple[float, float]]
    dashed: bool = False
    """Draw it dashed: for bounds, which are no results."""
    colour: str | None = None
    """None takes the next colour."""


def chart(curves: Sequence[Curve], x_name: str, y_name: str, log_x: bool = False) -> str:
    """Draw a line chart as SVG; empty text where there is no point to draw."""
    drawn = [p for c in curves for p in c.points if math.isfinite(p[1])]
    if not drawn:
        return ""
    xs, ys = [_x(x, log_x) for x, _ in drawn], [y for _, y in drawn]
    frame = _Frame(min(xs), max(xs), min(0.0, *ys), _round_up(max(ys)))
    coloured = _coloured(curves)
    lines = [_line(c, colour, frame, log_x) for c, colour in coloured]
    height = max(HEIGHT, MARGIN + LEGEND_LINE * len(curves))
    return (
        f'<figure><svg viewBox="0 0 {WIDTH + LEGEND_WIDTH} {height}" role="img">'
        f"{_axes(frame, x_name, y_name, sorted({x for x, _ in drawn}), log_x)}"
        f"{''.join(lines)}{_legend(coloured)}</svg></figure>"
    )


@dataclass(frozen=True, slots=True)
class _Frame:
    x_low: float
    x_high: float
    y_low: float
    y_high: float

    def place(self, x: float, y: float) -> tuple[float, float]:
        right = (x - self.x_low) / ((self.x_high - self.x_low) or 1.0)
        up = (y - self.y_low) / ((self.y_high - self.y_low) or 1.0)
        return (
            MARGIN + right * (WIDTH - 2 * MARGIN),
            HEIGHT - MARGIN - up * (HEIGHT - 1.6 * MARGIN),
        )


def _coloured(curves: Sequence[Curve]) -> list[tuple[Curve, str]]:
    following = itertools.cycle(COLOURS)
    return [(c, c.colour or next(following)) for c in curves]


def _x(x: float, log_x: bool) -> float:
    return math.log2(x) if log_x else x


def _round_up(value: float) -> float:
    """Round up to a multiple of 4 tenths of a power of ten, so that four marks are round
    numbers."""
    if value <= 0.0:
        return value
    step = 10.0 ** math.floor(math.log10(value)) / 2.5
    return math.ceil(value / step) * step


def _line(curve: Curve, colour: str, frame: _Frame, log_x: bool) -> str:
    points = [frame.place(_x(x, log_x), y) for x, y in curve.points if math.isfinite(y)]
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    dots = "".join(
        f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.5" fill="{colour}"/>'
        for x, y in (points if len(points) < 12 else [])
    )
    dashes = ' stroke-dasharray="5 4"' if curve.dashed else ""
    stroke = f'stroke="{colour}" stroke-width="2"{dashes}'
    return f'<polyline points="{path}" fill="none" {stroke}/>{dots}'


def _axes(frame: _Frame, x_name: str, y_name: str, xs: Sequence[float], log_x: bool) -> str:
    x_marks = xs if len(xs) <= 8 else [xs[round(i * (len(xs) - 1) / 5)] for i in range(6)]
    y_marks = [frame.y_low + i * (frame.y_high - frame.y_low) / 4 for i in range(5)]
    return (
        "".join([*_x_marks(frame, x_marks, log_x), *_y_marks(frame, y_marks)])
        + f'<text x="{WIDTH / 2}" y="{HEIGHT - 8}" class="x">{escape(x_name)}</text>'
        + f'<text x="{MARGIN}" y="14" class="name">{escape(y_name)}</text>'
    )


def _x_marks(frame: _Frame, marks: Sequence[float], log_x: bool) -> Iterator[str]:
    for x in marks:
        at, bottom = frame.place(_x(x, log_x), frame.y_low)
        yield f'<text x="{at:.1f}" y="{bottom + 18:.1f}" class="x">{x:g}</text>'


def _y_marks(frame: _Frame, marks: Sequence[float]) -> Iterator[str]:
    for y in marks:
        left, at = frame.place(frame.x_low, y)
        right, _ = frame.place(frame.x_high, y)
        yield (
            f'<line x1="{left:.1f}" x2="{right:.1f}" y1="{at:.1f}" y2="{at:.1f}" class="grid"/>'
            f'<text x="{left - 8:.1f}" y="{at + 4:.1f}" class="y">{y:.3g}</text>'
        )


def _legend(coloured: Sequence[tuple[Curve, str]]) -> str:
    lines = []
    for i, (c, colour) in enumerate(coloured):
        y = 24 + LEGEND_LINE * i
        name = c.name if len(c.name) <= LEGEND_TEXT else c.name[: LEGEND_TEXT - 1] + "…"
        dashes = ' stroke-dasharray="5 4"' if c.dashed else ""
        lines.append(
            f'<line x1="{WIDTH - 10}" x2="{WIDTH + 10}" y1="{y}" y2="{y}" stroke="{colour}" '
            f'stroke-width="3"{dashes}/>'
            f'<text x="{WIDTH + 18}" y="{y + 4}" class="name">{escape(name)}</text>'
        )
    return "".join(lines)
