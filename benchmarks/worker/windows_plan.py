"""What `python -m benchmarks windows` measures, and how much of it.

W = window size (support + query), D = source dim, E = target dim, H = hidden
"""

from __future__ import annotations

from dataclasses import dataclass

from daemon.turn.window import WindowShape
from model.theta.meta_init import MetaInit, fresh_meta_init

FLOAT_BYTES = 4


@dataclass(frozen=True, slots=True)
class Plan:
    """One benchmark. Memory is measured twice, raw features in memory and in a file."""

    streams: int = 100_000
    """Fewer where they do not fit: in half of the memory that can be had, and half of the disk."""
    in_memory_streams: int = 20_000
    """Where raw features lie in memory, too; each takes as much as in 100,000."""
    dim: int = 512
    """D and E."""
    hidden_dim: int = 128
    support_size: int = 28
    query_size: int = 4
    inner_steps: int = 5
    turn_pairs: int = 256
    """Pairs taken in at once."""
    adapt_every: int = 4
    """While it goes on, every so-manieth stream that got a pair is adapted."""
    going_on_s: float = 10.0
    """How long pairs keep coming once all windows are full."""
    sample_pairs: int = 1_000
    """The resident set is read whenever so many more have come."""
    batches: tuple[int, ...] = (1, 32, 256, 1_024)
    """Sizes of one append whose rates are measured."""
    batch_s: float = 1.0
    cold_s: float = 2.0
    """How long pairs come to windows whose features are on the disk alone."""
    store_streams: int = 2_000
    """In Redis, for eviction and the cold start."""
    store_partitions: int = 8
    store_room: float = 0.5
    """Share of them that memory has room for, while they are evicted and come back."""
    store_turns: int = 40
    """In which they do."""
    torch_threads: int = 1
    seed: int = 1

    @property
    def window_size(self) -> int:
        """W."""
        return self.support_size + self.query_size

    @property
    def raw_bytes(self) -> int:
        """Of one stream's features."""
        return self.window_size * 2 * self.dim * FLOAT_BYTES

    def shape(self) -> WindowShape:
        """As the loop has it."""
        sizes = (self.support_size, self.query_size, self.support_size)
        return WindowShape(*sizes, self.dim, self.dim)

    def theta(self) -> MetaInit:
        """Not meta-trained."""
        return fresh_meta_init(self.dim, self.dim, self.hidden_dim, self.inner_steps)


QUICK = Plan(
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
"""Shows that everything works; its figures mean little."""


def fitting(wanted: int, bytes_per_stream: int, room: int) -> int:
    """As many of the wanted streams as take at most half of the room; one at least."""
    return max(1, min(wanted, room // 2 // max(1, bytes_per_stream)))
