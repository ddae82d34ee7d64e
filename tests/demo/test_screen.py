from __future__ import annotations

from io import StringIO
from typing import Any

import pytest
from rich.console import Console, RenderableType

from daemon.demo.plan import Plan
from daemon.demo.progress import DemoProgress, abbreviated
from daemon.demo.reports import EventScored
from daemon.demo.scenarios import MALFORMED_KINDS
from daemon.demo.screen import PlainDisplay, live, progress_line, summary_screen
from daemon.demo.summary import summarise
from daemon.demo.tables import bar

PerfectRun = Any
WIDTH = 80
LOCAL = "local: Kafka 4.1.0 at 127.0.0.1:19523, Valkey at 127.0.0.1:18765"


def lines(renderable: RenderableType) -> list[str]:
    out = StringIO()
    Console(file=out, width=WIDTH, height=200).print(renderable)
    return out.getvalue().splitlines()


@pytest.mark.parametrize("height", [24, 30, 36, 37, 52, 60])
def test_the_live_screen_fits_the_terminal(height: int) -> None:
    assert len(lines(live(DemoProgress(Plan()), "local", 1.0, height))) <= height


def test_the_last_lines_of_the_summary_fit_a_small_terminal(run: PerfectRun) -> None:
    progress = run.progress()
    shown = lines(summary_screen(summarise(progress, LOCAL, 38.0, []), progress))
    (vectors,) = [n for n, line in enumerate(shown) if line.startswith("Vectors: R@1")]
    assert len(shown) - vectors <= 23  # and the prompt
    assert max(map(len, shown)) <= WIDTH


def test_tenants_that_do_not_fit_are_counted() -> None:
    assert any("(17 do not fit)" in line for line in lines(live(DemoProgress(Plan()), "", 1.0, 24)))


def test_details_come_with_room(run: PerfectRun) -> None:
    low, high = (lines(live(run.progress(), "", 1.0, height)) for height in (24, 40))
    assert any("R@1 by support pairs" in line for line in high)
    assert not any("R@1 by support pairs" in line for line in low)
    assert sum("not_finite" in line for line in low) == 1
    assert sum(line.strip().startswith("tenant-01  ") for line in high) == 1 + len(MALFORMED_KINDS)


def test_80_columns_are_enough(run: PerfectRun) -> None:
    screen = live(run.progress(), "", 1.0, 50)
    wide = StringIO()
    Console(file=wide, width=3 * WIDTH).print(screen)
    assert [line.rstrip() for line in lines(screen)] == [
        line.rstrip() for line in wide.getvalue().splitlines()
    ]


def test_a_language_shows_what_its_mapping_found(run: PerfectRun) -> None:
    wrong = {"adapted": False, "theta": True, "ridge": False}
    run.names_scored[-1] = EventScored("names", "ne", 16, wrong, "🐂", "dragon")
    shown = lines(live(run.progress(), "", 1.0, 40))
    (japanese,) = [line for line in shown if "Japanese" in line]
    assert japanese.split()[-4:] == ["✓", "🍎", "→", "apple"]
    (nepali,) = [line for line in shown if "Nepali°" in line]
    scores = ["0.500", "0.500", "0.000"]
    assert nepali.split() == ["Nepali°", "2", "16", "adapted", *scores, "✗", "🐂", "→", "dragon"]


def test_a_tenants_row_is_not_cut_at_80_columns(run: PerfectRun) -> None:
    (row,) = [r for r in lines(live(run.progress(), "", 1.0, 40)) if "tenant-02" in r]
    cells = ["tenant-02", "3", "16", "adapted", "1.000", "→", "0.500"]
    assert row.split() == [*cells, "1.000", "0.000", "0.000", "20", "ms"]


def test_the_summary_says_that_tenants_are_synthetic(run: PerfectRun) -> None:
    progress = run.progress()
    text = "\n".join(lines(summary_screen(summarise(progress, "local", 1.0, []), progress)))
    assert "spaces are synthetic" in text
    assert "OK in 1 s" in text


def test_the_summary_says_what_failed(run: PerfectRun) -> None:
    progress = run.progress()
    text = "\n".join(lines(summary_screen(summarise(progress, "local", 1.0, ["why"]), progress)))
    assert "FAILED: why" in text


def test_a_progress_line_before_anything_happened() -> None:
    assert progress_line(DemoProgress(Plan()), 0.0).startswith(
        "  0 s  0/2400 events; tenants: 0/24"
    )


def test_without_a_terminal_each_dead_letter_is_one_line(run: PerfectRun) -> None:
    out = StringIO()
    display = PlainDisplay(Console(file=out, width=WIDTH))
    for seconds in (0.0, 1.0, 2.0):
        display.refresh(run.progress(), "", seconds)
    written = out.getvalue().splitlines()
    assert sum("not_finite" in line for line in written) == 1
    assert sum("18/18 events" in line for line in written) == 1


@pytest.mark.parametrize(
    ("share", "drawn"), [(None, ""), (0.0, ""), (0.25, "██"), (0.5, "████"), (0.9, "████")]
)
def test_half_of_all_is_a_full_bar(share: float | None, drawn: str) -> None:
    assert bar(share, cells=4) == drawn


def test_a_long_list_is_cut() -> None:
    assert abbreviated(["a", "b"]) == "a, b"
    assert abbreviated(["a", "b", "c", "d", "e"]) == "a, b, c and 2 more"
