"""The chart of BENCHMARKS.md: what was measured beside the goals."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.figures import Result, number
from benchmarks.output import NoFigures

MET, MISSED, LIMIT, GRID = "#1a7f5a", "#c2541b", "#1b2430", "#e4e8ee"
WIDEST = 3.0  # A bar of more than what is allowed is cut here; the number beside it is not
FONT = {"font.size": 9, "font.family": "sans-serif", "axes.titlesize": 10}


def draw_chart(every: Sequence[Result], file: Path) -> None:
    """Writes the PNG. Raises NoFigures when matplotlib is not installed."""
    pyplot = _pyplot()
    measured = [r for r in every if r.missing is None]
    least = [r for r in measured if not r.figure.at_most]
    most = [r for r in measured if r.figure.at_most]
    heights = [max(1, len(least)), max(1, len(most))]
    with pyplot.rc_context(FONT):
        size = (9, 1.2 + 0.37 * sum(heights))
        figure, (top, bottom) = pyplot.subplots(2, 1, figsize=size, height_ratios=heights)
        _at_least(top, least)
        _at_most(bottom, most)
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
    axes.xaxis.set_major_formatter("{x:g}x")
    axes.minorticks_off()
    _finish(axes, found)


def _at_most(axes: Any, found: Sequence[Result]) -> None:
    axes.set_title("share of the most that is allowed (green: kept)", loc="left")
    for y, result in enumerate(found):
        value, goal = (number(v, result.figure.unit) for v in (result.value, result.figure.goal))
        length = min(WIDEST, max(0.0, result.share))
        _bar(axes, y, result, length, max(1.0, length), f"{value} of {goal}")
    axes.set_xlim(0, WIDEST * 1.3)
    axes.set_xticks([0, 0.5, 1, 2, WIDEST], ["0", "½", "all of it", "2x", f"{WIDEST:g}x or more"])
    _finish(axes, found)


def _bar(axes: Any, y: int, result: Result, length: float, beyond: float, text: str) -> None:
    axes.barh(y, length, height=0.62, color=MET if result.met else MISSED)
    axes.annotate(text, (beyond, y), xytext=(6, 0), textcoords="offset points", va="center")


def _finish(axes: Any, found: Sequence[Result]) -> None:
    axes.axvline(1, color=LIMIT, linewidth=1.2)
    axes.set_yticks(range(len(found)), [result.figure.label for result in found], fontsize=8)
    axes.invert_yaxis()
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="x", color=GRID, linewidth=0.7)
    axes.set_axisbelow(True)
