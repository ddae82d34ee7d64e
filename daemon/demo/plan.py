"""What will be produced, and when: all of it follows from a few numbers. Pure.

The tenants' embedding spaces are synthetic (`model.data.emoji`); the pictures are twemoji's.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

import msgspec
import numpy as np

from daemon.demo.malformed import KINDS, Malformed
from daemon.wire import paired_event
from daemon.wire.paired_event import Image, PairedEvent, WirePair
from model.data import emoji
from model.episode import FloatArray

VENDOR = emoji.HELD_OUT_VENDOR
TENANT_SEED = 2_000_000
"""Neither training nor the meta-test draws tenants from here on."""


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """One run of the demo. It travels to the processes as JSON."""

    tenants: int = 24
    events_per_tenant: int = 80
    """More than a window's 64 + 4, so that some events meet a full support."""
    seconds: float = 30.0
    """How long the producer takes, at a steady rate."""
    seed: int = 0

    @property
    def events(self) -> int:
        """Good events in all."""
        return self.tenants * self.events_per_tenant

    def names(self) -> list[str]:
        """The tenants' names, which are the stream ids."""
        return [f"tenant-{n:02d}" for n in range(1, self.tenants + 1)]


@dataclass(frozen=True, slots=True)
class Planned:
    """One record to produce, `due_s` after the start."""

    due_s: float
    tenant: str
    concept: int
    malformed: Malformed | None = None


def tenant(name: str) -> emoji.Tenant:
    """The synthetic tenant of this name. Raises ValueError for a name that is none of ours."""
    match = re.fullmatch(r"tenant-(\d+)", name)
    if match is None:
        raise ValueError(f"{name!r} is no tenant of the demo")
    return emoji.Tenant(TENANT_SEED + int(match[1]))


@cache
def vectors(name: str) -> FloatArray:
    """Every concept's vector in the tenant's space (N, E)."""
    return tenant(name).targets()


def schedule(plan: Plan) -> Iterator[Planned]:
    """Every record in order: the tenants take turns in random order, none repeats a concept, and
    the malformed events come evenly in between."""
    good = list(_good(plan))
    gap = plan.events // (len(KINDS) + 1)
    malformed_before = {gap * (i + 1): kind for i, kind in enumerate(KINDS)}
    for place, (name, concept) in enumerate(good):
        due_s = plan.seconds * place / len(good)
        if place in malformed_before:
            yield Planned(due_s, name, concept, malformed_before[place])
        yield Planned(due_s, name, concept)


def _good(plan: Plan) -> Iterator[tuple[str, int]]:
    drawn = emoji.drawn_by(VENDOR, "train")
    if plan.events_per_tenant > len(drawn):
        raise ValueError(f"at most {len(drawn)} events for each tenant, so that none repeats")
    rng = np.random.default_rng(plan.seed)
    names = plan.names()
    order = {name: rng.permutation(drawn) for name in names}
    for place in range(plan.events_per_tenant):
        for name in rng.permutation(names):
            yield str(name), int(order[str(name)][place])


def wire_pair(name: str, concept: int) -> WirePair:
    """The picture, and the tenant's own vector of what it shows."""
    return WirePair(
        source=Image(emoji.picture_png(concept, VENDOR)),
        target=paired_event.vector(vectors(name)[concept]),
        label=emoji.concepts()[concept].codepoints,
    )


def record_value(planned: Planned) -> bytes:
    """What the producer writes."""
    pair = wire_pair(planned.tenant, planned.concept)
    if planned.malformed is not None:
        return planned.malformed.spoil(pair)
    return paired_event.encode(PairedEvent([pair]))
