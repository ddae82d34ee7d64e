"""What the loop needs from the outside, in our own words.

Adapters in `daemon.adapters` (and `model.serving.engine.Engine`) satisfy these protocols; each port
has one contract suite in tests/contracts that every adapter passes. All calls come from the one
thread that owns the loop, but for `WindowStore.append`: it runs beside the engine's and the store's
other calls, never beside a claim or another append.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, Protocol

from numpy.typing import NDArray

from daemon.turn.aside import Aside, at_once
from daemon.turn.window import Pair, PairId
from daemon.wire.record import Message, Record
from model.theta.meta_init import OutputActivation
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


@dataclass(frozen=True, slots=True)
class Bounds:
    """Where a partition begins and ends, and what this group last committed (None: nothing yet)."""

    beginning: int
    end: int
    committed: int | None


class EventSource(Protocol):
    """The paired-events topic, read as a member of a consumer group."""

    def poll(self, timeout_s: float, max_records: int) -> Polled:
        """Wait at most `timeout_s` for records; none of a partition that was revoked.

        Raises Unavailable.
        """

    def bounds(self, partitions: Sequence[int]) -> Mapping[int, Bounds]:
        """Raises Unavailable."""

    def seek(self, partition: int, offset: int) -> None:
        """The next poll of an assigned partition starts here."""

    def commit(self, offsets: Mapping[int, int]) -> Callable[[], bool]:
        """Ask for the next offset to read of each partition to be committed. The returned function
        waits for the answer: False if it was refused, for instance by a group that rebalances.

        Ask again only after the answer. Both raise Unavailable.
        """

    def lag(self) -> Mapping[int, int]:
        """Records not yet polled, by assigned partition, as far as is known."""

    def joined(self) -> bool:
        """Whether the group has given this worker an assignment (it may be empty)."""

    def verify(self) -> None:
        """Ask the broker something cheap if it has not answered lately. Raises Unavailable."""

    def close(self) -> None:
        """Leave the group. Never raises; bounded in time."""


class Outbox(Protocol):
    """Producing to Kafka."""

    def send(self, messages: Sequence[Message]) -> None:
        """Return when every message is acknowledged by all in-sync replicas. Raises Unavailable."""

    def close(self) -> None:
        """Never raises; bounded in time."""


@dataclass(frozen=True, slots=True)
class Claim:
    """This worker's tenure of a partition.

    `epoch` is larger than that of every earlier claim. `position` is the offset after the last
    event whose pairs the store holds, None if it holds nothing for the partition. `meta_init` is
    what the partition was last marked with.
    """

    epoch: int
    position: int | None
    meta_init: str | None = None


class Append(NamedTuple):
    """One pair to be kept for one stream."""

    stream: str
    pair: Pair


class WindowStore(Protocol):
    """Every stream's window, durably. A pair whose id the store has seen changes nothing."""

    def claim(self, partition: int, now_ms: int) -> Claim:
        """Begin a tenure, ending any other worker's; its epoch is at least `now_ms` (wall clock).

        Raises Unavailable.
        """

    def append(
        self, partition: int, epoch: int, position: int, appends: Sequence[Append]
    ) -> Sequence[PairId]:
        """Keep these pairs and the position, all or nothing; return the ids that were replays.

        Raises Unavailable (nothing was kept, or it is unknown), Superseded.
        """

    def load(self, partition: int, streams: Sequence[str]) -> Mapping[str, Sequence[Pair]]:
        """The windows of these streams, oldest pair first; unknown streams have no pairs.

        Raises Unavailable.
        """

    def streams(self, partitions: Sequence[int]) -> Mapping[int, Sequence[str]]:
        """Every stream that has a window, by partition; slow, for it looks at every key.

        Raises Unavailable.
        """

    def mark(self, partition: int, epoch: int, meta_init: str) -> None:
        """Remember the θ (its content hash) that all of the partition's mappings are of by now,
        whatever features the windows hold. Raises Unavailable, Superseded."""

    def verify(self, epochs: Mapping[int, int]) -> None:
        """Raises Superseded for the partitions claimed since with a larger epoch, Unavailable."""

    def close(self) -> None:
        """Never raises."""


class Windows(Protocol):
    """The pairs of all streams in memory, one slot for each stream, and the inner loop on them."""

    @property
    def bytes_per_stream(self) -> int:
        """Memory that one slot takes once it is full."""

    def append(
        self, slots: Sequence[int], x_D: Sequence[FloatArray], y_E: Sequence[FloatArray]
    ) -> None:
        """Take new pairs in, a stream's in order; a full window lets its oldest go."""

    def clear(self, slot: int) -> None:
        """Let go of a slot's pairs."""

    def adapt(self, cuts: Sequence[Cut]) -> Sequence[Adaptation]:
        """The inner loop for all of these in one batch; one stream's NaN is its own result. What
        they hold may be read until the next `append`, `clear` or `adapt`.

        Raises model.values.errors.DeviceLost (as may `append`): the windows are gone with the
        device.
        """

    @property
    def batch_splits(self) -> int:
        """How often the last `adapt` halved its batch for want of device memory."""


class Engine(Protocol):
    """Encoders and the inner loop around one meta-init θ."""

    @property
    def meta_init_version(self) -> str: ...
    @property
    def meta_init_hash(self) -> str: ...
    @property
    def generator(self) -> str: ...
    @property
    def learner(self) -> str: ...
    @property
    def loss(self) -> str: ...
    @property
    def encoder_version(self) -> str: ...
    @property
    def source_modality(self) -> str: ...
    @property
    def target_modality(self) -> str: ...
    @property
    def source_dim(self) -> int: ...
    @property
    def target_dim(self) -> int: ...
    @property
    def hidden_dim(self) -> int: ...
    @property
    def activation(self) -> OutputActivation: ...
    @property
    def output_activation(self) -> OutputActivation: ...

    def prepare(self, side: Side, modality: str, content: Content) -> NDArray[Any]:
        """Check one content and make it ready to be encoded.

        Raises model.values.errors.BadContent.
        """

    def encode(self, side: Side, prepared: Sequence[NDArray[Any]]) -> FloatArray:
        """Features, (N, dim) float32, in one forward pass."""

    def windows(self, capacity: int) -> Windows:
        """Empty windows for so many streams, on the engine's device."""

    def theta_mapping(self) -> Mapping[str, FloatArray]:
        """θ's own mapping, unadapted."""

    def to_half(self, numbers: FloatArray) -> HalfArray:
        """Returns each number's nearest float16, ties to even, in the same shape."""


class Clock(Protocol):
    """Time as a value, so that tests can hold it."""

    def now(self) -> float:
        """Seconds, monotonic."""

    def sleep(self, seconds: float) -> None:
        """Let so much time pass."""

    def wall_ms(self) -> int:
        """Milliseconds since the epoch, UTC."""


@dataclass(frozen=True, slots=True)
class Ports:
    """The loop's connections to the outside."""

    source: EventSource
    store: WindowStore
    outbox: Outbox
    engine: Engine
    clock: Clock
    aside: Aside = at_once
