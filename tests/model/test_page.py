"""The report: one page that needs nothing else, and says what the figures say."""

import math
import re
import xml.etree.ElementTree as ET

import pytest

from model.emoji import drawings as emoji
from model.evaluate.chart import Curve, chart
from model.evaluate.examples import Example, Picture
from model.evaluate.intervals import Interval, t_interval
from model.evaluate.page import page
from model.evaluate.result_table import AgainstRidge, ResultRow, ResultTable
from model.evaluate.scoring import MEASURES, Figures
from model.evaluate.stability import Stability

HALF = t_interval([0.4, 0.6])


def row(method: str, mean: float, theta: str | None = None, pairs: int = 5) -> ResultRow:
    interval = Interval(mean, mean - 0.05, mean + 0.05, 2, 0)
    return ResultRow(theta, Figures(method, pairs, 2, dict.fromkeys(MEASURES, interval)))


def judged() -> ResultTable:
    rows = (
        row("gated", 0.5, "mine"),
        row("ridge", 0.1),
        row("gated", 0.6, "mine", 16),
        row("ridge", math.nan, pairs=16),
    )
    picture = Picture(emoji.picture_png(5, "noto"))
    example = Example("a stream", picture, "<right>", {"ridge": [("<wrong>", False)]})
    return ResultTable("t", "A <table>", 2, rows, notes=("a note & more",), examples=(example,))


def test_every_figure_is_on_the_page_with_its_interval() -> None:
    text = page("Title <1>", {"fact": "a & b"}, [judged()])
    assert "Title &lt;1&gt;" in text
    assert "<dd>a &amp; b</dd>" in text
    assert "A &lt;table&gt;" in text
    assert "0.500 <small>±0.050</small>" in text
    assert "a note &amp; more" in text
    assert "<th>mine gated</th>" in text


def test_the_summary_lists_tables_with_a_setting_alone() -> None:
    with_setting = ResultTable("u", "U", 2, judged().rows, setting="rotation")
    text = page("T", {}, [judged(), with_setting])
    assert text.count("<h2>Summary</h2>") == 1
    (section,) = re.findall(r"<h2>Summary</h2>.*?</section>", text, re.DOTALL)
    assert "<th>rotation</th>" in section
    assert "<b>0.600</b>" in section
    assert "<h2>Summary</h2>" not in page("T", {}, [judged()])


def test_pictures_are_inside_and_nothing_is_outside() -> None:
    text = page("T", {}, [judged()], [Curve("outer loss", [(0, 1.0), (1, 0.5)])])
    assert 'src="data:image/png;base64,' in text
    assert "&lt;right&gt;" in text
    assert "&lt;wrong&gt;" in text
    assert "http" not in text
    assert "<script" not in text
    assert "<h2>Training</h2>" in text


def test_tags_are_balanced() -> None:
    """Parsed as XML: after what XML has not (doctype, void tags, bare attributes) is taken away."""
    text = page("T", {"f": "v"}, [judged(), ResultTable("u", "U", notes=("missing",))])
    text = text.removeprefix("<!doctype html>")
    text = re.sub(r"<(meta|img)\b[^>]*>", "", text)
    text = re.sub(r"(class|colspan)=([\w-]+)", r'\1="\2"', text)
    assert ET.fromstring(text).tag == "html"


def test_ridge_and_stability_have_tables_of_their_own() -> None:
    worse = Interval(-0.1, -0.2, -0.05, 4, 0)
    against = AgainstRidge("mine", 5, worse, HALF)
    stable = Stability("maml", 5, 25, 40, 0, 0, 7, 33, HALF, HALF)
    text = page("T", {}, [ResultTable("t", "T", against_ridge=(against,), stability=(stable,))])
    assert "-0.100 <small>-0.200 to -0.050</small>" in text
    assert '<span class="bad">worse</span>' in text
    assert "<td>33</td>" in text
    assert not against.holds
    assert AgainstRidge("mine", 5, Interval(-0.1, -0.2, 0.01, 4, 0), HALF).holds


def test_a_chart_leaves_gaps_and_is_nothing_without_figures() -> None:
    drawn = chart([Curve("a", [(1, 0.0), (2, math.nan), (4, 1.0)])], "x", "y", log_x=True)
    assert drawn.count("<circle") == 2
    ET.fromstring(drawn)
    assert chart([Curve("a", [(1, math.nan)])], "x", "y") == ""
    assert chart([], "x", "y") == ""


@pytest.mark.parametrize("values", [[(1.0, 0.0)], [(1.0, -2.0), (2.0, -1.0)], [(5.0, 1e-9)]])
def test_a_chart_of_one_point_or_of_negative_numbers_is_drawn(
    values: list[tuple[float, float]],
) -> None:
    drawn = chart([Curve("a", values)], "x", "y")
    assert "nan" not in drawn
    ET.fromstring(drawn)
