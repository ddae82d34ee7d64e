"""What the loop needs from the outside, in its own words.

R = rows (contents), N = pairs of a stream, D = source dim, E = target dim

Adapters in `daemon.adapters`, and `model.serving.engine.Engine`, satisfy these protocols. Each port
has one contract suite in tests/contracts that every adapter passes. All calls come from the one
thread that owns the loop, except `WindowStore.append`: it may run beside any call but `claim`,
`restore`, `shorten` and another `append`.
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


@dataclass(frozen=True, slots=True)
class Bounds:
    """A partition's first offset, its end offset, and the offset that this group has committed
    (None: none yet)."""

    beginning: int
    end: int
    committed: int | None


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

    def commit(self, offsets: Mapping[int, int]) -> Pending[bool]:
        """Requests a commit of the next offset to read of each partition. The result is False when
        the broker refused it, for instance because the group rebalances.

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


@dataclass(frozen=True, slots=True)
class Claim:
    """What the store says of a partition to the worker that claims it."""

    epoch: int
    """Larger than the epoch of every earlier claim."""
    position: int | None
    """The offset after the last event whose pairs the store has, None if it has nothing."""
    meta_init: str | None = None
    """The content hash that the partition was last marked with, see `WindowStore.mark`."""


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

    def claim(self, partition: int, now_ms: int) -> Claim:
        """Begins a tenure of the partition and ends that of any other worker. The epoch is at
        least `now_ms` (wall clock). Raises Unavailable."""

    def append(
        self,
        partition: int,
        epoch: int,
        position: int,
        appends: Sequence[Append],
        lengths: Mapping[str, int] = MappingProxyType({}),
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
