"""The streams this worker holds in memory. Only the loop's thread touches them."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from daemon.turn.window import BEFORE_ALL, Pair, PairId, WindowShape
from model.values.episode import Adaptation, Cut
from model.values.gate import Outcome

if TYPE_CHECKING:  # ports speaks of streams too
    from daemon.turn.ports import Windows


class StreamId(NamedTuple):
    """A stream is known by its key within its partition: offsets order it only there."""

    partition: int
    key: str


@dataclass(frozen=True, slots=True)
class LastPublication:
    """What was last published for a stream in this tenure, and when (seconds, monotonic)."""

    at: float
    outcome: Outcome


class Slid(NamedTuple):
    """What an event did to its stream's window."""

    new: Sequence[Pair]
    """Its pairs that are no replays."""
    ready: bool
    """Whether the window could be cut from then on."""


@dataclass(slots=True)
class Stream:
    """One stream: which of its pairs are in the window, and what was said of them. The pairs
    themselves lie in the engine's windows, in `slot`."""

    id: StreamId
    slot: int
    pairs: int = 0
    """Held, at most the window's size."""
    newest: PairId = BEFORE_ALL
    newest_time_ms: int = 0
    """When the newest pair happened (ms, UTC)."""
    fresh: int = 0
    """Events since it was last adapted."""
    last: LastPublication | None = None
    unpublished_since_ms: int | None = None
    """Record time (ms, UTC) of the oldest event that no published mapping reflects yet."""

    def take(self, pair: Pair, shape: WindowShape) -> bool:
        """Count the pair in; False for a replay, which changes nothing: a pair at or before the
        newest was here already."""
        if pair.id <= self.newest:
            return False
        self.newest, self.newest_time_ms = pair.id, pair.time_ms
        if self.pairs < shape.size:
            self.pairs += 1
        return True


class Streams:
    """Those in memory, least recently changed first; the store has all of them durably."""

    def __init__(self, shape: WindowShape, windows: Windows, slots: int) -> None:
        """Room for as many streams as there are slots."""
        self._shape = shape
        self._windows = windows
        self._streams: OrderedDict[StreamId, Stream] = OrderedDict()
        self._free = list(reversed(range(slots)))

    def __len__(self) -> int:
        return len(self._streams)

    def __contains__(self, id: StreamId) -> bool:
        return id in self._streams

    def __getitem__(self, id: StreamId) -> Stream:
        return self._streams[id]

    def __iter__(self) -> Iterator[StreamId]:
        return iter(self._streams)

    @property
    def window_bytes(self) -> int:
        """Memory that their windows take once they are full."""
        return len(self._streams) * self._windows.bytes_per_stream

    def add(self, kept: Mapping[StreamId, Sequence[Pair]]) -> None:
        """Hold streams that are new (no pairs) or come back with the pairs that the store kept.

        Each gets the slot let go last: so no more memory is in use than for the most streams there
        ever were at once.
        """
        for id in kept:
            slot = self._free.pop()
            self._windows.clear(slot)
            self._streams[id] = Stream(id, slot)
        self.slide(kept.items())

    def slide(self, arrived: Iterable[tuple[StreamId, Sequence[Pair]]]) -> list[Slid]:
        """Take pairs into their streams' windows, all in one append. These streams are now the
        most recently changed. Raises KeyError."""
        slots: list[int] = []
        fresh: list[Pair] = []
        slid: list[Slid] = []
        for id, pairs in arrived:
            self._streams.move_to_end(id)
            stream = self._streams[id]
            new = [pair for pair in pairs if stream.take(pair, self._shape)]
            slots += [stream.slot] * len(new)
            fresh += new
            slid.append(Slid(new, self._shape.ready(stream.pairs)))
        if slots:
            self._windows.append(slots, [p.x_D for p in fresh], [p.y_E for p in fresh])
        return slid

    def ready(self, id: StreamId) -> bool:
        """Whether the stream's window can be cut."""
        return self._shape.ready(self._streams[id].pairs)

    def cut(self, id: StreamId, *, wanted: bool = True) -> Cut:
        """The newest pairs as query, the older as support; `wanted`: whether its mapping will
        probably be published. Raises ValueError when not ready."""
        stream = self._streams[id]
        query = self._shape.query_of(stream.pairs)
        return Cut(stream.slot, stream.pairs - query, query, wanted)

    def adapt(self, cuts: Sequence[Cut]) -> Sequence[Adaptation]:
        """See Windows."""
        return self._windows.adapt(cuts) if cuts else []

    @property
    def batch_splits(self) -> int:
        """See Windows."""
        return self._windows.batch_splits

    def drop(self, partition: int) -> list[StreamId]:
        """Let go of a partition's streams; return which."""
        ids = [id for id in self._streams if id.partition == partition]
        self._let_go(ids)
        return ids

    def evict(self, most: int, busy: Callable[[StreamId], bool]) -> int:
        """Let the least recently changed go until `most` are left, sparing the busy; how many
        went. They come back from the store with their next event."""
        surplus = len(self._streams) - most
        if surplus <= 0:
            return 0
        idle = (id for id in self._streams if not busy(id))
        gone = [id for id, _ in zip(idle, range(surplus), strict=False)]
        self._let_go(gone)
        return len(gone)

    def _let_go(self, ids: Iterable[StreamId]) -> None:
        for id in ids:
            self._free.append(self._streams.pop(id).slot)
