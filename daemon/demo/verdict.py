"""What the demo found, as one object, and whether that is good. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import msgspec
import numpy as np

from daemon.demo.board import Board, some
from daemon.demo.malformed import KINDS

ENOUGH_PAIRS = 16
"""From so many support pairs on, the adapted mappings must beat θ."""

Latency = dict[str, float | None]


class Summary(msgspec.Struct, frozen=True, kw_only=True):
    """The demo's result; `adaptd demo --json` prints it."""

    services: str
    tenants: int
    events: int
    """Good ones, produced."""
    mappings_published: int
    """That the subscriber has read and verified."""
    dead_letters: dict[str, int]
    """By reason."""
    r_at_1: dict[str, dict[str, float | None]]
    """By method and number of support pairs, prequential, mean over tenants."""
    event_to_publish_ms: Latency
    """From the record time of the newest event in a mapping to the mapping's own record time."""
    seconds: float
    ok: bool
    failures: list[str]


def summarise(board: Board, services: str, seconds: float, faults: list[str]) -> Summary:
    """`faults`: what else went wrong, in the parent's eyes."""
    failures = [*faults, *failed_conditions(board)]
    return Summary(
        services=services,
        tenants=board.plan.tenants,
        events=board.produced,
        mappings_published=board.mappings,
        dead_letters=dict(Counter(letter.reason for letter in board.dead_letters)),
        r_at_1={
            method: {
                size: None if share is None else round(share, 4) for size, share in by_size.items()
            }
            for method, by_size in board.tally.by_pairs().items()
        },
        event_to_publish_ms=_latency(board.latencies_ms),
        seconds=round(seconds, 1),
        ok=not failures,
        failures=failures,
    )


def failed_conditions(board: Board) -> Iterator[str]:
    """One sentence for every promise of the demo that was not kept."""
    yield from _every_tenant_has_a_mapping(board)
    yield from _adapted_beats_theta(board)
    yield from _every_good_event_counts(board)
    yield from _every_malformed_event_is_a_dead_letter(board)
    yield from (f"a published mapping is not valid: {detail}" for detail in board.refused)


def _every_tenant_has_a_mapping(board: Board) -> Iterator[str]:
    without = [name for name, tenant in board.tenants.items() if tenant.newest is None]
    if without:
        yield f"no mapping for {some(without)}"


def _adapted_beats_theta(board: Board) -> Iterator[str]:
    scores = board.tally.from_pairs(ENOUGH_PAIRS)
    adapted, theta = scores["adapted"], scores["theta"]
    if adapted is None or theta is None:
        yield f"nothing was scored at {ENOUGH_PAIRS} or more pairs"
    elif adapted <= theta:
        yield (
            f"at {ENOUGH_PAIRS} or more pairs the adapted mappings (R@1 {adapted:.3f}) do not "
            f"beat θ ({theta:.3f})"
        )


def _every_good_event_counts(board: Board) -> Iterator[str]:
    wanted = board.plan.events
    counts = {
        "the producer produced": board.produced,
        "the subscriber read": board.events_seen,
        "the daemon accepted": board.figure("accepted"),
        "the daemon took into windows": board.figure("pairs_new"),
    }
    for what, count in counts.items():
        if count != wanted:
            yield f"{what} {count:g} of {wanted} good events"
    if behind := board.behind():
        yield f"the newest mapping does not reflect the last event of {some(behind)}"


def _every_malformed_event_is_a_dead_letter(board: Board) -> Iterator[str]:
    if len(board.injected) != len(KINDS):
        yield f"{len(board.injected)} of {len(KINDS)} malformed events were injected"
    reasons = {(letter.partition, letter.offset): letter.reason for letter in board.dead_letters}
    for event in board.injected:
        reason = reasons.pop((event.partition, event.offset), None)
        if reason is None:
            yield f"no dead letter for {event.what}"
        elif reason != event.reason:
            yield f"the dead letter for {event.what} says {reason!r}, not {event.reason!r}"
    if reasons:
        yield f"{len(reasons)} good events became dead letters: {sorted(set(reasons.values()))}"


def _latency(latencies_ms: list[float]) -> Latency:
    if not latencies_ms:
        return {"p50": None, "p99": None}
    p50, p99 = np.percentile(latencies_ms, [50, 99])
    return {"p50": round(float(p50), 1), "p99": round(float(p99), 1)}
