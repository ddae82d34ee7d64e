"""Event-to-publish latency, from what lies in Kafka. Pure.

Both times are Kafka's records of what happened: an event's timestamp is when it was to be sent,
so a producer that falls behind hides nothing; a mapping's is when the broker appended it.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple


class Place(NamedTuple):
    """Where an event lies."""

    partition: int
    offset: int


@dataclass(frozen=True, slots=True)
class Sent:
    """An event in the events topic."""

    stream: str
    sent_ms: int


@dataclass(frozen=True, slots=True)
class Mapped:
    """A record of the mappings topic; `newest` is the newest event that it reflects."""

    stream: str
    newest: Place
    appended_ms: int


@dataclass(frozen=True, slots=True)
class Freshness:
    """Milliseconds, one number for each mapping that newly reflects an event of the phase."""

    newest_ms: list[float]
    """Since the newest event it reflects."""
    oldest_ms: list[float]
    """Since the oldest event that it is the first to reflect; the daemon's histogram has this."""


def freshness(sent: Mapping[Place, Sent], mapped: Iterable[Mapped], since_ms: float) -> Freshness:
    """Latencies of the mappings whose oldest newly reflected event was sent at `since_ms` or
    later. `sent` are the events of one phase, all of them; mappings of earlier ones are passed
    over, and so is one that reflects nothing new."""
    found = Freshness([], [])
    for mapping, new in _newly_reflected(sent, mapped):
        oldest_ms, newest_ms = sent[new[0]].sent_ms, sent[new[-1]].sent_ms
        if oldest_ms >= since_ms:
            found.newest_ms.append(mapping.appended_ms - newest_ms)
            found.oldest_ms.append(mapping.appended_ms - oldest_ms)
    return found


def _newly_reflected(
    sent: Mapping[Place, Sent], mapped: Iterable[Mapped]
) -> Iterator[tuple[Mapped, list[Place]]]:
    by_stream: dict[str, list[Place]] = defaultdict(list)
    for place in sorted(sent):
        by_stream[sent[place].stream].append(place)
    reflected: dict[str, int] = defaultdict(int)
    for mapping in mapped:
        places, before = by_stream[mapping.stream], reflected[mapping.stream]
        upto = bisect_right(places, mapping.newest)
        if upto > before:
            reflected[mapping.stream] = upto
            yield mapping, places[before:upto]
