"""The chart of BENCHMARKS.md: what was measured beside the goals."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.figures import Report, Result
from benchmarks.inner.contender import OURS
from benchmarks.numbers import number
from benchmarks.output import NoFigures

MET, MISSED, LIMIT = "#1a7f5a", "#c2541b", "#1b2430"
GREY = "#8a94a6"
WIDEST = 3.0  # A bar of more than what is allowed is cut here; the number beside it is not
SHADES = ("#9db7d5", "#4a7ab5", "#163a6b")
MARKS = ("o", "s", "D")
FONT = {"font.size": 9, "font.family": "sans-serif", "axes.titlesize": 10}


def draw_chart(every: Sequence[Result], adapt: Report | None, file: Path) -> None:
    """Writes the PNG. Raises NoFigures when matplotlib is not installed."""
    pyplot = _pyplot()
    least = [r for r in every if r.missing is None and not r.figure.at_most]
    most = [r for r in every if r.missing is None and r.figure.at_most]
    contenders = sum(1 for _ in adapt["cases"][0]["entries"]) if adapt else 0
    heights = [max(1, len(least)), max(1, len(most)), max(1, contenders)]
    with pyplot.rc_context(FONT):
        figure, (top, middle, bottom) = pyplot.subplots(
            3, 1, figsize=(9, 1.6 + 0.37 * sum(heights)), height_ratios=heights
        )
        _at_least(top, least)
        _at_most(middle, most)
        _speeds(bottom, adapt)
        figure.tight_layout(h_pad=2.0)
        figure.savefig(file, dpi=130)
        pyplot.close(figure)


def _pyplot() -> Any:
    try:  # only here: it comes with the `bench` extra
        import matplotlib
    except ImportError as e:
        raise NoFigures("no chart: matplotlib is not installed: pip install -e '.[bench]'") from e
    matplotlib.use("Agg")
    from matplotlib import pyplot

    return pyplot


def _at_least(axes: Any, found: Sequence[Result]) -> None:
    axes.set_title("times as fast, and the line of the goal (green: met)", loc="left")
    axes.set_xscale("log")
    for y, result in enumerate(found):
        goal = result.figure.goal
        text = f"{number(result.value)}x (goal {number(goal)}x)"
        _bar(axes, y, result, result.value, max(result.value, goal), text)
        axes.plot([goal, goal], [y - 0.42, y + 0.42], color=LIMIT, linewidth=1.8, zorder=3)
    ends = [end for r in found for end in (r.value, r.figure.goal)] or [1.0]
    axes.set_xlim(min(0.8, *ends) * 0.9, max(ends) * 4)
    axes.axvline(1, color=GREY, linewidth=0.8)
    axes.xaxis.set_major_formatter("{x:g}x")
    axes.minorticks_off()
    _labels(axes, [result.figure.label for result in found])


def _at_most(axes: Any, found: Sequence[Result]) -> None:
    axes.set_title("share of the most that is allowed (green: kept)", loc="left")
    for y, result in enumerate(found):
        value, goal = (number(v, result.figure.unit) for v in (result.value, result.figure.goal))
        length = min(WIDEST, max(0.0, result.share))
        _bar(axes, y, result, length, max(1.0, length), f"{value} of {goal}")
    axes.axvline(1, color=LIMIT, linewidth=1.8)
    axes.set_xlim(0, WIDEST * 1.3)
    axes.set_xticks([0, 0.5, 1, 2, WIDEST], ["0", "½", "all of it", "2x", f"{WIDEST:g}x or more"])
    _labels(axes, [result.figure.label for result in found])


def _bar(axes: Any, y: int, result: Result, length: float, beyond: float, text: str) -> None:
    axes.barh(y, length, height=0.62, color=MET if result.met else MISSED)
    place = {"xytext": (6, 0), "textcoords": "offset points", "va": "center"}
    axes.annotate(text, (beyond, y), **place)


def _speeds(axes: Any, adapt: Report | None, streams: int = 256) -> None:
    """Draws every contender's speed, by dimension, at one number of streams."""
    axes.set_title(f"streams per CPU-second, B = {streams} (bold: ours)", loc="left")
    cases = [
        case
        for case in (adapt or {"cases": []})["cases"]
        if case["what"] == "adapt" and case["streams"] == streams
    ]
    names = list(cases[0]["entries"]) if cases else []
    for case, shade, mark in zip(cases, SHADES, MARKS, strict=False):
        points = [
            (entry["streams_per_cpu_s"]["median"], y)
            for y, entry in enumerate(case["entries"].values())
            if "streams_per_cpu_s" in entry
        ]
        if points:
            label = f"d = {case['dim']}"
            axes.scatter(*zip(*points, strict=True), color=shade, marker=mark, label=label, s=36)
    if cases:
        axes.legend(loc="upper right", bbox_to_anchor=(1, -0.05), ncols=3, frameon=False)
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter("{x:,.0f}")
    _labels(axes, names)
    for name, label in zip(names, axes.get_yticklabels(), strict=True):
        label.set_fontweight("bold" if name in OURS else "normal")
    axes.grid(axis="y", color="#e4e8ee", linewidth=0.7)


def _labels(axes: Any, labels: Sequence[str]) -> None:
    axes.set_yticks(range(len(labels)), labels, fontsize=8)
    axes.invert_yaxis()
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="x", color="#e4e8ee", linewidth=0.7)
    axes.set_axisbelow(True)
