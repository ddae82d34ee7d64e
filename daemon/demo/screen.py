"""What the demo shows: a live screen on a terminal, lines elsewhere, and a summary at the end.

`live`, `progress_line` and `summary_screen` make it, all pure; a Display decides when it is shown.
"""

from __future__ import annotations

import math
from typing import Protocol

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from daemon.demo.progress import DemoProgress, ScenarioProgress
from daemon.demo.reports import DeadLetterReceived
from daemon.demo.scenarios import MALFORMED_KINDS
from daemon.demo.summary import Latency, Summary
from daemon.demo.tables import (
    mean_cells,
    ms,
    names_result,
    names_table,
    r_at_1_table,
    tenants_table,
)

SYNTHETIC = (
    "The tenants' embedding spaces are synthetic: rotations of one embedding of names. "
    "θ has never seen the pictures, which are twemoji's; the names are Unicode's own."
)
BY_PAIRS = "{}: R@1 by support pairs (scored before learnt from), mean over {}"
BAR_CELLS = 16
FEWEST_TENANTS = 8
"""Where fewer tenants would fit beside the details, the details are left out."""
REDRAW_EVERY_S = 0.2
LINE_EVERY_S = 3.0


def live(progress: DemoProgress, services: str, seconds: float, height: int) -> RenderableType:
    """Returns the screen of a running demo, in at most `height` lines of 80 columns."""
    tenants, names = progress.scenarios["tenants"], progress.scenarios["names"]
    around = 2 + _table_lines(0) + _table_lines(len(names.streams)) + len(progress.scenarios)
    details = 5 + 1 + len(MALFORMED_KINDS)
    roomy = height >= around + details + FEWEST_TENANTS
    rows = max(1, height - around - (details if roomy else 1))
    return Group(
        _headline(progress, seconds),
        Text(services, style="dim", no_wrap=True, overflow="ellipsis"),
        tenants_table(tenants, rows),
        names_table(names),
        *([_r_at_1(progress)] if roomy else []),
        *map(_worker, progress.scenarios.values()),
        *(_dead_letters(progress) if roomy else [_dead_letter_reasons(progress)]),
    )


def _table_lines(rows: int) -> int:
    """Returns a table's lines: its heading, its rows, the mean and a caption."""
    return rows + 3


def progress_line(progress: DemoProgress, seconds: float) -> str:
    """Returns the state of the run in one line."""
    scenarios = "; ".join(map(_scenario_line, progress.scenarios.values()))
    return (
        f"{seconds:3.0f} s  {progress.events_read}/{progress.planned} events; "
        f"{scenarios}; dead letters {len(progress.dead_letters)}"
    )


def _scenario_line(scenario: ScenarioProgress) -> str:
    return (
        f"{scenario.name}: {scenario.streams_with_mapping}/{len(scenario.streams)} mapped, "
        f"{scenario.mappings} mappings, R@1 {mean_cells(scenario.scores.recent_mean())}, "
        f"lag {_count(scenario.figure('lag'))}"
    )


def summary_screen(summary: Summary, progress: DemoProgress) -> RenderableType:
    """Returns the screen at the end of the demo, in 80 columns. The last 23 lines, which a small
    terminal shows, hold both tables of scores and all behind them."""
    facts = Table.grid(padding=(0, 2))
    facts.add_column(style="dim", no_wrap=True)
    facts.add_column()
    for name, text in _facts(summary, progress).items():
        facts.add_row(name, text)
    result = (
        Text(f"OK in {summary.seconds:g} s", style="bold green")
        if summary.ok
        else Text("\n".join(f"FAILED: {line}" for line in summary.failures), style="bold red")
    )
    return Group(
        names_result(progress.scenarios["names"]),
        r_at_1_table(BY_PAIRS.format("Vectors", "tenants"), summary.r_at_1),
        r_at_1_table(BY_PAIRS.format("Names", "languages"), summary.names.r_at_1),
        facts,
        Text(SYNTHETIC, style="italic"),
        result,
    )


def _facts(summary: Summary, progress: DemoProgress) -> dict[str, str]:
    letters = ", ".join(f"{n} {reason}" for reason, n in summary.dead_letters.items())
    tenants, names = progress.scenarios["tenants"], progress.scenarios["names"]
    return {
        "events": f"{summary.events} good ones of {summary.tenants} tenants, "
        f"{summary.names.events} of {summary.names.languages} languages",
        "mappings": f"{summary.mappings_published} of tenants, "
        f"{summary.names.mappings_published} of languages; all content hashes verified",
        "dead letters": letters or "none",
        "event to publish": f"tenants {_quantiles(summary.event_to_publish_ms)}; names "
        f"{_quantiles(summary.names.event_to_publish_ms)} "
        "(from a mapping's newest event to its record)",
        "  on /metrics": f"tenants {_worker_quantiles(tenants)}; names {_worker_quantiles(names)} "
        "(from its oldest new event to Kafka's acknowledgement)",
    }


def _headline(progress: DemoProgress, seconds: float) -> Text:
    done = progress.events_read / progress.planned
    text = Text("adaptd demo  ", style="bold", no_wrap=True)
    text.append("━" * round(BAR_CELLS * done), style="green")
    text.append("━" * (BAR_CELLS - round(BAR_CELLS * done)), style="dim")
    text.append(f"  {progress.events_read}/{progress.planned} events  {seconds:.0f} s", style="")
    return text.append("  (synthetic tenants)", style="dim")


def _r_at_1(progress: DemoProgress) -> RenderableType:
    return r_at_1_table(
        BY_PAIRS.format("Vectors", "tenants"), progress.scenarios["tenants"].scores.by_pairs()
    )


def _worker(scenario: ScenarioProgress) -> Text:
    if scenario.scraped is None:
        return Text(f"{scenario.name}: its worker is starting", style="dim")
    ready = "ready" if scenario.scraped.ready else f"not ready ({scenario.scraped.why})"
    return Text(
        f"{scenario.name}: {ready}, lag {_count(scenario.figure('lag'))}, "
        f"{_count(scenario.figure('accepted'))} events, "
        f"{_count(scenario.figure('published'))} mappings, {_worker_quantiles(scenario)}",
        no_wrap=True,
        overflow="ellipsis",
    )


def _dead_letters(progress: DemoProgress) -> list[Text]:
    yet = "" if progress.dead_letters else " none yet"
    newest = progress.dead_letters[-len(MALFORMED_KINDS) :]
    return [Text(f"dead letters:{yet}", style="dim"), *map(dead_letter_line, newest)]


def _dead_letter_reasons(progress: DemoProgress) -> Text:
    count = len(progress.dead_letters)
    line = Text(f"dead letters: {count}  ", style="dim", no_wrap=True, overflow="ellipsis")
    return line.append(", ".join(letter.reason for letter in progress.dead_letters), style="red")


def dead_letter_line(letter: DeadLetterReceived) -> Text:
    """Returns a dead letter's stream, reason and detail in one line."""
    line = Text(f"  {letter.stream}  ", no_wrap=True, overflow="ellipsis")
    line.append(letter.reason, style="red")
    return line.append(f"  {letter.detail}", style="dim")


def _quantiles(latency: Latency) -> str:
    return f"p50 {ms(latency['p50'])}, p99 {ms(latency['p99'])}"


def _worker_quantiles(scenario: ScenarioProgress) -> str:
    return f"p50 {ms(1000 * scenario.figure('p50_s'))}, p99 {ms(1000 * scenario.figure('p99_s'))}"


def _count(number: float) -> str:
    return "-" if math.isnan(number) else f"{number:.0f}"


# ---- when it is shown


class Display(Protocol):
    """Shows the run's progress, at times of its own choice."""

    def refresh(self, progress: DemoProgress, services: str, seconds: float) -> None:
        """Show the progress if it is time. `seconds`: since the start of the demo."""

    def close(self) -> None:
        """Restore the terminal."""


def display_on(console: Console) -> Display:
    """Returns a live display for a terminal, a plain one otherwise."""
    return LiveDisplay(console) if console.is_terminal else PlainDisplay(console)


class LiveDisplay:
    """Redraws one screen, five times a second."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._drawn_at = float("-inf")
        self._live = Live(console=console, auto_refresh=False, transient=True)

    def refresh(self, progress: DemoProgress, services: str, seconds: float) -> None:
        """Redraw, unless the screen was drawn a moment ago."""
        if seconds - self._drawn_at < REDRAW_EVERY_S:
            return
        self._drawn_at = seconds
        self._live.start()
        self._live.update(live(progress, services, seconds, self._console.height), refresh=True)

    def close(self) -> None:
        """Restore the terminal."""
        self._live.stop()


class PlainDisplay:
    """Writes a line every three seconds, and each dead letter when it arrives."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._written_at = float("-inf")
        self._letters = 0

    def refresh(self, progress: DemoProgress, services: str, seconds: float) -> None:
        """Write what is new."""
        for letter in progress.dead_letters[self._letters :]:
            self._write(str(dead_letter_line(letter)).strip())
        self._letters = len(progress.dead_letters)
        if progress.events_read and seconds - self._written_at >= LINE_EVERY_S:
            self._written_at = seconds
            self._write(progress_line(progress, seconds))

    def _write(self, line: str) -> None:
        self._console.print(line, soft_wrap=True, highlight=False, markup=False)

    def close(self) -> None:
        """Do nothing: lines stay."""
