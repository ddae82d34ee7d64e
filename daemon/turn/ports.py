"""What the loop needs from the outside, in its own words.

R = rows (contents), N = pairs of a stream, D = source dim, E = target dim

Adapters in `daemon.adapters`, and `model.serving.engine.Engine`, satisfy these protocols. Each port
has one contract suite in tests/contracts that every adapter passes. All calls come from the one
thread that owns the loop, except `WindowStore.append` and `WindowStore.remember`: they may run
beside any call but `use_topic`, `claim`, `begin_anew`, `restore`, `shorten` and one another.

What raises Unavailable when a service does not answer raises Refused when it refuses this worker's
credentials or rights.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Literal, NamedTuple, Protocol

from numpy.typing import NDArray

from daemon.turn.pending import Executor, Inline, Pending
from daemon.turn.window import Pair, PairId
from daemon.wire.record import Message, Record
from model.theta.info import ThetaInfo
from model.values.arrays import FloatArray, HalfArray
from model.values.contents import Content
from model.values.episode import Adaptation, Cut

Side = Literal["source", "target"]

NO_LENGTHS: Mapping[str, int] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Polled:
    """What one poll brought: records by partition, and what the group changed meanwhile."""

    records: Mapping[int, Sequence[Record]]
    assigned: frozenset[int] = frozenset()
    revoked: frozenset[int] = frozenset()
    positions: Mapping[int, int] = field(default_factory=dict)
    """The offset after all that was read, by partition, as far as it is known. It passes what
    brings no record: transaction markers, aborted transactions, gaps of compaction, and what
    retention has deleted."""
    reconnected: frozenset[int] = frozenset()
    """Partitions whose broker was away, or became another one, since the poll before: their records
    may be of another log than was read so far."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """A partition's first offset, its end offset, and the offset that this group has committed
    (None: none yet)."""

    beginning: int
    end: int
    committed: int | None
    note: str = ""
    """What whoever committed the offset has noted beside it."""


class Extent(NamedTuple):
    """How far a partition's log reaches: its first offset, and the one after its last record,
    whether that record's transaction is still open or not."""

    beginning: int
    end: int


@dataclass(frozen=True, slots=True)
class TopicLogs:
    """Which topic has the name of the events topic now, and how far its logs reach."""

    topic_id: str
    """Another topic that is given the same name has another id."""
    partitions: int
    extents: Mapping[int, Extent]


class EventSource(Protocol):
    """The paired-events topic, read as a member of a consumer group."""

    def poll(self, timeout_s: float, max_records: int) -> Polled:
        """Waits at most `timeout_s` for records, and returns at most `max_records`, none of them
        of a partition that was revoked. What the client cannot parse comes as a RawRecord with a
        fault, in its place. Raises Unavailable."""

    def bounds(self, partitions: Sequence[int]) -> Mapping[int, Bounds]:
        """Returns the first offset, the end offset and the group's committed offset of each
        partition. Raises Unavailable when the broker does not answer."""

    def seek(self, partition: int, offset: int) -> None:
        """Makes the next poll read this assigned partition from this offset on."""

    def logs(self, partitions: Sequence[int]) -> TopicLogs:
        """Returns the topic's id, how many partitions it has, and how far the logs of these
        partitions reach. Raises Unavailable, also when there is no such topic or partition."""

    def commit(
        self, offsets: Mapping[int, int], notes: Mapping[int, str] | None = None
    ) -> Pending[bool]:
        """Requests a commit of the next offset to read of each partition, with a note beside it.
        The result is False when the broker refused it, for instance because the group rebalances.

        Wait for the result before the next request. Both raise Unavailable.
        """

    def lag(self) -> Mapping[int, int]:
        """Returns how many offsets of each assigned partition are not polled yet, up to the end
        that the broker gave when it was last asked, a second ago or so. Leaves out a partition
        whose end is not known. Does not wait."""

    def joined(self) -> bool:
        """Returns whether the group has given this worker an assignment, be it an empty one."""

    def verify(self) -> None:
        """Asks the broker something cheap, unless it has answered a moment ago. Raises
        Unavailable."""

    def close(self) -> None:
        """Leaves the group, in bounded time. Never raises."""


class Outbox(Protocol):
    """Sends messages to Kafka."""

    def send(self, messages: Sequence[Message]) -> None:
        """Returns when all in-sync replicas have acknowledged every message. Raises
        Unavailable."""

    def close(self) -> None:
        """Closes the connection, in bounded time. Never raises."""


class LastRead(NamedTuple):
    """The last record that a group has read of a partition."""

    topic_id: str
    offset: int
    """-1 before the first one."""
    fingerprint: int


@dataclass(frozen=True, slots=True)
class Claim:
    """What the store says of a partition to the worker that claims it."""

    epoch: int
    """Larger than the epoch of every earlier claim."""
    position: int | None
    """The offset after the last event whose pairs the store has, None if it has nothing."""
    meta_init: str | None = None
    """The content hash that the partition was last marked with, see `WindowStore.mark`."""
    generation: int = 0
    """How often `WindowStore.begin_anew` was called for the partition of this topic."""
    last_read: LastRead | None = None
    """What `WindowStore.remember` was last told of the partition; its topic may be another one."""
    known: bool = True
    """Whether the partition of this topic was claimed before."""


class Home(NamedTuple):
    """The partition that a stream was seen in last."""

    partition: int
    since_ms: int
    """The record time (ms, UTC) of an event of the stream there."""


class Append(NamedTuple):
    """One pair that is new in one stream's window."""

    stream: str
    pair: Pair


class Appended(NamedTuple):
    """What an append met in the store."""

    replays: Sequence[PairId] = ()
    """Pairs that the store had already."""
    damaged: Sequence[str] = ()
    """Streams whose window was not as the caller holds it. The store has deleted those windows, and
    the partition's position with them: until `restore` has written them again, a successor finds
    no position and rebuilds all windows."""


class WindowStore(Protocol):
    """The windows of all streams, durable. A pair whose id the store has seen changes nothing."""

    def use_topic(self, topic_id: str, partitions: int) -> int:
        """Uses the windows of the topic with this id from now on; it has so many partitions now.
        Returns how many it had when it was first used, 0 if the group began with a topic of
        another id. Another id than before must not be used while a partition is claimed. Raises
        Unavailable."""

    def claim(self, partition: int, now_ms: int) -> Claim:
        """Begins a tenure of the partition and ends that of any other worker. The epoch is at
        least `now_ms` (wall clock). Raises Unavailable."""

    def append(
        self,
        partition: int,
        epoch: int,
        position: int,
        appends: Sequence[Append],
        lengths: Mapping[str, int] = NO_LENGTHS,
    ) -> Appended:
        """Stores these pairs and the position, all or nothing. `lengths` says how many pairs the
        caller held of each of these streams before; a window that had another number, or one of
        the pairs already, is damaged. Returns the replays and the damaged.

        Raises Superseded when another worker has claimed the partition, and Unavailable; after the
        latter it is unknown whether anything was stored.
        """

    def shorten(self, partition: int, epoch: int, since: Mapping[str, int]) -> None:
        """Removes from each of these streams' windows the pairs of events before this offset. Call
        it between two appends. Raises Superseded and Unavailable, as `append` does."""

    def restore(self, partition: int, epoch: int, windows: Mapping[str, Sequence[Pair]]) -> None:
        """Replaces the windows of these streams by these pairs, oldest first, and puts the position
        back that the last append was to store. Raises Superseded, Unavailable."""

    def load(self, partition: int, streams: Sequence[str]) -> Mapping[str, Sequence[Pair]]:
        """Returns the windows of these streams, oldest pair first; unknown streams have no pairs.
        Raises Unavailable."""

    def streams(self, partitions: Sequence[int]) -> Mapping[int, Sequence[str]]:
        """Returns every stream that has a window, by partition. Slow: it looks at every key.
        Raises Unavailable."""

    def begin_anew(self, partition: int, epoch: int) -> int:
        """Leaves the windows and the position of the partition behind, as those of a log that is no
        more, and returns the generation of the empty ones that follow. Raises Superseded,
        Unavailable."""

    def remember(self, last_reads: Mapping[int, LastRead]) -> None:
        """Stores the last record that was read of each partition, for the claims to come. Raises
        Unavailable."""

    def homes(self, streams: Sequence[str]) -> Mapping[str, Home]:
        """Returns the homes of those of these streams that have one. Raises Unavailable."""

    def keep_homes(self, homes: Mapping[str, Home]) -> None:
        """Stores homes of streams, for as long as windows that do not change. Raises
        Unavailable."""

    def mark(self, partition: int, epoch: int, meta_init: str) -> None:
        """Stores the content hash of the θ that all mappings of the partition are of by now.
        Unlike windows, the mark is shared by all encoder versions. Raises Unavailable,
        Superseded."""

    def verify(self, epochs: Mapping[int, int]) -> None:
        """Raises Superseded for the partitions that were claimed with a larger epoch than this,
        and Unavailable."""

    def close(self) -> None:
        """Closes the connection. Never raises."""


class Windows(Protocol):
    """The pairs of the streams in memory, in one slot for each stream, and the inner loop on
    them."""

    @property
    def bytes_per_stream(self) -> int:
        """Memory that one slot takes once it is full."""

    def append(
        self, slots: Sequence[int], x_D: Sequence[FloatArray], y_E: Sequence[FloatArray]
    ) -> None:
        """Adds the i-th pair to the i-th slot; a slot may occur several times, oldest pair first.
        A full window loses its oldest pair. Raises DeviceLost, as `adapt` does."""

    def clear(self, slot: int) -> None:
        """Removes the pairs of a slot."""

    def shorten(self, slot: int, pairs: int) -> None:
        """Removes all but the newest pairs of a slot. Results of `adapt` can still be read that
        were made of these."""

    def pairs(self, cut: Cut) -> tuple[FloatArray, FloatArray]:
        """Returns a copy of the pairs of a window, oldest first: x (N, D) and y (N, E). Raises
        ValueError when it holds another number of pairs than the cut says."""

    def adapt(self, cuts: Sequence[Cut]) -> Sequence[Adaptation]:
        """Runs the inner loop on all of these in one batch, and returns the adaptations in order.
        Each cut is of its slot's newest pairs, maybe not of all.
        A NaN in one stream stays in its own result. Results may be read until the next `append`,
        `clear` or `adapt`.

        Raises model.values.errors.DeviceLost: the windows are gone with the device.
        """

    @property
    def batch_splits(self) -> int:
        """How often the last `adapt` halved its batch because the device's memory was full."""


class AdaptationEngine(Protocol):
    """The encoders of one meta-init θ, and the inner loop that starts from it."""

    @property
    def theta(self) -> ThetaInfo:
        """What the θ is that this engine serves."""

    def prepare(self, side: Side, modality: str, content: Content) -> NDArray[Any]:
        """Checks one content and returns it in the form that `encode` takes. Raises
        model.values.errors.BadContent."""

    def encode(self, side: Side, prepared: Sequence[NDArray[Any]]) -> FloatArray:
        """Returns the features of R prepared contents, (R, dim) float32, of one forward pass.
        Raises DeviceLost."""

    def windows(self, capacity: int) -> Windows:
        """Returns empty windows for so many streams, on the engine's device."""

    def theta_mapping(self) -> Mapping[str, FloatArray]:
        """Returns θ's own mapping, unadapted: w1 (H, D), b1 (H), w2 (E, H), b2 (E), float32."""

    def to_half(self, numbers: FloatArray) -> HalfArray:
        """Returns each number's nearest float16, ties to even, in the same shape."""


class Clock(Protocol):
    """The time. Tests have a clock that they move themselves."""

    def now(self) -> float:
        """Returns seconds on a monotonic clock."""

    def sleep(self, seconds: float) -> None:
        """Returns after so many seconds."""

    def wall_ms(self) -> int:
        """Returns milliseconds since 1970, UTC."""


@dataclass(frozen=True, slots=True)
class Ports:
    """The loop's connections to the outside."""

    source: EventSource
    store: WindowStore
    outbox: Outbox
    engine: AdaptationEngine
    clock: Clock
    executor: Executor = field(default_factory=Inline)
    """Runs the store's appends beside the loop's thread."""
