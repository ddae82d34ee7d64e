"""The tables of the demo's screen; each fits 80 columns. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

from rich.console import Group
from rich.table import Table
from rich.text import Text

from daemon.demo.progress import ScenarioProgress, StreamProgress
from daemon.demo.reports import EventScored
from daemon.demo.scenarios import LANGUAGES, UNSEEN_LANGUAGES
from daemon.demo.scores import BUCKETS, CANDIDATES, METHODS, RECENT, Recall

SHOWN = {"adapted": "adapted", "theta": "θ", "ridge": "ridge"}
STYLES = {"adapted": "bold green", "theta": "yellow", "ridge": "cyan"}
BAR_CELLS = 7
UNSEEN_MARK = "°"
NEWEST_NOTE = "R@1 of each {}'s newest {} events among {} {}"
UNSEEN_NOTE = f"{UNSEEN_MARK} neither an encoder nor θ was trained on this language"


def tenants_table(scenario: ScenarioProgress, rows: int) -> Group:
    """Returns the table of at most `rows` tenants and of the mean of all."""
    table = _table("tenant", "events", "support", "outcome")
    table.add_column("query loss", justify="right", min_width=13)
    _add_methods(table)
    table.add_column("latency", justify="right", min_width=8)
    for name, stream in list(scenario.streams.items())[:rows]:
        recent = scenario.scores.recent(name)
        table.add_row(name, *_state(stream), _losses(stream), *_cells(recent), _latency(stream))
    mean = _cells(scenario.scores.recent_mean())
    table.add_row(f"mean of {len(scenario.streams)}", *[""] * 4, *mean, "", style="bold")
    hidden = len(scenario.streams) - rows
    cut = f" ({hidden} do not fit)" if hidden > 0 else ""
    note = NEWEST_NOTE.format("tenant", RECENT, CANDIDATES, "vectors")
    return Group(table, _note(note + cut))


def names_table(scenario: ScenarioProgress) -> Group:
    """Returns the table of all languages, with R@1 of their newest events."""
    recent = {name: scenario.scores.recent(name) for name in scenario.streams}
    table = _names_table(scenario, recent, scenario.scores.recent_mean())
    note = NEWEST_NOTE.format("language", RECENT, CANDIDATES, "names")
    return Group(table, _note(f"{note}; {UNSEEN_MARK} not trained on"))


def names_result(scenario: ScenarioProgress) -> Group:
    """Returns the table of all languages, with R@1 of all their events."""
    recall = {name: scenario.scores.of_stream(name) for name in scenario.streams}
    table = _names_table(scenario, recall, scenario.scores.mean())
    title = _title("Names: R@1 by language, and what was found for the last picture")
    return Group(title, table, _note(UNSEEN_NOTE))


def _names_table(scenario: ScenarioProgress, recall: Mapping[str, Recall], mean: Recall) -> Table:
    table = _table("language", "events", "support", "outcome")
    _add_methods(table)
    # the last column, because terminals disagree on an emoji's width
    table.add_column("picture → name found", no_wrap=True, overflow="ellipsis")
    for name, stream in scenario.streams.items():
        called = LANGUAGES[name] + (UNSEEN_MARK if name in UNSEEN_LANGUAGES else "")
        table.add_row(called, *_state(stream), *_cells(recall[name]), example(stream.last_scored))
    table.add_row(f"mean of {len(scenario.streams)}", "", "", "", *_cells(mean), "", style="bold")
    return table


def r_at_1_table(title: str, by_pairs: Mapping[str, Recall]) -> Group:
    """Returns the table of R@1 by number of support pairs, with bars."""
    table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False)
    table.add_column("pairs", style="dim", min_width=9)
    for size in BUCKETS:
        table.add_column(_range(size), min_width=6 + BAR_CELLS, no_wrap=True)
    for method in METHODS:
        cells = [f"{_share(share)} {bar(share)}" for share in by_pairs[method].values()]
        table.add_row(SHOWN[method], *cells, style=STYLES[method])
    return Group(_title(title), table)


def bar(share: float | None, cells: int = BAR_CELLS) -> str:
    """Returns a bar of at most `cells` cells, in eighths; it is full from a share of 0.5 on."""
    eighths = round(min(1.0, 2.0 * (share or 0.0)) * cells * 8)
    full, rest = divmod(eighths, 8)
    return "█" * full + (" ▏▎▍▌▋▊▉"[rest] if rest else "")


def example(scored: EventScored | None) -> Text:
    """Returns whether the adapted mapping was right, the picture's emoji, and what it found."""
    if scored is None:
        return Text("")
    right = scored.hits["adapted"]
    text = Text("✓ " if right else "✗ ", style="green" if right else "red")
    return text.append(f"{scored.shown} → {scored.found}", style="default")


def mean_cells(recall: Recall) -> str:
    """Returns the R@1 of all methods in one line."""
    return ", ".join(f"{SHOWN[method]} {_share(recall[method]).strip()}" for method in METHODS)


def ms(value: float | None) -> str:
    """Returns milliseconds as text, a dash for none."""
    return "-" if value is None or math.isnan(value) else f"{value:.0f} ms"


def _title(line: str) -> Text:
    return Text(line, no_wrap=True, overflow="ellipsis")


def _note(line: str) -> Text:
    return Text(line, style="dim italic", no_wrap=True, overflow="ellipsis")


def _table(first: str, *counts: str) -> Table:
    """Returns an empty table: a column of names, columns of counts, and one of outcomes."""
    table = Table(box=None, padding=(0, 1, 0, 0), header_style="dim", pad_edge=False)
    *numbers, outcome = counts
    table.add_column(first, no_wrap=True, min_width=10)
    for heading in numbers:
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column(outcome, no_wrap=True, min_width=10)
    return table


def _add_methods(table: Table) -> None:
    for method in METHODS:
        width = max(len(SHOWN[method]), len(_share(None)))
        table.add_column(SHOWN[method], justify="right", style=STYLES[method], min_width=width)


def _state(stream: StreamProgress) -> list[str]:
    if stream.newest is None:
        return [str(stream.events_read), "", ""]
    return [str(stream.events_read), str(stream.support_pairs), stream.newest.outcome]


def _losses(stream: StreamProgress) -> str:
    newest = stream.newest
    return "" if newest is None else f"{newest.loss_before:.3f} → {newest.loss_after:.3f}"


def _latency(stream: StreamProgress) -> str:
    return "" if stream.newest is None else ms(stream.newest.latency_ms)


def _cells(recall: Recall) -> Iterable[str]:
    return (_share(recall[method]) for method in METHODS)


def _share(share: float | None) -> str:
    return "  -  " if share is None else f"{share:.3f}"


def _range(size: int) -> str:
    return f"{size}" if size == BUCKETS[-1] else f"{size}-{2 * size - 1}"
