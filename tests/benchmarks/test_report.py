"""The report says what the JSON says: which goals are met, and by how much others are missed."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from benchmarks import report
from benchmarks.figures import FIGURES, Figure, Result, at, cell, number, result, spread_text
from benchmarks.inner.adapt import AdaptPlan
from benchmarks.inner.contender import OURS
from benchmarks.output import NoFigures
from benchmarks.report import report_page
from benchmarks.stream.drain import Drain
from benchmarks.stream.latency import Paced, latency_figures
from benchmarks.stream.plan import SCENARIOS
from benchmarks.stream.stream import ratios_of
from benchmarks.stream.worker_process import Sample

PNG = b"\x89PNG\r\n\x1a\n"
LEAST = Figure("s", "s", ("adapt", "cases", {"dim": 512}, "entries", "ours", "over"), 15)
MOST = Figure("m", "m", ("windows", "anon"), 48, "KB", at_most=True, scale=1e-3)
DRAIN = Drain(Sample(0, 0, {"worker": 0}, {}), Sample(1, 10, {"worker": 1}, {}), 1, 50)
PACED = Paced(10.0, late_ms=0.0, max_wait_ms=50, newest_ms=[9.0], oldest_ms=[70.0])


def of(median: float, low: float | None = None, high: float | None = None) -> dict[str, float]:
    return {"median": median, "min": low or median, "max": high or median}


def adapt_report(over: float) -> dict[str, Any]:
    """As `python -m benchmarks adapt` writes, two contenders and one that could not take part."""
    entry = {"streams_per_cpu_s": of(900 * over), "streams_per_s": of(800 * over)}
    ours = entry | {"disagreement": 2e-7, "over": {"loop": of(over)}}
    ours |= {"over_documented": of(over, over - 1, over + 1), "over_fastest": of(over / 2)}
    loop = {"streams_per_cpu_s": of(900), "streams_per_s": of(800), "disagreement": 1e-7}
    entries = {"loop": loop, "higher": {"refused": "not | installed"}, "hidden": ours}
    entries["hidden cached"] = ours
    shapes = (("adapt", 1, 512), ("adapt", 256, 512), ("adapt", 32, 2048), ("gradient", 32, 512))
    return {
        "bench": "adapt",
        "date": "2026-11-24T12:00:00+00:00",
        "parameters": {"hidden_dim": 128, "support": 16, "inner_steps": 5, "turns": 3},
        "compared_by": "streams_per_cpu_s",
        "definitions": {"loop": "one after another"},
        "machine": {"cpu": "a CPU", "cores": 2, "torch": "2.15"},
        "cases": [
            {"what": what, "streams": streams, "dim": dim, "entries": entries}
            | {"fastest_peer": "jax chunked", "fastest_documented": "loop"}
            for what, streams, dim in shapes
        ],
        "seconds": 12.5,
    }


def page_of(reports: dict[str, Any]) -> str:
    return report_page(
        [result(figure, reports, {}) for figure in FIGURES], reports, {}, "docs/b.png"
    )


def verdict(figure: Figure, found: dict[str, Any]) -> str:
    found |= {"bench": "sinusoid", "tables": [], "machine": {}}
    reports = {str(figure.at[0]): found}
    line = (
        report_page([result(figure, reports, {})], reports, {}, "chart.png")
        .split(" | met? |")[1]
        .splitlines()[2]
    )
    return " | ".join(text.strip() for text in line.strip("|").split("|")[1:4])


def speed(value: Any) -> dict[str, Any]:
    return {"cases": [{"dim": 128}, {"dim": 512, "entries": {"ours": value}}]}


def test_a_goal_is_met_from_its_number_on() -> None:
    assert verdict(LEAST, speed({"over": of(15, 14, 17.25)})) == "15x | **15x** (14 to 17.2) | yes"
    assert verdict(MOST, {"anon": 48_000}) == "at most 48 KB | **48 KB** | yes"


def test_a_figure_that_is_missed_says_by_how_much() -> None:
    assert verdict(LEAST, speed({"over": of(12)})) == "15x | **12x** | **no**: 80 % of it"
    assert (
        verdict(MOST, {"anon": 60_000}) == "at most 48 KB | **60 KB** | **no**: 1.25 times as much"
    )


def test_a_goal_is_not_simply_met_by_a_smaller_run() -> None:
    fewer = Figure("m", "m", ("windows", "anon"), 48, at_most=True, partly="anon < 1000")
    assert verdict(fewer, {"anon": 1}).endswith("yes, as far as it was run")
    assert verdict(fewer, {"anon": 96}).endswith("**no**: 2 times as much")


@pytest.mark.parametrize(
    ("reports", "absent", "why"),
    [
        ({}, {}, "there is no adapt.json"),
        ({}, {"adapt": "exit code 1"}, "exit code 1"),
        ({"adapt": speed({"refused": "a wrong result"})}, {}, "a wrong result"),
        ({"adapt": speed({})}, {}, "the run has no such figure"),
        ({"adapt": {"cases": []}}, {}, "the run has no such figure"),
    ],
)
def test_what_was_not_measured_says_why_and_meets_no_goal(
    reports: dict[str, Any], absent: dict[str, str], why: str
) -> None:
    found = result(LEAST, reports, absent)
    assert found.missing == why
    assert not found.met
    assert math.isnan(found.value)
    assert f"| 15x | not measured | - | {why} |" in report_page([found], {}, {}, "c.png")


def test_a_path_chooses_the_item_that_has_all_values() -> None:
    found = {"cases": [{"a": 1, "b": 1, "x": "no"}, {"a": 1, "b": 2, "x": "yes"}]}
    assert at(found, ("cases", {"a": 1, "b": 2}, "x")) == "yes"
    assert at(found, ("cases", {"a": 3}, "x")) is None
    assert at(found, ("cases", "x")) is None


def test_the_page_has_every_figure_and_every_number_from_the_json() -> None:
    text = page_of({"adapt": adapt_report(16)})
    rows = text.split("## Machine")[0].splitlines()
    assert sum(row.startswith("|") for row in rows) == 2 + len(FIGURES)
    assert "| 15x | **16x** (15 to 17) | yes | the fastest is loop; with θ′ in factors |" in text
    assert "| 15x | **8x** | **no**: 53 % of it | the fastest is jax chunked; with" in text
    assert "![the same figures as bars](docs/b.png)" in text
    assert "| higher | none: not \\| installed |  |  |  |  |" in text
    assert "| hidden cached | 14,400 | 16 | 16 | 8 | 2e-07 |" in text
    assert "**16x**" not in page_of({"adapt": adapt_report(7)})


def test_figures_are_of_cases_and_contenders_that_the_benchmarks_have() -> None:
    cases = {(case.what, case.streams, case.dim) for case in AdaptPlan().cases}
    for figure in FIGURES:
        if figure.at[0] in ("adapt", "adapt-cuda"):
            _, _, case, _, contender, *_ = figure.at
            assert not isinstance(case, str)
            assert (case["what"], case["streams"], case["dim"]) in cases
            assert contender in OURS
    assert {"hidden cached, steps", "hidden cached, weights"} <= set(OURS)
    runs = {name: [DRAIN] for name in SCENARIOS}
    found = {"ratios": ratios_of(runs), "latency": latency_figures([PACED])}
    asked = [figure for figure in FIGURES if figure.at[0] == "stream"]
    assert not [r for figure in asked if (r := result(figure, {"stream": found}, {}).missing)]


def test_the_committed_page_is_of_this_table_and_this_template() -> None:
    committed = (Path(__file__).parents[2] / "BENCHMARKS.md").read_text()
    fresh = page_of({})
    assert committed.split("| figure")[0] == fresh.split("| figure")[0]
    for row in fresh.split("| figure")[1].splitlines()[2 : 2 + len(FIGURES)]:
        assert row.split(" | not measured")[0] in committed


def test_a_benchmark_that_failed_is_named() -> None:
    assert "**`stream` ended with an error:** exit code 1" in report_page(
        [], {}, {"stream": "exit code 1"}, "c.png"
    )


def test_a_benchmark_that_ends_with_an_error_does_not_stop_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(report, "COMMANDS", {"stream": ["nonesuch"], "adapt": ["neither"]})
    (tmp_path / "adapt.json").write_text(json.dumps(adapt_report(16)))  # of an earlier run
    failed = report.run_all(tmp_path, quick=True)
    assert list(failed) == ["stream", "adapt"]
    assert report.kept(tmp_path) == {}
    assert failed["stream"].startswith("exit code 2")


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0"),
        (2.449, "2.45"),
        (999.4, "999"),
        (999.7, "1,000"),
        (14_404.2, "14,400"),
        (1e6, "1,000,000"),
    ],
)
def test_numbers_have_three_digits_or_four(value: float, text: str) -> None:
    assert number(value) == text


def test_small_numbers_and_spreads() -> None:
    assert (number(2.13e-7), number(-413.2), number(math.inf)) == ("2e-07", "-413", "inf")
    assert (spread_text(None), spread_text(3), spread_text(of(3))) == ("", "3", "3")
    assert spread_text(of(3, 2, 4_000)) == "3 (2 to 4,000)"
    assert cell("a | b\n c") == "a \\| b c"


def test_units_stand_as_people_write_them() -> None:
    assert (number(15, "x"), number(1e6, "/s"), number(48, "KB")) == ("15x", "1,000,000/s", "48 KB")


def test_from_a_folder_come_a_page_and_a_chart(run: Callable[..., int], tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    (tmp_path / "adapt.json").write_text(json.dumps(adapt_report(16)))
    made, chart = tmp_path / "B.md", tmp_path / "docs" / "b.png"
    assert run("report", "--from", tmp_path, "--page", made, "--chart", chart) == 0
    assert "](docs/b.png)" in made.read_text()
    assert "| not measured | - | there is no stream.json |" in made.read_text()
    assert "| not measured | - | no CUDA device at hand |" in made.read_text()
    assert chart.read_bytes().startswith(PNG)


@pytest.mark.parametrize("content", ["{", "[]", '{"bench": "stream"}'])
def test_json_that_is_not_the_benchmarks_is_refused(
    run: Callable[..., int], tmp_path: Path, content: str
) -> None:
    (tmp_path / "adapt.json").write_text(content)
    with pytest.raises(NoFigures, match=r"adapt\.json"):
        report.kept(tmp_path)
    assert run("report", "--from", tmp_path, "--page", tmp_path / "B.md") == 1
    assert not (tmp_path / "B.md").exists()


def test_an_empty_folder_makes_no_page(run: Callable[..., int], tmp_path: Path) -> None:
    assert run("report", "--from", tmp_path, "--page", tmp_path / "B.md") == 1
    assert list(tmp_path.iterdir()) == []


def test_share_is_of_the_goal() -> None:
    assert Result(LEAST, 30).share == 2
