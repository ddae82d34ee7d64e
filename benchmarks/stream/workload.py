"""The events: which streams they belong to, and their bytes. The same for the same seed.

W = window size, D = source dim (and target dim)
"""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np

from daemon.wire.paired_event import PairedEvent, WirePair, encode_event, vector
from model.values.arrays import FloatArray

SOURCES = 509
"""Distinct source vectors: making one for each event would cost more than sending it. A prime, so
that a stream meets them all whatever the number of streams."""
PHASES = 4
"""Streams start at so many different counts of events, so that those which adapt on every fourth
event do not all do it in the same round."""


class Made(NamedTuple):
    """One event, ready to send."""

    partition: int
    key: bytes
    value: bytes


@dataclass(frozen=True)
class Workload:
    """Events of `streams` streams, one endless sequence.

    It begins with a filling event of W pairs for each stream, which fills its window at once. Then
    come single pairs: a stream of phase p gets p extra ones; after those, every round has each
    stream once, in the same order (sensors on a timetable), so that however records are batched no
    stream has two of a partition's neighbouring events.

    A target is a linear map of the source, half as large as the stream's own offset: enough to
    learn from a few pairs, so that the gate lets nearly every mapping through.
    """

    dim: int
    streams: int
    partitions: int
    window_size: int
    seed: int

    @cached_property
    def _order(self) -> list[int]:
        rng = np.random.default_rng((self.seed, 1))
        return [int(stream) for stream in rng.permutation(self.streams)]

    @cached_property
    def _head(self) -> list[int]:
        """The streams of the events before the rounds."""
        phases = range(1, PHASES)
        extra = [s for p in phases for i, s in enumerate(self._order) if i % PHASES >= p]
        return self._order + extra

    @cached_property
    def _features(self) -> tuple[FloatArray, FloatArray, FloatArray]:
        rng = np.random.default_rng((self.seed, 0))
        x = rng.standard_normal((SOURCES, self.dim), np.float32)
        shared_DD = rng.standard_normal((self.dim, self.dim), np.float32)
        y = 0.5 * (x @ shared_DD) / np.sqrt(np.float32(self.dim))
        return x, y, rng.standard_normal((self.streams, self.dim), np.float32)

    @property
    def head_count(self) -> int:
        """Events before the rounds begin."""
        return len(self._head)

    def stream_at(self, index: int) -> int:
        """Returns the stream of the event of this index."""
        beyond = index - len(self._head)
        return self._head[index] if beyond < 0 else self._order[beyond % self.streams]

    def pairs_at(self, index: int) -> tuple[FloatArray, FloatArray]:
        """Returns x and y, (W, D) of a filling event and (1, D) of any other."""
        x, y, offsets = self._features
        count = self.window_size if index < self.streams else 1
        at = (index * self.window_size + np.arange(count)) % SOURCES
        return x[at], y[at] + offsets[self.stream_at(index)]

    def events(self, first: int, count: int) -> Iterator[Made]:
        """Yields the events of `count` indices from `first` on."""
        sources = [vector(x_D) for x_D in self._features[0]]
        for index in range(first, first + count):
            stream, (_, y) = self.stream_at(index), self.pairs_at(index)
            at = [(index * self.window_size + i) % SOURCES for i in range(len(y))]
            pairs = [WirePair(sources[i], vector(y_D)) for i, y_D in zip(at, y, strict=True)]
            value = encode_event(PairedEvent(pairs))
            yield Made(stream % self.partitions, stream_name(stream).encode(), value)

    def window(self, stream: int, offset: int) -> tuple[FloatArray, FloatArray]:
        """Returns x and y (W, D) of the stream's newest W pairs up to this offset of its
        partition, in a topic that holds the events from the first on."""
        partition, indices = stream % self.partitions, itertools.count()
        mine = (i for i in indices if self.stream_at(i) % self.partitions == partition)
        upto = itertools.islice(mine, offset + 1)
        pairs = [self.pairs_at(i) for i in upto if self.stream_at(i) == stream]
        x, y = (np.concatenate(side) for side in zip(*pairs, strict=True))
        return x[-self.window_size :], y[-self.window_size :]


def stream_name(stream: int) -> str:
    """Returns a stream's key."""
    return f"stream-{stream:06d}"


def stream_number(name: str) -> int:
    """Returns the stream of a key."""
    return int(name.removeprefix("stream-"))
