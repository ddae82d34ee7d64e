"""Image → vector: synthetic tenants (`model.emoji.tenants`), each with a space of its own."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache

from daemon.demo.malformed import KINDS, Malformed
from daemon.demo.part import VENDOR, PartName
from daemon.wire import paired_event
from daemon.wire.paired_event import Vector
from model.emoji import drawings as emoji
from model.emoji.tenants import Tenant
from model.values.arrays import FloatArray

TENANT_SEED = 2_000_000
"""Neither training nor the meta-test draws tenants from here on."""


@dataclass(frozen=True, slots=True)
class Tenants:
    """The tenants' part; see `daemon.demo.part.Part`."""

    tenants: int
    events_per_stream: int
    name: PartName = "tenants"
    malformed: tuple[Malformed, ...] = KINDS

    @property
    def streams(self) -> tuple[str, ...]:
        """Their names."""
        return tuple(f"tenant-{n:02d}" for n in range(1, self.tenants + 1))

    def pool(self, stream: str) -> tuple[int, ...]:
        """The same for all: the training concepts that the vendor draws."""
        return _drawn()

    def target(self, stream: str, concept: int) -> Vector:
        """The concept's vector in the tenant's space."""
        return paired_event.vector(vectors(stream)[concept])

    def called(self, stream: str, concept: int) -> str:
        """The emoji itself: a vector says nothing to a person."""
        return emoji.concepts()[concept].character


def tenant(name: str) -> Tenant:
    """The synthetic tenant of this name. Raises ValueError for a name that is none of ours."""
    match = re.fullmatch(r"tenant-(\d+)", name)
    if match is None:
        raise ValueError(f"{name!r} is no tenant of the demo")
    return Tenant(TENANT_SEED + int(match[1]))


@cache
def vectors(name: str) -> FloatArray:
    """Every concept's vector in the tenant's space (N, E)."""
    return tenant(name).targets()


@cache
def _drawn() -> tuple[int, ...]:
    return tuple(int(i) for i in emoji.drawn_by(VENDOR, "train"))
