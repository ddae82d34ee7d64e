"""What the demo promises, and which of it was not kept: a sentence for each failure. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterator

from daemon.demo.board import Board, PartBoard, some
from daemon.demo.malformed import KINDS

ENOUGH_PAIRS = 16
"""From so many support pairs on, adapted mappings are compared with θ."""
NOISE = 3.0
"""Standard errors; chance alone exceeds it, to one side, once in 700 runs."""


def failed_conditions(board: Board) -> Iterator[str]:
    """One sentence for every promise of the demo that was not kept."""
    for part in board.parts.values():
        yield from _every_stream_has_a_mapping(part)
    yield from _adapted_beats_theta(board.parts["tenants"])
    yield from _adapted_is_no_worse_than_theta(board.parts["names"])
    for part in board.parts.values():
        yield from _every_good_event_counts(part)
    yield from _every_malformed_event_is_a_dead_letter(board)
    yield from (f"a published mapping is not valid: {detail}" for detail in board.refused)


def _every_stream_has_a_mapping(part: PartBoard) -> Iterator[str]:
    without = [name for name, stream in part.streams.items() if stream.newest is None]
    if without:
        yield f"{part.name}: no mapping for {some(without)}"


def _adapted_beats_theta(part: PartBoard) -> Iterator[str]:
    scores = part.tally.from_pairs(ENOUGH_PAIRS)
    adapted, theta = scores["adapted"], scores["theta"]
    if adapted is None or theta is None:
        yield f"{part.name}: nothing was scored at {ENOUGH_PAIRS} or more pairs"
    elif adapted <= theta:
        yield (
            f"{part.name}: at {ENOUGH_PAIRS} or more pairs the adapted mappings (R@1 "
            f"{adapted:.3f}) do not beat θ ({theta:.3f})"
        )


def _adapted_is_no_worse_than_theta(part: PartBoard) -> Iterator[str]:
    """θ may know the language already: then there is little to win. Both are judged on the same
    events, so only those count on which they disagree (McNemar 1947)."""
    if not part.tally.judged(ENOUGH_PAIRS):
        yield f"{part.name}: nothing was scored at {ENOUGH_PAIRS} or more pairs"
    won, lost = part.tally.disagreements("adapted", "theta", ENOUGH_PAIRS)
    if lost - won > NOISE * math.sqrt(won + lost):
        yield (
            f"{part.name}: at {ENOUGH_PAIRS} or more pairs the adapted mappings are worse than θ: "
            f"of {won + lost} events that only one got right, {lost} are θ's"
        )


def _every_good_event_counts(part: PartBoard) -> Iterator[str]:
    counts = {
        "the producer produced": part.produced,
        "the subscriber read": part.events_seen,
        "the daemon accepted": part.figure("accepted"),
        "the daemon took into windows": part.figure("pairs_new"),
    }
    for what, count in counts.items():
        if count != part.planned:
            yield f"{part.name}: {what} {count:g} of {part.planned} good events"
    if behind := part.behind():
        yield f"{part.name}: the newest mapping does not reflect the last event of {some(behind)}"


def _every_malformed_event_is_a_dead_letter(board: Board) -> Iterator[str]:
    if len(board.injected) != len(KINDS):
        yield f"{len(board.injected)} of {len(KINDS)} malformed events were injected"
    reasons = {(d.part, d.partition, d.offset): d.reason for d in board.dead_letters}
    for event in board.injected:
        reason = reasons.pop((event.part, event.partition, event.offset), None)
        if reason is None:
            yield f"no dead letter for {event.what}"
        elif reason != event.reason:
            yield f"the dead letter for {event.what} says {reason!r}, not {event.reason!r}"
    if reasons:
        yield f"{len(reasons)} good events became dead letters: {sorted(set(reasons.values()))}"
