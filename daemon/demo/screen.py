"""What a person sees of the demo while it runs and at its end. Pure."""

from __future__ import annotations

import math

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from daemon.demo.board import Board, PartBoard
from daemon.demo.malformed import KINDS
from daemon.demo.news import DeadLettered
from daemon.demo.tables import (
    mean_cells,
    ms,
    names_result,
    names_table,
    r_at_1_table,
    tenants_table,
)
from daemon.demo.verdict import Latency, Summary

SYNTHETIC = (
    "The tenants' embedding spaces are synthetic (rotations of one embedding of the emoji's names);"
    " the pictures are twemoji's, which θ has never seen, and the names are Unicode's own."
)
BY_PAIRS = "{}: R@1 by support pairs, scored before learnt from; mean over {}"
BAR_CELLS = 16
FEWEST_TENANTS = 8
"""A terminal too low for these and everything else goes without details."""


def live(board: Board, services: str, seconds: float, height: int) -> RenderableType:
    """The screen while the demo runs, in at most `height` lines of 80 columns."""
    tenants, names = board.parts["tenants"], board.parts["names"]
    around = 2 + _table_lines(0) + _table_lines(len(names.streams)) + len(board.parts)
    details = 5 + 1 + len(KINDS)
    roomy = height >= around + details + FEWEST_TENANTS
    rows = max(1, height - around - (details if roomy else 1))
    return Group(
        _headline(board, seconds),
        Text(services, style="dim", no_wrap=True, overflow="ellipsis"),
        tenants_table(tenants, rows),
        names_table(names),
        *([_r_at_1(board)] if roomy else []),
        *map(_worker, board.parts.values()),
        *(_dead_letters(board) if roomy else [_dead_letter_reasons(board)]),
    )


def _table_lines(rows: int) -> int:
    """With a heading, the mean and a caption."""
    return rows + 3


def progress_line(board: Board, seconds: float) -> str:
    """The same in one line, for where there is no terminal."""
    parts = (
        f"{part.name}: {part.mapped}/{len(part.streams)} mapped, {part.mappings} mappings, "
        f"R@1 {mean_cells(part.tally.recent_mean())}, lag {_count(part.figure('lag'))}"
        for part in board.parts.values()
    )
    return (
        f"{seconds:3.0f} s  {board.events_seen}/{board.planned} events; "
        f"{'; '.join(parts)}; {len(board.dead_letters)} dead letters"
    )


def summary_screen(summary: Summary, board: Board) -> RenderableType:
    """The end."""
    facts = Table.grid(padding=(0, 2))
    facts.add_column(style="dim", no_wrap=True)
    facts.add_column()
    for name, text in _facts(summary, board).items():
        facts.add_row(name, text)
    verdict = (
        Text(f"OK in {summary.seconds:g} s", style="bold green")
        if summary.ok
        else Text("\n".join(f"FAILED: {line}" for line in summary.failures), style="bold red")
    )
    return Group(
        r_at_1_table(BY_PAIRS.format("Vectors", "tenants"), summary.r_at_1),
        r_at_1_table(BY_PAIRS.format("Names", "languages"), summary.names.r_at_1),
        names_result(board.parts["names"]),
        facts,
        Text(SYNTHETIC, style="italic"),
        verdict,
    )


def _facts(summary: Summary, board: Board) -> dict[str, str]:
    letters = ", ".join(f"{n} {reason}" for reason, n in summary.dead_letters.items())
    tenants, names = board.parts["tenants"], board.parts["names"]
    return {
        "services": summary.services,
        "events": f"{summary.events} good ones of {summary.tenants} tenants, "
        f"{summary.names.events} of {summary.names.languages} languages",
        "mappings": f"{summary.mappings_published} and {summary.names.mappings_published} "
        "published, content hashes verified",
        "dead letters": letters or "none",
        "event to publish": f"{_quantiles(summary.event_to_publish_ms)}; names "
        f"{_quantiles(summary.names.event_to_publish_ms)}: "
        "from its newest event's record time to the mapping's",
        "  on /metrics": f"{_worker_quantiles(tenants)}; names {_worker_quantiles(names)}: "
        "from its oldest new event's to Kafka's acknowledgement",
    }


def _headline(board: Board, seconds: float) -> Text:
    done = board.events_seen / board.planned
    text = Text("adaptd demo  ", style="bold", no_wrap=True)
    text.append("━" * round(BAR_CELLS * done), style="green")
    text.append("━" * (BAR_CELLS - round(BAR_CELLS * done)), style="dim")
    text.append(f"  {board.events_seen}/{board.planned} events  {seconds:.0f} s", style="")
    return text.append("  (synthetic tenants)", style="dim")


def _r_at_1(board: Board) -> RenderableType:
    return r_at_1_table(
        BY_PAIRS.format("Vectors", "tenants"), board.parts["tenants"].tally.by_pairs()
    )


def _worker(part: PartBoard) -> Text:
    if part.scraped is None:
        return Text(f"{part.name}: the worker is starting", style="dim")
    ready = "ready" if part.scraped.ready else f"not ready ({part.scraped.why})"
    return Text(
        f"{part.name}: {ready}, lag {_count(part.figure('lag'))}, "
        f"{_count(part.figure('accepted'))} events, {_count(part.figure('published'))} mappings, "
        f"{_worker_quantiles(part)}",
        no_wrap=True,
        overflow="ellipsis",
    )


def _dead_letters(board: Board) -> list[Text]:
    yet = "" if board.dead_letters else " none yet"
    lines = [Text(f"dead letters:{yet}", style="dim")]
    return lines + [dead_letter_line(letter) for letter in board.dead_letters[-len(KINDS) :]]


def _dead_letter_reasons(board: Board) -> Text:
    count = len(board.dead_letters)
    line = Text(f"{count} dead letters  ", style="dim", no_wrap=True, overflow="ellipsis")
    return line.append(", ".join(letter.reason for letter in board.dead_letters), style="red")


def dead_letter_line(letter: DeadLettered) -> Text:
    """One dead letter."""
    line = Text(f"  {letter.stream}  ", no_wrap=True, overflow="ellipsis")
    line.append(letter.reason, style="red")
    return line.append(f"  {letter.detail}", style="dim")


def _quantiles(latency: Latency) -> str:
    return f"p50 {ms(latency['p50'])}, p99 {ms(latency['p99'])}"


def _worker_quantiles(part: PartBoard) -> str:
    return f"p50 {ms(1000 * part.figure('p50_s'))}, p99 {ms(1000 * part.figure('p99_s'))}"


def _count(number: float) -> str:
    return "-" if math.isnan(number) else f"{number:.0f}"
