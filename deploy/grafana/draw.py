"""Draws a dashboard from a Prometheus: the same JSON, the same queries, in matplotlib.

    python -m deploy.grafana.draw BOARD.json HOST:PORT OUT.png --minutes 5

It is not Grafana. It shows what each panel would show: values, gaps, thresholds, states, legends.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import matplotlib as mpl
import typer
from PIL import Image

from deploy.prometheus.queries import VARIABLES, filled_in
from deploy.prometheus.server import Prometheus, Vector

mpl.use("Agg")
from matplotlib import pyplot
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, NullLocator

COLORS = {
    "green": "#73bf69",
    "orange": "#ff9830",
    "red": "#f2495c",
    "blue": "#5794f2",
    "purple": "#b877d9",
    "yellow": "#fade2a",
}
PALETTE = (*COLORS.values(), "#8ab8ff", "#96d98d", "#ffb357", "#ff7383", "#ca95e5", "#37872d")
BACKGROUND, PANEL, TEXT, FAINT = "#111217", "#181b1f", "#d8d9da", "#464c54"
COLUMN_IN, UNIT_IN, GAP_IN = 0.62, 0.3, 0.12
STEPS = 240
BYTES = ("B", "KiB", "MiB", "GiB", "TiB")


@dataclass(frozen=True)
class Span:
    """The time that is drawn, Unix seconds."""

    start: float
    end: float

    @property
    def step_s(self) -> float:
        """The time between two values."""
        return max(1.0, (self.end - self.start) / STEPS)


def draw(board: Mapping[str, Any], api: Prometheus, span: Span, out: Path, rate_s: int) -> None:
    """Writes the board as a PNG. `rate_s` is what Grafana's $__rate_interval would be."""
    variables = VARIABLES | {"__rate_interval": f"{rate_s}s"}
    rows = max(panel["gridPos"]["y"] + panel["gridPos"]["h"] for panel in board["panels"])
    width, height = 24 * COLUMN_IN, (rows + 1.2) * UNIT_IN
    figure = pyplot.figure(figsize=(width, height), facecolor=BACKGROUND)
    shown = datetime.fromtimestamp(span.end, UTC).strftime("%H:%M:%S")
    head = f"{board['title']}: {board['description']}   ({shown} UTC)"
    figure.text(0.008, 1 - 0.55 * UNIT_IN / height, head, color=TEXT, fontsize=11, weight="bold")
    marks = _marks(board, api, span, variables)
    for panel in board["panels"]:
        place = panel["gridPos"]
        left, top = place["x"] * COLUMN_IN, (place["y"] + 1.2) * UNIT_IN
        if panel["type"] == "row":
            y = 1 - (top + 0.65 * UNIT_IN) / height
            figure.text(left / width + 0.008, y, panel["title"], color=TEXT, fontsize=9)
            continue
        inner = (
            (left + GAP_IN + _margin(panel)) / width,
            1 - (top + place["h"] * UNIT_IN - GAP_IN - _foot(panel)) / height,
            (place["w"] * COLUMN_IN - 2 * GAP_IN - _margin(panel)) / width,
            (place["h"] * UNIT_IN - GAP_IN - _foot(panel) - 0.34) / height,
        )
        axes = figure.add_axes(inner, facecolor=PANEL)
        axes.set_title(panel["title"], color=TEXT, fontsize=8, loc="left", pad=5)
        _draw_panel(axes, panel, api, span, variables)
        if panel["type"] != "stat":
            for at, color in marks:
                axes.axvline(at, color=COLORS[color], linestyle=":", linewidth=0.9)
    figure.savefig(out, dpi=80, facecolor=BACKGROUND)
    pyplot.close(figure)
    with Image.open(out) as picture:  # in few colours it is a third as large
        picture.convert("RGB").quantize(48).save(out, optimize=True)


def _margin(panel: Mapping[str, Any]) -> float:
    return {"stat": 0.0, "state-timeline": 1.5}.get(panel["type"], 0.5)


def _foot(panel: Mapping[str, Any]) -> float:
    return {"stat": 0.05, "state-timeline": 0.25}.get(panel["type"], 0.52)


def _marks(
    board: Mapping[str, Any], api: Prometheus, span: Span, variables: Mapping[str, str]
) -> list[tuple[float, str]]:
    """Returns when each annotation begins to hold, and its colour."""
    marks = []
    for annotation in board["annotations"]["list"]:
        for series in _range(api, annotation["expr"], span, variables):
            times = [float(at) for at, _ in series["values"]]
            begins = [b for a, b in zip([-math.inf, *times], times, strict=False) if b - a > 60]
            marks += [(at, annotation["iconColor"]) for at in begins if at > span.start + 1]
    return marks


def _range(api: Prometheus, expr: str, span: Span, variables: Mapping[str, str]) -> Vector:
    return api.query_range(filled_in(expr, variables), span.start, span.end, span.step_s)


def _draw_panel(
    axes: Axes,
    panel: Mapping[str, Any],
    api: Prometheus,
    span: Span,
    variables: Mapping[str, str],
) -> None:
    for spine in axes.spines.values():
        spine.set_color(FAINT)
    axes.tick_params(colors=TEXT, labelsize=6, length=2)
    if panel["type"] == "stat":
        _draw_stat(axes, panel, api, variables)
        return
    series = [
        (_name(target["legendFormat"], one["metric"]), one)
        for target in panel["targets"]
        for one in _range(api, target["expr"], span, variables)
    ]
    # what was never counted has no quantile, which Grafana leaves out of the legend's values too
    series = [(n, one) for n, one in series if any(v != "NaN" for _, v in one["values"])]
    axes.set_xlim(span.start, span.end)
    clock = FuncFormatter(lambda x, _: datetime.fromtimestamp(x, UTC).strftime("%H:%M:%S"))
    axes.xaxis.set_major_formatter(clock)
    axes.xaxis.set_major_locator(mpl.ticker.MaxNLocator(5 if panel["gridPos"]["w"] > 6 else 3))
    kinds = {"timeseries": _draw_series, "state-timeline": _draw_states, "heatmap": _draw_heatmap}
    if not series:
        axes.text(
            0.5, 0.5, "unknown", color=COLORS["orange"], transform=axes.transAxes, ha="center"
        )
        axes.yaxis.set_major_locator(NullLocator())
        return
    kinds[panel["type"]](axes, panel, series, span)


def _name(legend: str, labels: Mapping[str, str]) -> str:
    for label, value in labels.items():
        legend = legend.replace(f"{{{{{label}}}}}", value)
    return " ".join(part for part in legend.split() if "{{" not in part)


Named = Sequence[tuple[str, Any]]


def points(one: Mapping[str, Any], span: Span) -> tuple[list[float], list[float]]:
    """Returns times and values, with NaN where a value is missing: a gap."""
    times: list[float] = []
    values: list[float] = []
    for at, value in one["values"]:
        if times and at - times[-1] > 1.5 * span.step_s:
            times.append(times[-1] + span.step_s)
            values.append(math.nan)
        times.append(float(at))
        values.append(float(value))
    return times, values


def _draw_series(axes: Axes, panel: Mapping[str, Any], series: Named, span: Span) -> None:
    defaults = panel["fieldConfig"]["defaults"]
    custom = defaults["custom"]
    fixed = {
        override["matcher"]["options"]: override["properties"][0]["value"].get("fixedColor")
        for override in panel["fieldConfig"]["overrides"]
    }
    log = custom["scaleDistribution"]["type"] == "log"
    stacked = custom["stacking"]["mode"] == "normal"
    below: dict[float, float] = {}
    for number, (name, one) in enumerate(series):
        times, values = points(one, span)
        color = COLORS.get(str(fixed.get(name)), PALETTE[number % len(PALETTE)])
        if stacked:
            base = [below.get(at, 0.0) for at in times]
            values = [b + v for b, v in zip(base, values, strict=True)]
            axes.fill_between(times, base, values, color=color, alpha=0.6, linewidth=0)
            below |= {at: v for at, v in zip(times, values, strict=True) if not math.isnan(v)}
        if log:
            values = [v if v > 0 else (math.nan if math.isnan(v) else 1e-3) for v in values]
        axes.plot(times, values, color=color, linewidth=1.1, label=name or "value")
    if log:
        axes.set_yscale("log")
        axes.yaxis.set_minor_locator(NullLocator())
    else:
        axes.set_ylim(bottom=defaults.get("min"), top=defaults.get("max"))
    if custom["thresholdsStyle"]["mode"] == "line":
        low, high = axes.get_ylim()
        for step in defaults["thresholds"]["steps"]:
            if step["value"] is not None and low < step["value"] < high:
                axes.axhline(
                    step["value"], color=COLORS[step["color"]], linestyle="--", linewidth=0.8
                )
    axes.yaxis.set_major_formatter(FuncFormatter(lambda v, _: _with_unit(v, defaults["unit"])))
    axes.grid(color=FAINT, linewidth=0.3)
    axes.legend(
        loc="upper left",
        bbox_to_anchor=(-0.02, -0.13),
        ncols=max(3, panel["gridPos"]["w"] // 2),
        fontsize=5.5,
        frameon=False,
        labelcolor=TEXT,
        handlelength=1,
        columnspacing=1,
        borderpad=0,
    )


def _draw_states(axes: Axes, panel: Mapping[str, Any], series: Named, span: Span) -> None:
    named = panel["fieldConfig"]["defaults"]["mappings"][0]["options"]
    by_name: dict[str, list[Any]] = {}
    for name, one in series:
        by_name.setdefault(name, []).extend(one["values"])
    for row, (_, values) in enumerate(by_name.items()):
        said: str | None = None
        for at, value in sorted(values):
            state = named[f"{float(value) + 0.0:g}"]
            color = COLORS[state["color"]]
            axes.barh(row, span.step_s * 1.05, left=float(at), height=0.8, color=color, linewidth=0)
            if state["text"] != said:
                said = state["text"]
                axes.text(
                    float(at) + 2, row, said, color="#111217", fontsize=6, va="center", clip_on=True
                )
    axes.set_yticks(range(len(by_name)), [name.removeprefix("Adaptd") for name in by_name])
    axes.set_ylim(max(len(by_name), 2) - 0.4, -0.6)


def _draw_heatmap(axes: Axes, panel: Mapping[str, Any], series: Named, span: Span) -> None:
    buckets = sorted(((float(one["metric"]["le"]), one) for _, one in series), key=lambda b: b[0])
    below: dict[float, float] = {}
    rows = []
    for _, one in buckets:
        counts = {float(at): float(v) for at, v in one["values"]}
        rows.append({at: max(0.0, v - below.get(at, 0.0)) for at, v in counts.items()})
        below = counts
    most = max((v for row in rows for v in row.values()), default=1.0) or 1.0
    for number, row in enumerate(rows):
        for at, count in row.items():
            if count > 0.01 * most:
                axes.barh(
                    number,
                    span.step_s,
                    left=at,
                    height=1,
                    color=COLORS["blue"],
                    alpha=min(1.0, 0.15 + 0.85 * math.sqrt(count / most)),
                    linewidth=0,
                )
    axes.set_yticks(range(0, len(buckets), 2), [f"{le:g} s" for le, _ in buckets[::2]])
    axes.set_ylim(-0.5, len(buckets) - 0.5)


def _draw_stat(
    axes: Axes, panel: Mapping[str, Any], api: Prometheus, variables: Mapping[str, str]
) -> None:
    axes.set_xticks([])
    axes.set_yticks([])
    defaults = panel["fieldConfig"]["defaults"]
    overrides = {
        override["matcher"]["options"]: override["properties"][0]["value"]["steps"]
        for override in panel["fieldConfig"]["overrides"]
    }
    cells: list[tuple[str, str, str]] = []
    for target in panel["targets"]:
        vector = api.query(filled_in(target["expr"], variables))
        legend = target["legendFormat"]
        for one in vector:
            name, value = _name(legend, one["metric"]), float(one["value"][1])
            steps = overrides.get(name, defaults["thresholds"]["steps"])
            color = [s["color"] for s in steps if s["value"] is None or value >= s["value"]][-1]
            shown = "unknown" if math.isnan(value) else _with_unit(value, defaults["unit"])
            cells.append((name, shown, "orange" if math.isnan(value) else color))
        if not vector:
            cells.append(("" if "{{" in legend else legend, defaults["noValue"], "orange"))
    for number, (name, shown, color) in enumerate(cells):
        width = 1 / len(cells)
        place: dict[str, Any] = {"transform": axes.transAxes, "ha": "center", "color": BACKGROUND}
        axes.axvspan(number * width, (number + 0.985) * width, color=COLORS[color], linewidth=0)
        axes.text((number + 0.5) * width, 0.6, name, fontsize=8, va="center", **place)
        size = 18 if len(shown) < 6 else 11
        axes.text(
            (number + 0.5) * width, 0.32, shown, fontsize=size, va="center", weight="bold", **place
        )
    axes.set_xlim(0, 1)


def _with_unit(value: float, unit: str) -> str:
    if unit == "percentunit":
        return f"{100 * value:.3g} %"
    if unit == "bytes":
        power = min(len(BYTES) - 1, int(math.log(abs(value), 1024))) if value else 0
        return f"{value / 1024**power:.3g} {BYTES[power]}"
    if unit == "s":
        if value >= 120:
            return f"{value / 60:.3g} min"
        return f"{value:.3g} s" if value >= 1 or value == 0 else f"{1000 * value:.3g} ms"
    if unit == "ops":
        return f"{value:.3g}/s"
    return f"{value:.4g}" if abs(value) < 1e4 else f"{value / 1000:.3g} K"


def main(
    board: Annotated[Path, typer.Argument(help="The dashboard's JSON.")],
    address: Annotated[str, typer.Argument(help="A Prometheus, HOST:PORT.")],
    out: Annotated[Path, typer.Argument(help="The PNG to write.")],
    minutes: Annotated[float, typer.Option(help="How long before now it begins.")] = 60,
) -> None:
    """Draw a dashboard from a Prometheus."""
    now = time.time()
    span = Span(now - 60 * minutes, now)
    rate_s = max(60, round(4 * span.step_s))
    draw(json.loads(board.read_text()), Prometheus(address), span, out, rate_s)


if __name__ == "__main__":
    typer.run(main)
