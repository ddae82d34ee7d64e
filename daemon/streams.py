"""The streams this worker holds in memory. Only the loop's thread touches them."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

from daemon.window import Window
from model.gate import Outcome


class StreamId(NamedTuple):
    """A stream is known by its key within its partition: offsets order it only there."""

    partition: int
    key: str


@dataclass(frozen=True, slots=True)
class Published:
    """What was last published for a stream in this tenure, and when (seconds, monotonic)."""

    at: float
    outcome: Outcome


@dataclass(slots=True)
class Stream:
    """One stream's window, and what was said of it."""

    id: StreamId
    window: Window
    last: Published | None = None
    unpublished_since_ms: int | None = None
    """Record time (ms, UTC) of the oldest event that no published mapping reflects yet."""


class Streams:
    """Windows in memory, least recently changed first; the store has all of them durably."""

    def __init__(self) -> None:
        self._streams: OrderedDict[StreamId, Stream] = OrderedDict()

    def __len__(self) -> int:
        return len(self._streams)

    def __contains__(self, id: StreamId) -> bool:
        return id in self._streams

    def __getitem__(self, id: StreamId) -> Stream:
        return self._streams[id]

    def __iter__(self) -> Iterator[StreamId]:
        return iter(self._streams)

    def add(self, stream: Stream) -> None:
        """Hold a stream that was loaded or is new."""
        self._streams[stream.id] = stream

    def touch(self, id: StreamId) -> Stream:
        """The stream, now the most recently changed. Raises KeyError."""
        self._streams.move_to_end(id)
        return self._streams[id]

    def drop(self, partition: int) -> list[StreamId]:
        """Let go of a partition's streams; return which."""
        ids = [id for id in self._streams if id.partition == partition]
        for id in ids:
            del self._streams[id]
        return ids

    def evict(self, most: int, busy: Callable[[StreamId], bool]) -> int:
        """Let the least recently changed go until `most` are left, sparing the busy; how many
        went. They come back from the store with their next event."""
        surplus = len(self._streams) - most
        if surplus <= 0:
            return 0
        idle = (id for id in self._streams if not busy(id))
        gone = [id for id, _ in zip(idle, range(surplus), strict=False)]
        for id in gone:
            del self._streams[id]
        return len(gone)
