"""The demo's tables, made from a board or a summary; each fits 80 columns. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

from rich.console import Group
from rich.table import Table
from rich.text import Text

from daemon.demo.board import PartBoard, Stream
from daemon.demo.names import LANGUAGES, UNSEEN
from daemon.demo.news import Scored
from daemon.demo.score import CANDIDATES, METHODS
from daemon.demo.tally import BUCKETS, RECENT, Shares

SHOWN = {"adapted": "adapted", "theta": "θ", "ridge": "ridge"}
STYLES = {"adapted": "bold green", "theta": "yellow", "ridge": "cyan"}
BAR_CELLS = 7
UNSEEN_MARK = "°"
UNSEEN_NOTE = f"{UNSEEN_MARK} no encoder and no θ was trained on this language"


def tenants_table(part: PartBoard, rows: int) -> Group:
    """At most `rows` tenants, and the mean of all."""
    table = _table("tenant", "events", "support", "outcome")
    table.add_column("query loss", justify="right", min_width=13)
    _add_methods(table)
    table.add_column("latency", justify="right", min_width=8)
    for name, stream in list(part.streams.items())[:rows]:
        recent = part.tally.recent(name)
        table.add_row(name, *_state(stream), _losses(stream), *_cells(recent), _latency(stream))
    mean = _cells(part.tally.recent_mean())
    table.add_row(f"mean of {len(part.streams)}", *[""] * 4, *mean, "", style="bold")
    hidden = len(part.streams) - rows
    cut = f" ({hidden} do not fit)" if hidden > 0 else ""
    return Group(
        table, _note(f"R@1 of each tenant's newest {RECENT} events among {CANDIDATES} vectors{cut}")
    )


def names_table(part: PartBoard) -> Group:
    """Every language as it stands, with the event judged last."""
    recent = {name: part.tally.recent(name) for name in part.streams}
    table = _names_table(part, recent, part.tally.recent_mean())
    return Group(table, _note(f"the same among {CANDIDATES} names; {UNSEEN_NOTE}"))


def names_result(part: PartBoard) -> Group:
    """The same over the whole run."""
    shares = {name: part.tally.of(name) for name in part.streams}
    table = _names_table(part, shares, part.tally.mean())
    title = _title("Names: R@1 by language, and what was found for the last picture")
    return Group(title, table, _note(UNSEEN_NOTE))


def _names_table(part: PartBoard, shares: Mapping[str, Shares], mean: Shares) -> Table:
    table = _table("language", "events", "support", "outcome")
    _add_methods(table)
    # last, for terminals do not agree on how wide an emoji is
    table.add_column("picture → name found", no_wrap=True, overflow="ellipsis")
    for name, stream in part.streams.items():
        called = LANGUAGES[name] + (UNSEEN_MARK if name in UNSEEN else "")
        table.add_row(called, *_state(stream), *_cells(shares[name]), example(stream.example))
    table.add_row(f"mean of {len(part.streams)}", "", "", "", *_cells(mean), "", style="bold")
    return table


def r_at_1_table(title: str, by_pairs: Mapping[str, Shares]) -> Group:
    """R@1 by number of support pairs, with bars."""
    table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False)
    table.add_column("pairs", style="dim", min_width=9)
    for size in BUCKETS:
        table.add_column(_range(size), min_width=6 + BAR_CELLS, no_wrap=True)
    for method in METHODS:
        cells = [f"{_share(share)} {bar(share)}" for share in by_pairs[method].values()]
        table.add_row(SHOWN[method], *cells, style=STYLES[method])
    return Group(_title(title), table)


def bar(share: float | None, cells: int = BAR_CELLS) -> str:
    """A bar of at most `cells` cells, drawn in eighths; half of all is a full bar."""
    eighths = round(min(1.0, 2.0 * (share or 0.0)) * cells * 8)
    full, rest = divmod(eighths, 8)
    return "█" * full + (" ▏▎▍▌▋▊▉"[rest] if rest else "")


def example(judged: Scored | None) -> Text:
    """The picture's emoji, what the adapted mapping found, and whether that is right."""
    if judged is None:
        return Text("")
    right = judged.hits["adapted"]
    text = Text("✓ " if right else "✗ ", style="green" if right else "red")
    return text.append(f"{judged.shown} → {judged.found}", style="default")


def mean_cells(shares: Shares) -> str:
    """One line for all methods."""
    return ", ".join(f"{SHOWN[method]} {_share(shares[method])}" for method in METHODS)


def ms(value: float | None) -> str:
    """Milliseconds, or a dash."""
    return "-" if value is None or math.isnan(value) else f"{value:.0f} ms"


def _title(line: str) -> Text:
    return Text(line, no_wrap=True, overflow="ellipsis")


def _note(line: str) -> Text:
    return Text(line, style="dim italic", no_wrap=True, overflow="ellipsis")


def _table(first: str, *counts: str) -> Table:
    """One with a column for names, some for numbers, and one for the gate's outcome."""
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


def _state(stream: Stream) -> list[str]:
    if stream.newest is None:
        return [str(stream.pairs), "", ""]
    return [str(stream.pairs), str(stream.support_pairs), stream.newest.outcome]


def _losses(stream: Stream) -> str:
    newest = stream.newest
    return "" if newest is None else f"{newest.loss_before:.3f} → {newest.loss_after:.3f}"


def _latency(stream: Stream) -> str:
    return "" if stream.newest is None else ms(stream.newest.latency_ms)


def _cells(shares: Shares) -> Iterable[str]:
    return (_share(shares[method]) for method in METHODS)


def _share(share: float | None) -> str:
    return "  -  " if share is None else f"{share:.3f}"


def _range(size: int) -> str:
    return f"{size}" if size == BUCKETS[-1] else f"{size}-{2 * size - 1}"
