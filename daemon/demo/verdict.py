"""What the demo found, as one object, and whether that is good. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

import msgspec
import numpy as np

from daemon.demo.board import Board, PartBoard
from daemon.demo.promises import failed_conditions
from daemon.demo.tally import Shares

Latency = dict[str, float | None]


class LanguageSummary(msgspec.Struct, frozen=True, kw_only=True):
    """One language's result."""

    events: int
    support_pairs: int
    """Of the mapping that judged the last event."""
    outcome: str | None
    """Of the newest mapping; None without one."""
    r_at_1: Shares
    """By method, prequential, over all events that were judged."""


class NamesSummary(msgspec.Struct, frozen=True, kw_only=True):
    """The result of image → text: streams are languages."""

    languages: int
    events: int
    mappings_published: int
    r_at_1: dict[str, Shares]
    """By method and number of support pairs, prequential, mean over languages."""
    by_language: dict[str, LanguageSummary]
    event_to_publish_ms: Latency


class Summary(msgspec.Struct, frozen=True, kw_only=True):
    """The demo's result; `adaptd demo --json` prints it. What `names` does not hold is the
    tenants', but for services, dead letters, seconds and the verdict."""

    services: str
    tenants: int
    events: int
    """Good ones, produced."""
    mappings_published: int
    """That the subscriber has read and verified."""
    dead_letters: dict[str, int]
    """By reason."""
    r_at_1: dict[str, Shares]
    """By method and number of support pairs, prequential, mean over tenants."""
    event_to_publish_ms: Latency
    """From the record time of the newest event in a mapping to the mapping's own record time."""
    names: NamesSummary
    seconds: float
    ok: bool
    failures: list[str]


def summarise(board: Board, services: str, seconds: float, faults: list[str]) -> Summary:
    """`faults`: what else went wrong, in the parent's eyes."""
    failures = [*faults, *failed_conditions(board)]
    tenants = board.parts["tenants"]
    return Summary(
        services=services,
        tenants=len(tenants.streams),
        events=tenants.produced,
        mappings_published=tenants.mappings,
        dead_letters=dict(Counter(letter.reason for letter in board.dead_letters)),
        r_at_1=_by_pairs(tenants),
        event_to_publish_ms=_latency(tenants.latencies_ms),
        names=_names(board.parts["names"]),
        seconds=round(seconds, 1),
        ok=not failures,
        failures=failures,
    )


def _names(part: PartBoard) -> NamesSummary:
    return NamesSummary(
        languages=len(part.streams),
        events=part.produced,
        mappings_published=part.mappings,
        r_at_1=_by_pairs(part),
        by_language={
            language: LanguageSummary(
                events=stream.pairs,
                support_pairs=stream.support_pairs,
                outcome=stream.newest.outcome if stream.newest else None,
                r_at_1=_rounded(part.tally.of(language)),
            )
            for language, stream in part.streams.items()
        },
        event_to_publish_ms=_latency(part.latencies_ms),
    )


def _by_pairs(part: PartBoard) -> dict[str, Shares]:
    return {method: _rounded(by_size) for method, by_size in part.tally.by_pairs().items()}


def _rounded(shares: Mapping[str, float | None]) -> Shares:
    return {key: None if share is None else round(share, 4) for key, share in shares.items()}


def _latency(latencies_ms: list[float]) -> Latency:
    if not latencies_ms:
        return {"p50": None, "p99": None}
    p50, p99 = np.percentile(latencies_ms, [50, 99])
    return {"p50": round(float(p50), 1), "p99": round(float(p99), 1)}
