"""Pairs for the windows: one block of random vectors, used again and again, costs nothing to make.

W = window size, D = source dim, E = target dim
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from benchmarks.worker.windows_plan import Plan
from daemon.turn.streams import StreamId
from daemon.turn.window import Pair, PairId
from model.values.arrays import FloatArray

BLOCK = 1_024
Arrivals = list[tuple[StreamId, list[Pair]]]


class Feed:
    """Gives out pairs whose ids rise."""

    def __init__(self, plan: Plan) -> None:
        self._rng = np.random.default_rng(plan.seed)
        self.x_D, self.y_E = (
            list(self._rng.standard_normal((BLOCK, plan.dim), np.float32)) for _ in "xy"
        )
        self._given = 0

    def pair(self) -> Pair:
        """The next one."""
        at = self._given
        self._given += 1
        return Pair(PairId(at, 0), self.x_D[at % BLOCK], self.y_E[at % BLOCK], at)

    def vectors(self, count: int) -> tuple[Sequence[FloatArray], Sequence[FloatArray]]:
        """x and y of so many pairs."""
        times = -(-count // BLOCK)
        return (self.x_D * times)[:count], (self.y_E * times)[:count]

    def chosen(self, of: int, count: int) -> list[int]:
        """Different numbers below `of`, by chance."""
        return list(map(int, self._rng.choice(of, min(of, count), replace=False)))

    def slots(self, of: int, count: int) -> list[int]:
        """Numbers below `of`, by chance; some may be the same."""
        return [int(slot) for slot in self._rng.integers(of, size=count)]

    def full_windows(self, ids: Sequence[StreamId], plan: Plan) -> Iterator[Arrivals]:
        """All pairs of every stream, about a turn's pairs at a time."""
        at_once = max(1, plan.turn_pairs // plan.window_size)
        for start in range(0, len(ids), at_once):
            some = ids[start : start + at_once]
            yield [(id, [self.pair() for _ in range(plan.window_size)]) for id in some]


def names(plan: Plan, count: int) -> list[StreamId]:
    """Of so many streams, dealt out to the partitions."""
    return [StreamId(n % plan.store_partitions, f"stream-{n:06}") for n in range(count)]
