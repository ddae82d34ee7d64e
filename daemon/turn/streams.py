"""The streams that this worker holds in memory. Only the loop's thread touches them.

D = source dim, E = target dim, B = streams in batch, Q = query pairs, Z = slots (one for each
stream), W = window size, N = pairs of a stream

What the store does not have of an evicted stream is what was published of it, and when. That is
remembered here: a stream that came back without it would be published at once, whatever its publish
interval.
"""

from __future__ import annotations

import random
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from daemon.turn.ports import Windows
from daemon.turn.window import BEFORE_ALL, Pair, PairId, WindowShape
from model.values.arrays import FloatArray
from model.values.drift import DriftWatch
from model.values.episode import Adaptation, Cut
from model.values.gate import Outcome

DRAWS = 16
"""At most, for two streams of which one is evicted: more are needed where hardly any is idle."""
REMEMBERED = 4
"""Evicted streams that are remembered for each slot: about 2 KB a slot, little beside a window."""


class StreamId(NamedTuple):
    """A stream is identified by its partition and its key: offsets order it only within the
    partition."""

    partition: int
    key: str


@dataclass(frozen=True, slots=True)
class LastPublication:
    """What was last published for a stream in this tenure, and when (seconds, monotonic)."""

    at: float
    outcome: Outcome


class Slid(NamedTuple):
    """What an event did to its stream's window."""

    stream: StreamId
    new: Sequence[Pair]
    """The event's pairs that the window did not have yet: those that are no replays."""
    ready: bool
    """Whether the window can be cut now."""


@dataclass(slots=True)
class Stream:
    """What the loop knows of one stream. The pairs themselves lie in the engine's windows, in
    `slot`."""

    id: StreamId
    slot: int
    pairs: int = 0
    """How many pairs the window holds, at most the window's size."""
    stored: int = 0
    """How many of them the store has, once it has done what it was asked to."""
    added: int = 0
    """How many pairs were ever added to the slot: the next one's id goes to this place of its ring,
    modulo the window's size."""
    newest: PairId = BEFORE_ALL
    newest_time_ms: int = 0
    """When the newest pair happened (ms, UTC)."""
    fresh: int = 0
    """How many events have come since the stream was last adapted."""
    changed_in: int = 0
    """The number of the last `Streams.slide` that had an event of it."""
    last: LastPublication | None = None
    unpublished_since_ms: int | None = None
    """Record time (ms, UTC) of the oldest event that no published mapping reflects yet."""

    def returned(self, slot: int) -> Stream:
        """Returns what holds of it when it is back in memory, its window still to be filled."""
        return Stream(
            self.id,
            slot,
            fresh=self.fresh,
            last=self.last,
            unpublished_since_ms=self.unpublished_since_ms,
        )

    def count_in(self, pair: Pair, shape: WindowShape) -> bool:
        """Counts the pair as held. Returns False for a replay, which changes nothing: a pair at or
        before the newest one was here already."""
        if pair.id <= self.newest:
            return False
        self.newest, self.newest_time_ms = pair.id, pair.time_ms
        self.added += 1
        if self.pairs < shape.size:
            self.pairs += 1
        return True


class Streams:
    """The streams in memory; the store has all streams."""

    def __init__(self, shape: WindowShape, windows: Windows, slots: int) -> None:
        """`slots` is how many streams there is room for."""
        self._shape = shape
        self._windows = windows
        self._streams: dict[StreamId, Stream] = {}
        self._by_slot: list[StreamId | None] = []
        """Of the slots that were ever used."""
        self._slides = 0
        self._random = random.Random(0)
        self._watch = DriftWatch(slots, shape.size)
        self._free = list(reversed(range(slots)))
        self._evicted: OrderedDict[StreamId, Stream] = OrderedDict()
        self._most_evicted = REMEMBERED * slots
        self._placed_ZW3 = np.zeros((slots, shape.size, 3), np.int64)
        """Offset, place and time (ms, UTC) of each pair, in a ring for each slot. Memory that is
        not used yet takes none."""

    def __len__(self) -> int:
        return len(self._streams)

    def __contains__(self, stream_id: StreamId) -> bool:
        return stream_id in self._streams

    def __getitem__(self, stream_id: StreamId) -> Stream:
        return self._streams[stream_id]

    def __iter__(self) -> Iterator[StreamId]:
        return iter(self._streams)

    @property
    def window_bytes(self) -> int:
        """Memory that the windows of these streams take once they are full."""
        return len(self._streams) * self._windows.bytes_per_stream

    def use(self, windows: Windows) -> None:
        """Keeps pairs in these windows from now on, which have as many slots. Raises ValueError
        while there are streams, whose pairs lie in the windows used before."""
        if self._streams:
            raise ValueError(f"{len(self._streams)} streams have pairs in other windows")
        self._windows = windows

    def add(self, kept: Mapping[StreamId, Sequence[Pair]]) -> int:
        """Adds streams with the pairs that the store kept of them; new streams have none. Those
        that were evicted go on as if they had stayed. Returns how many of those there are.

        Each gets the slot that was freed last: no more slots are ever touched than there were
        streams at one time.
        """
        returned = 0
        for stream_id in kept:
            slot = self._free.pop()
            self._windows.clear(slot)
            self._watch.clear(slot)
            before = self._evicted.pop(stream_id, None)
            returned += before is not None
            self._streams[stream_id] = before.returned(slot) if before else Stream(stream_id, slot)
            self._by_slot += [None] * (slot + 1 - len(self._by_slot))
            self._by_slot[slot] = stream_id
        for slid in self.slide(kept.items()):
            self.mark_stored(slid.stream)
        return returned

    def mark_stored(self, stream_id: StreamId) -> int:
        """Notes that the store is asked to have all pairs of the window. Returns how many it had
        before."""
        stream = self._streams[stream_id]
        before, stream.stored = stream.stored, stream.pairs
        return before

    def slide(self, arrived: Iterable[tuple[StreamId, Sequence[Pair]]]) -> list[Slid]:
        """Adds pairs to their streams' windows, all in one append, and returns what each item did.
        Raises KeyError for a stream that is not in memory."""
        slots: list[int] = []
        rings: list[int] = []
        fresh: list[Pair] = []
        slid: list[Slid] = []
        size = self._shape.size
        self._slides += 1
        for stream_id, pairs in arrived:
            stream = self._streams[stream_id]
            stream.changed_in = self._slides
            new = [pair for pair in pairs if stream.count_in(pair, self._shape)]
            slots += [stream.slot] * len(new)
            rings += [at % size for at in range(stream.added - len(new), stream.added)]
            fresh += new
            slid.append(Slid(stream_id, new, self._shape.ready(stream.pairs)))
        if slots:
            # of several pairs at one place the last one stays, as in the windows
            self._placed_ZW3[slots, rings] = [(*p.id, p.time_ms) for p in fresh]
            self._windows.append(slots, [p.x_D for p in fresh], [p.y_E for p in fresh])
            self._watch.append(slots, [p.id.offset for p in fresh])
        return slid

    def window(self, stream_id: StreamId) -> list[Pair]:
        """Returns a copy of the stream's pairs, oldest first."""
        stream = self._streams[stream_id]
        x_ND, y_NE = self._windows.pairs(Cut(stream.slot, stream.pairs, 0))
        rings = [at % self._shape.size for at in range(stream.added - stream.pairs, stream.added)]
        placed = self._placed_ZW3[stream.slot, rings].tolist()
        return [
            Pair(PairId(offset, place), x_D, y_E, time_ms)
            for (offset, place, time_ms), x_D, y_E in zip(placed, x_ND, y_NE, strict=True)
        ]

    def ready(self, stream_id: StreamId) -> bool:
        """Returns whether the stream's window can be cut."""
        return self._shape.ready(self._streams[stream_id].pairs)

    def cut(self, stream_id: StreamId, *, wanted: bool = True) -> Cut:
        """Cuts the stream's window into support and query, and counts its events anew. `wanted`:
        whether the mapping will probably be published. Raises ValueError when it is not ready."""
        stream = self._streams[stream_id]
        query = self._shape.query_of(stream.pairs)
        stream.fresh = 0
        return Cut(stream.slot, stream.pairs - query, query, wanted)

    def pairs(self, cut: Cut) -> tuple[FloatArray, FloatArray]:
        """Returns a copy of a cut's pairs, oldest first: x (N, D) and y (N, E)."""
        return self._windows.pairs(cut)

    def since(self, cut: Cut) -> int:
        """Returns the offset of the oldest event in a cut."""
        return self._watch.oldest(cut.slot, cut.support + cut.query)

    def challenge(self, cut: Cut) -> Cut | None:
        """Returns the cut of the pairs since the stream is suspected to have changed, where it is,
        see `DriftWatch.challenge`."""
        return self._watch.challenge(cut, self._shape.min_support)

    def standard_errors(self, cut: Cut) -> float:
        """Returns by how many a challenge has to win, see `DriftWatch.standard_errors`."""
        return self._watch.standard_errors(cut.slot)

    def observe(self, cuts: Sequence[Cut], adaptations: Sequence[Adaptation]) -> int:
        """Watches for changes in what adaptations were judged by. Returns how many streams it
        suspects that it did not before."""
        told = [(c, a.evidence) for c, a in zip(cuts, adaptations, strict=True) if a.evidence]
        if not told:
            return 0
        losses_BQ = np.stack([evidence.squared_Q for _, evidence in told])
        judges_BQ = np.stack([evidence.judges_Q for _, evidence in told])
        return self._watch.observe([cut for cut, _ in told], losses_BQ, judges_BQ)

    def shorten(self, stream_id: StreamId, pairs: int) -> None:
        """Removes all but the newest pairs from the stream's window, as the store has done.
        Adaptations that were made of those can still be read."""
        stream = self._streams[stream_id]
        stream.pairs = stream.stored = pairs
        self._windows.shorten(stream.slot, pairs)
        self._watch.settle(stream.slot)

    def adapt(self, cuts: Sequence[Cut]) -> Sequence[Adaptation]:
        """Adapts the mapping of every cut, see `Windows.adapt`."""
        return self._windows.adapt(cuts) if cuts else []

    @property
    def batch_splits(self) -> int:
        """How often the last batch was halved, see `Windows.batch_splits`."""
        return self._windows.batch_splits

    def drop(self, partition: int) -> list[StreamId]:
        """Removes the streams of a partition, and returns which they were. Forgets those that were
        evicted, too."""
        for stream_id in [each for each in self._evicted if each.partition == partition]:
            del self._evicted[stream_id]
        ids = [stream_id for stream_id in self._streams if stream_id.partition == partition]
        self._remove(ids)
        return ids

    def evict(self, most: int, busy: Callable[[StreamId], bool]) -> int:
        """Removes streams until `most` are left, except the busy ones. Returns how many it removed.
        They come back from the store with their next event, or when they are due. Of those
        evicted, a limited number is remembered, the last.

        Of two streams chosen by chance the one goes that changed longer ago. Where events come in
        rounds, the one that changed longest ago is the very next to be needed: of a tenth more
        streams than fit each would be read back at each of its events, and so it is every fourth.
        """
        gone = 0
        while len(self._streams) > most and (chosen := self._chosen(busy)) is not None:
            self._evicted[chosen] = self._streams[chosen]
            self._remove([chosen])
            gone += 1
        while len(self._evicted) > self._most_evicted:
            self._evicted.popitem(last=False)
        return gone

    def _chosen(self, busy: Callable[[StreamId], bool]) -> StreamId | None:
        """Returns the stream to evict next; None where all are busy."""
        drawn: set[StreamId] = set()
        for _ in range(DRAWS):
            stream_id = self._random.choice(self._by_slot)
            if stream_id is not None and not busy(stream_id):
                drawn.add(stream_id)
            if len(drawn) == 2:
                break
        if not drawn:
            return next((each for each in self._streams if not busy(each)), None)
        return min(drawn, key=lambda each: (self._streams[each].changed_in, each))

    def _remove(self, ids: Iterable[StreamId]) -> None:
        for stream_id in ids:
            slot = self._streams.pop(stream_id).slot
            self._free.append(slot)
            self._by_slot[slot] = None
