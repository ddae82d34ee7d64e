"""The events: which streams they belong to, and their bytes. The same for the same seed.

D = source dim, E = target dim
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import NamedTuple

import numpy as np

from daemon.wire.paired_event import PairedEvent, WirePair, encode, vector

SOURCES = 512
"""Distinct source vectors: making one for each event would cost more than sending it."""


class Made(NamedTuple):
    """One event, ready to send."""

    partition: int
    key: bytes
    value: bytes


@dataclass(frozen=True, slots=True)
class Workload:
    """Events of `streams` streams. Part 0 begins with `rounds` in which each stream comes once;
    every later event's stream is drawn at random, all equally likely.

    A target is a linear map of the source, half as large as the stream's own offset: enough to
    learn from a few pairs, so that the gate lets nearly every mapping through.
    """

    source_dim: int
    target_dim: int
    streams: int
    partitions: int
    rounds: int
    seed: int

    def events(self, count: int, part: int = 0) -> Iterator[Made]:
        """`count` events; other events for another `part`."""
        rng = np.random.default_rng((self.seed, 0))
        x = rng.standard_normal((SOURCES, self.source_dim), np.float32)
        shared_DE = rng.standard_normal((self.source_dim, self.target_dim), np.float32)
        y = 0.5 * (x @ shared_DE) / np.sqrt(np.float32(self.source_dim))
        offsets = rng.standard_normal((self.streams, self.target_dim), np.float32)
        sources = [vector(x_D) for x_D in x]
        keys = [stream_name(stream).encode() for stream in range(self.streams)]
        for i, stream in enumerate(self._drawn(count, part)):
            at = i % SOURCES
            pair = WirePair(sources[at], vector(y[at] + offsets[stream]))
            yield Made(stream % self.partitions, keys[stream], encode(PairedEvent([pair])))

    def pairs_by_stream(self, *counts: int) -> Counter[str]:
        """How many events each stream gets from the first parts of these sizes."""
        drawn: Counter[str] = Counter()
        for part, count in enumerate(counts):
            drawn.update(map(stream_name, self._drawn(count, part)))
        return drawn

    def event_bytes(self) -> int:
        """Size of one record's value."""
        return len(next(islice(self.events(1), 1)).value)

    def _drawn(self, count: int, part: int) -> list[int]:
        rng = np.random.default_rng((self.seed, 1, part))
        rounds = [rng.permutation(self.streams) for _ in range(0 if part else self.rounds)]
        drawn = np.concatenate([*rounds, rng.integers(0, self.streams, count)])
        return [int(stream) for stream in drawn[:count]]


def stream_name(stream: int) -> str:
    """A stream's key."""
    return f"stream-{stream:06d}"
