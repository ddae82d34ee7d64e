"""What one turn did. The loop fills the report in; metrics, logs and /status read it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from daemon.errors import MalformedReason, RefusalReason
from daemon.turn.streams import StreamId
from daemon.wire.dead_letter import DeadLetter
from daemon.wire.record import Message
from model.values.episode import Adaptation
from model.values.gate import Outcome

SHOWN_CHARS = 200
"""The most of a key or a detail that the log shows."""
LONGEST_LATENCY_MS = 366 * 86_400_000
"""A record time that lies further back is a mistake, such as seconds for milliseconds."""
CLOCKS_MAY_DIFFER_MS = 60_000
"""A record time that lies further in the future is a mistake."""
STAGES = ("poll", "decode", "encode", "slide", "cut", "adapt", "gate", "save", "publish", "commit")


class OffsetRange(NamedTuple):
    """The offsets that a turn read from one partition: from `start` to `end`, `end` excluded."""

    start: int
    end: int

    @property
    def length(self) -> int:
        """How many offsets these are."""
        return self.end - self.start


Replaced = Literal["made_anew", "shorter", "different"]
"""What showed that a partition's log is another one: the topic's id, its end, or a record in it."""


class LogReplaced(NamedTuple):
    """A partition whose log turned out to be another one than was read before."""

    partition: int
    how: Replaced
    topic_id_before: str
    topic_id: str
    read_up_to: int | None
    """The offset up to which the log before was read, if that is known."""
    end: int
    """The end offset of the log as it is now."""


class OffsetMoved(NamedTuple):
    """A partition whose committed offset an operator has moved."""

    partition: int
    read_up_to: int | None
    """The offset up to which the group had read; None if it had read nothing."""
    to: int


class StreamMoved(NamedTuple):
    """A stream that was seen in a second partition."""

    stream: str
    before: int
    """The partition that it was in before."""
    now: int


class RefusedEvent(NamedTuple):
    """An event that became a dead letter, for the log."""

    reason: MalformedReason
    stream: str
    """The record's key, as text of a bounded length."""
    partition: int
    offset: int
    detail: str


def refused_event(letter: DeadLetter) -> RefusedEvent:
    """Returns what the log says of a dead letter. It quotes nothing of the value but what the
    reason names."""
    key = (letter.record.key or b"")[:SHOWN_CHARS].decode(errors="backslashreplace")
    error = letter.error
    detail = " ".join(error.detail.split())[:SHOWN_CHARS]
    return RefusedEvent(error.reason, key, letter.partition, letter.record.offset, detail)


@dataclass(frozen=True, slots=True)
class Verdict:
    """One stream's adaptation, and how the gate judged it."""

    stream: StreamId
    version: int
    """The offset of the newest event in the window."""
    support_pairs: int
    """Pairs that the mapping learned from: all of the window, once it was judged."""
    query_pairs: int
    """Pairs, the newest, that its candidates were judged on before they learned from them."""
    adaptation: Adaptation
    outcome: Outcome
    window_since: int = 0
    """The offset of the oldest event in the window."""
    shortened: bool = False
    """Whether the stream has changed: then the window is to lose the older pairs."""


@dataclass(frozen=True, slots=True)
class Publication:
    """One mapping that Kafka has acknowledged."""

    stream: StreamId
    version: int
    outcome: Outcome
    latency_s: float | None
    """Seconds from the record time of the oldest event that it is the first to reflect; None when
    that time is not known or cannot be right."""
    renewal: bool = False
    """Whether it reflects another θ and no new event; then its latency means nothing."""


ScoredMapping = Literal["published", "theta", "ridge"]


class PairScore(NamedTuple):
    """How well a mapping that had not learned from a new pair does on it."""

    mapping: ScoredMapping
    """What was published of the stream last, θ unadapted, or ridge regression on the window that
    was published of."""
    loss: float
    """θ's loss, mse or cosine."""
    first: bool | None
    """Whether the pair's own target is the nearest of the stream's recent ones; None where those
    are too few."""


def latency_s(recorded_ms: int | None, now_ms: int) -> float | None:
    """Returns the seconds since a record time; None when that is not known or cannot be right. One
    such latency would spoil a histogram's mean for hours."""
    if not recorded_ms:  # 0 if the producer does not set the time
        return None
    age_ms = now_ms - recorded_ms
    if not -CLOCKS_MAY_DIFFER_MS <= age_ms <= LONGEST_LATENCY_MS:
        return None
    return max(0, age_ms) / 1000


@dataclass(frozen=True, slots=True)
class Holdings:
    """What the worker holds in memory when a turn ends."""

    assigned: int = 0
    """Partitions."""
    streams: int = 0
    changed: int = 0
    """Streams that changed and were not adapted since."""
    deferred: int = 0
    """Streams that are to be adapted and published at a later time."""
    window_bytes: int = 0
    lag: Mapping[int, int] = field(default_factory=dict)
    """Records not yet polled, by partition."""
    renewals: int = 0
    """Streams whose mapping is still to be made with the θ that is served."""
    owed_since_ms: Mapping[int, int | None] = field(default_factory=dict)
    """Record time (ms, UTC) of each partition's oldest event that is owed a mapping, be it read or
    not; None where no event is. Partitions of which that is not known are not in it."""


@dataclass(frozen=True, slots=True)
class ShadowReport:
    """What a turn did to judge a candidate θ."""

    evidence: Sequence[Message] = ()
    adaptations: int = 0
    seconds: float = 0.0
    fault: str = ""
    """What ended the judging, if something did."""
    reason: RefusalReason = "unusable"


NOTHING_SHADOWED = ShadowReport()


@dataclass(slots=True)
class TurnReport:
    """One turn in figures. Times are in seconds."""

    turn: str
    """The turn's id, which every mapping that it published carries."""
    stages: dict[str, float] = field(default_factory=dict)
    """How long each stage took."""
    offsets: dict[int, OffsetRange] = field(default_factory=dict)
    events: int = 0
    pairs: int = 0
    replayed_pairs: int = 0
    dead_letters: Counter[MalformedReason] = field(default_factory=Counter)
    """How many events became dead letters, by reason."""
    refused: dict[MalformedReason, RefusedEvent] = field(default_factory=dict)
    """The first of them, by reason."""
    loaded: int = 0
    """How many windows were read back from the store."""
    returned: int = 0
    """How many streams came back into memory that had been evicted."""
    restored: Mapping[int, Sequence[str]] = field(default_factory=dict)
    """Streams by partition whose windows the store had lost and got again from memory."""
    evicted: int = 0
    """How many streams left memory."""
    batch_splits: int = 0
    """How often the batch was halved because the device's memory was full."""
    scores: list[PairScore] = field(default_factory=list)
    """Of new pairs of sampled streams."""
    suspected: int = 0
    """How many streams are suspected to have changed that were not before."""
    shadow: ShadowReport = NOTHING_SHADOWED
    renewals: int = 0
    """How many renewals of mappings began."""
    verdicts: list[Verdict] = field(default_factory=list)
    published: list[Publication] = field(default_factory=list)
    committed: Mapping[int, int] = field(default_factory=dict)
    """Offsets by partition that the commit request of the turn before has committed."""
    claimed: Mapping[int, int] = field(default_factory=dict)
    """The epochs of the tenures that began in this turn, by partition."""
    compared: Set[int] = frozenset()
    """Partitions of which no record counts: what was read showed only that the log is the same."""
    replaced: Sequence[LogReplaced] = ()
    """Partitions whose log is another one than before."""
    moved: Sequence[OffsetMoved] = ()
    """Partitions whose committed offset an operator has moved."""
    gone: Mapping[int, OffsetRange] = field(default_factory=dict)
    """Offsets that retention removed before they were read, by partition."""
    streams_moved: Sequence[StreamMoved] = ()
    """Streams that were seen in a second partition."""
    lost: set[int] = field(default_factory=set)
    """Partitions that the group revoked or another worker claimed."""
    holdings: Holdings = Holdings()

    @property
    def idle(self) -> bool:
        """Whether nothing happened that is worth a line in the log."""
        did = (self.offsets, self.verdicts, self.committed, self.claimed, self.lost, self.compared)
        return not any(did)

    @property
    def seconds(self) -> float:
        """How long the turn took, without the wait for records."""
        return sum(seconds for stage, seconds in self.stages.items() if stage != "poll")
