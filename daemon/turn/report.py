"""What one turn did: filled in by the loop while it runs, then read by metrics, logs and status."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from daemon.turn.streams import StreamId
from model.values.episode import Adaptation
from model.values.gate import Outcome

STAGES = ("poll", "decode", "encode", "slide", "cut", "adapt", "gate", "save", "publish", "commit")


class OffsetRange(NamedTuple):
    """Offsets a turn read from one partition, the last one excluded."""

    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Verdict:
    """One stream's adaptation, and what the gate said of it."""

    stream: StreamId
    version: int
    support_pairs: int
    query_pairs: int
    adaptation: Adaptation
    outcome: Outcome


@dataclass(frozen=True, slots=True)
class Publication:
    """One mapping that Kafka has acknowledged."""

    stream: StreamId
    version: int
    outcome: Outcome
    latency_s: float
    """From the record time of the oldest event it newly reflects."""
    renewal: bool = False
    """Whether it reflects no event newly, only another θ; its latency means nothing."""


@dataclass(frozen=True, slots=True)
class Holdings:
    """What the worker holds when a turn ends."""

    assigned: int = 0
    streams: int = 0
    changed: int = 0
    deferred: int = 0
    window_bytes: int = 0
    lag: Mapping[int, int] = field(default_factory=dict)
    renewals: int = 0
    """Streams whose mapping is still to be made with the θ that is served."""


@dataclass(slots=True)
class TurnReport:
    """One turn in figures. Seconds throughout."""

    turn: str
    stages: dict[str, float] = field(default_factory=dict)
    offsets: dict[int, OffsetRange] = field(default_factory=dict)
    events: int = 0
    pairs: int = 0
    replayed_pairs: int = 0
    dead_letters: Counter[str] = field(default_factory=Counter)
    loaded: int = 0
    evicted: int = 0
    batch_splits: int = 0
    """How often the batch was halved for want of device memory."""
    verdicts: list[Verdict] = field(default_factory=list)
    published: list[Publication] = field(default_factory=list)
    committed: Mapping[int, int] = field(default_factory=dict)
    """By partition, of what the turn before asked for: the answer is waited for a turn later."""
    claimed: Mapping[int, int] = field(default_factory=dict)
    """Epoch of each partition taken on in this turn."""
    lost: set[int] = field(default_factory=set)
    holdings: Holdings = Holdings()

    @property
    def idle(self) -> bool:
        """Whether nothing happened that a log should tell."""
        return not (self.offsets or self.verdicts or self.committed or self.claimed or self.lost)

    @property
    def seconds(self) -> float:
        """How long the turn took, without waiting for records."""
        return sum(seconds for stage, seconds in self.stages.items() if stage != "poll")
