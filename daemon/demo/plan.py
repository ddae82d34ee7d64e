"""What will be produced, and when: all of it follows from a few numbers. Pure."""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import msgspec
import numpy as np

from daemon.demo.malformed import Malformed
from daemon.demo.names import Names
from daemon.demo.part import Part, PartName, events_of, wire_pair
from daemon.demo.tenants import Tenants
from daemon.wire import paired_event
from daemon.wire.paired_event import PairedEvent


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """One run of the demo. It travels to the processes as JSON."""

    tenants: int = 24
    events_per_tenant: int = 80
    """More than a window's 64 + 4, so that some events meet a full support."""
    events_per_language: int = 80
    seconds: float = 30.0
    """How long the producer takes, at a steady rate."""
    seed: int = 0

    def parts(self) -> Mapping[PartName, Part]:
        """Both, by name."""
        tenants = Tenants(self.tenants, self.events_per_tenant)
        names = Names(self.events_per_language)
        return {tenants.name: tenants, names.name: names}

    @property
    def events(self) -> int:
        """Good events in all."""
        return sum(map(events_of, self.parts().values()))


@dataclass(frozen=True, slots=True)
class Planned:
    """One record to produce, `due_s` after the start."""

    due_s: float
    part: PartName
    stream: str
    concept: int
    malformed: Malformed | None = None


def schedule(plan: Plan) -> Iterator[Planned]:
    """Both parts' records, in order of time."""
    each = [schedule_of(part, plan.seconds, plan.seed) for part in plan.parts().values()]
    return heapq.merge(*each, key=lambda planned: planned.due_s)


def schedule_of(part: Part, seconds: float, seed: int) -> Iterator[Planned]:
    """Every record in order: the streams take turns in random order, none repeats a concept, and
    the malformed events come evenly in between."""
    good = list(_good(part, seed))
    gap = len(good) // (len(part.malformed) + 1)
    malformed_before = {gap * (i + 1): kind for i, kind in enumerate(part.malformed)}
    for place, (stream, concept) in enumerate(good):
        due_s = seconds * place / len(good)
        if place in malformed_before:
            yield Planned(due_s, part.name, stream, concept, malformed_before[place])
        yield Planned(due_s, part.name, stream, concept)


def _good(part: Part, seed: int) -> Iterator[tuple[str, int]]:
    fewest = min(len(part.pool(stream)) for stream in part.streams)
    if part.events_per_stream > fewest:
        raise ValueError(f"at most {fewest} events for each stream, so that none repeats")
    rng = np.random.default_rng(seed)
    order = {stream: rng.permutation(part.pool(stream)) for stream in part.streams}
    for place in range(part.events_per_stream):
        for stream in rng.permutation(part.streams):
            yield str(stream), int(order[str(stream)][place])


def record_value(part: Part, planned: Planned) -> bytes:
    """What the producer writes."""
    pair = wire_pair(part, planned.stream, planned.concept)
    if planned.malformed is not None:
        return planned.malformed.spoil(pair)
    return paired_event.encode_event(PairedEvent([pair]))
