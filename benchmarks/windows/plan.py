"""What `python -m benchmarks windows` measures, and the pairs that fill the windows.

W = window size (support + query), D = source dim, E = target dim, H = hidden units
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from daemon.turn.streams import StreamId, Streams
from daemon.turn.window import Pair, PairId, WindowShape
from model.serving.engine import Engine
from model.theta.meta_init import fresh_meta_init

FLOAT_BYTES = 4
BLOCK = 1_024  # one block of random vectors, used again and again, costs nothing to make
Arrivals = list[tuple[StreamId, list[Pair]]]


@dataclass(frozen=True, slots=True)
class WindowsPlan:
    """One benchmark. Memory is measured twice, raw features in memory and in a file."""

    streams: int = 100_000
    """Fewer where they do not fit: in half of the memory that can be had, and half of the disk."""
    in_memory_streams: int = 20_000
    """Where raw features lie in memory, too; each takes as much as in 100,000."""
    dim: int = 512  # D and E
    hidden_dim: int = 128
    support_size: int = 28
    query_size: int = 4
    inner_steps: int = 5
    turn_pairs: int = 256  # taken in at once
    adapt_every: int = 4  # while it goes on, every so-manieth stream that got a pair is adapted
    going_on_s: float = 10.0  # how long pairs keep coming once all windows are full
    sample_pairs: int = 1_000  # the resident set is read whenever so many more have come
    batches: tuple[int, ...] = (1, 32, 256, 1_024)  # sizes of one append whose rates are measured
    batch_s: float = 1.0
    cold_s: float = 2.0  # how long pairs come to windows whose features are on the disk alone
    store_streams: int = 2_000  # in Redis, for eviction and the cold start
    store_partitions: int = 8
    store_room: float = 0.5
    """Share of them that memory has room for, while they are evicted and come back."""
    store_turns: int = 40  # in which they do
    torch_threads: int = 1
    seed: int = 1

    @property
    def window_size(self) -> int:
        """Pairs of a full window."""
        return self.support_size + self.query_size

    @property
    def raw_bytes(self) -> int:
        """Size of one stream's features."""
        return self.window_size * 2 * self.dim * FLOAT_BYTES

    def shape(self) -> WindowShape:
        """Returns the shape as the loop has it."""
        sizes = (self.support_size, self.query_size, self.support_size)
        return WindowShape(*sizes, self.dim, self.dim)

    def warm_engine(self, spill_dir: Path | None = None) -> Engine:
        """Returns an engine whose first calls are behind it: what they leave in memory is nobody's
        window. Its θ is not meta-trained."""
        theta = fresh_meta_init(self.dim, self.dim, self.hidden_dim, self.inner_steps)
        engine = Engine(
            theta,
            "cpu",
            support_capacity=self.support_size,
            query_capacity=self.query_size,
            spill_dir=spill_dir,
        )
        feed, some = Feed(self), names(self, self.turn_pairs)
        streams = Streams(self.shape(), engine.windows(len(some)), len(some))
        streams.add({stream: [feed.pair() for _ in range(self.window_size)] for stream in some})
        streams.slide([(stream, [feed.pair()]) for stream in some])
        streams.adapt([streams.cut(stream) for stream in some])
        return engine


QUICK = WindowsPlan(
    streams=60,
    dim=16,
    hidden_dim=16,
    support_size=5,
    query_size=3,
    inner_steps=2,
    turn_pairs=16,
    going_on_s=0.2,
    sample_pairs=50,
    batches=(1, 16),
    batch_s=0.05,
    cold_s=0.05,
    store_streams=40,
    store_partitions=2,
    store_turns=4,
)


class Feed:
    """Gives out pairs whose ids rise."""

    def __init__(self, plan: WindowsPlan) -> None:
        self.rng = np.random.default_rng(plan.seed)
        self.x_D, self.y_E = (
            list(self.rng.standard_normal((BLOCK, plan.dim), np.float32)) for _ in "xy"
        )
        self._given = 0

    def pair(self) -> Pair:
        """Returns the next pair."""
        at = self._given
        self._given += 1
        return Pair(PairId(at, 0), self.x_D[at % BLOCK], self.y_E[at % BLOCK], at)

    def chosen(self, of: int, count: int) -> list[int]:
        """Returns different numbers below `of`, by chance."""
        return list(map(int, self.rng.choice(of, min(of, count), replace=False)))

    def full_windows(self, ids: Sequence[StreamId], plan: WindowsPlan) -> Iterator[Arrivals]:
        """Yields all pairs of every stream, about a turn's pairs at a time."""
        for some in chunks(ids, max(1, plan.turn_pairs // plan.window_size)):
            yield [(stream, [self.pair() for _ in range(plan.window_size)]) for stream in some]


def names(plan: WindowsPlan, count: int) -> list[StreamId]:
    """Returns so many streams, dealt out to the partitions."""
    return [StreamId(n % plan.store_partitions, f"stream-{n:06}") for n in range(count)]


def chunks(ids: Sequence[StreamId], size: int) -> Iterator[Sequence[StreamId]]:
    """Yields the streams, so many at a time."""
    for start in range(0, len(ids), size):
        yield ids[start : start + size]
