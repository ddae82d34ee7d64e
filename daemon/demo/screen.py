"""What a person sees of the demo: tables made from a board or a summary. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from daemon.demo.board import Board, Tenant
from daemon.demo.malformed import KINDS
from daemon.demo.score import METHODS
from daemon.demo.tally import BUCKETS, RECENT
from daemon.demo.verdict import Summary

SHOWN = {"adapted": "adapted", "theta": "θ", "ridge": "ridge"}
STYLES = {"adapted": "bold green", "theta": "yellow", "ridge": "cyan"}
SYNTHETIC = (
    "The tenants' embedding spaces are synthetic (rotations of one embedding of the emoji's names);"
    " the pictures are twemoji's, which θ has never seen."
)
BAR_CELLS = 7
OTHER_LINES = 12 + len(KINDS)
"""Lines of the live screen besides the tenants' own."""


def live(board: Board, services: str, seconds: float, height: int) -> RenderableType:
    """The screen while the demo runs, in at most `height` lines."""
    return Group(
        _headline(board, seconds),
        Text(services, style="dim", no_wrap=True, overflow="ellipsis"),
        _tenants(board, max(1, height - OTHER_LINES)),
        r_at_1_table(board.tally.by_pairs()),
        _daemon(board),
        *_dead_letters(board),
    )


def progress_line(board: Board, seconds: float) -> str:
    """The same in one line, for where there is no terminal."""
    scores = board.tally.recent_mean()
    mapped = sum(tenant.newest is not None for tenant in board.tenants.values())
    return (
        f"{seconds:3.0f} s  {board.events_seen}/{board.plan.events} events, "
        f"{mapped}/{board.plan.tenants} tenants mapped, {board.mappings} mappings, R@1 "
        + ", ".join(f"{SHOWN[method]} {_share(scores[method])}" for method in METHODS)
        + f", lag {_count(board.figure('lag'))}, {len(board.dead_letters)} dead letters"
    )


def summary_table(summary: Summary, board: Board) -> RenderableType:
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
    return Group(r_at_1_table(summary.r_at_1), facts, Text(SYNTHETIC, style="italic"), verdict)


def _facts(summary: Summary, board: Board) -> dict[str, str]:
    letters = ", ".join(f"{n} {reason}" for reason, n in summary.dead_letters.items())
    ms = summary.event_to_publish_ms
    return {
        "services": summary.services,
        "events": f"{summary.events} good ones of {summary.tenants} tenants",
        "mappings": f"{summary.mappings_published} published, content hashes verified",
        "dead letters": letters or "none",
        "event to publish": f"p50 {_ms(ms['p50'])}, p99 {_ms(ms['p99'])}: "
        "from its newest event's record time to the mapping's",
        "  on /metrics": f"p50 {_ms(1000 * board.figure('p50_s'))}, "
        f"p99 {_ms(1000 * board.figure('p99_s'))}: "
        "from its oldest new event's to Kafka's acknowledgement",
    }


def r_at_1_table(by_pairs: Mapping[str, Mapping[str, float | None]]) -> Table:
    """R@1 by number of support pairs, with bars."""
    title = "R@1 by support pairs, each event scored before it is learnt from; mean over tenants"
    table = Table(title=title, title_justify="left", title_style="", box=None, padding=(0, 1))
    table.add_column("pairs", style="dim", min_width=9)
    for size in BUCKETS:
        table.add_column(_range(size), min_width=6 + BAR_CELLS, no_wrap=True)
    for method in METHODS:
        cells = [f"{_share(share)} {bar(share)}" for share in by_pairs[method].values()]
        table.add_row(SHOWN[method], *cells, style=STYLES[method])
    return table


def bar(share: float | None, cells: int = BAR_CELLS) -> str:
    """A bar of at most `cells` cells, drawn in eighths; half of all is a full bar."""
    eighths = round(min(1.0, 2.0 * (share or 0.0)) * cells * 8)
    full, rest = divmod(eighths, 8)
    return "█" * full + (" ▏▎▍▌▋▊▉"[rest] if rest else "")


def _range(size: int) -> str:
    return f"{size}" if size == BUCKETS[-1] else f"{size}-{2 * size - 1}"


def _headline(board: Board, seconds: float) -> Text:
    done = board.events_seen / board.plan.events
    cells = 24
    text = Text("adaptd demo  ", style="bold", no_wrap=True)
    text.append("━" * round(cells * done), style="green")
    text.append("━" * (cells - round(cells * done)), style="dim")
    text.append(f"  {board.events_seen}/{board.plan.events} events  {seconds:.0f} s", style="")
    text.append("  (synthetic tenants, twemoji pictures)", style="dim")
    return text


def _tenants(board: Board, rows: int) -> Table:
    table = Table(box=None, padding=(0, 1), header_style="dim", pad_edge=False)
    table.add_column("tenant", no_wrap=True, min_width=10)
    for heading in ("pairs", "support"):
        table.add_column(heading, justify="right")
    table.add_column("outcome", min_width=10)
    table.add_column("loss θ → θ′", justify="right", min_width=13)
    for method in METHODS:
        table.add_column(SHOWN[method], justify="right", style=STYLES[method], min_width=7)
    table.add_column("latency", justify="right", min_width=8)
    shown = list(board.tenants.items())
    hidden = len(shown) - rows if len(shown) > rows else 0
    for name, tenant in shown[: len(shown) - hidden]:
        table.add_row(name, *_tenant_cells(tenant, board.tally.recent(name)))
    mean = board.tally.recent_mean()
    table.add_row(
        f"mean of {len(shown)}",
        "",
        "",
        "",
        "",
        *(_share(mean[m]) for m in METHODS),
        "",
        style="bold",
    )
    cut = f" ({hidden} tenants do not fit)" if hidden else ""
    table.caption = f"adapted, θ, ridge: R@1 of each tenant's newest {RECENT} events{cut}"
    table.caption_justify = "left"
    return table


def _tenant_cells(tenant: Tenant, recent: Mapping[str, float | None]) -> list[str]:
    newest = tenant.newest
    shares = [_share(recent[method]) for method in METHODS]
    if newest is None:
        return [str(tenant.pairs), "", "", "", *shares, ""]
    return [
        str(tenant.pairs),
        str(tenant.support_pairs),
        newest.outcome,
        f"{newest.loss_before:.3f} → {newest.loss_after:.3f}",
        *shares,
        _ms(newest.latency_ms),
    ]


def _daemon(board: Board) -> Text:
    if board.scraped is None:
        return Text("daemon: starting", style="dim")
    ready = "ready" if board.scraped.ready else f"not ready ({board.scraped.why})"
    return Text(
        f"/metrics: {ready}, lag {_count(board.figure('lag'))}, "
        f"{_count(board.figure('turns'))} turns, {_count(board.figure('accepted'))} events, "
        f"{_count(board.figure('published'))} mappings, event to publish "
        f"p50 {_ms(1000 * board.figure('p50_s'))}, p99 {_ms(1000 * board.figure('p99_s'))}",
        no_wrap=True,
        overflow="ellipsis",
    )


def _dead_letters(board: Board) -> list[Text]:
    yet = "" if board.dead_letters else " none yet"
    lines = [Text(f"dead letters:{yet}", style="dim")]
    for letter in board.dead_letters[-len(KINDS) :]:
        lines.append(dead_letter_line(letter.tenant, letter.reason, letter.detail))
    return lines


def dead_letter_line(tenant: str, reason: str, detail: str) -> Text:
    """One dead letter."""
    line = Text(f"  {tenant}  ", no_wrap=True, overflow="ellipsis")
    line.append(reason, style="red")
    line.append(f"  {detail}", style="dim")
    return line


def _share(share: float | None) -> str:
    return "  -  " if share is None else f"{share:.3f}"


def _count(number: float) -> str:
    return "-" if math.isnan(number) else f"{number:.0f}"


def _ms(ms: float | None) -> str:
    return "-" if ms is None or math.isnan(ms) else f"{ms:.0f} ms"
