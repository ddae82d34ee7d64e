"""A stream's newest pairs: slide them, say when there are enough, cut an episode. Pure.

N = pairs held, W = window size (support + query), D = source dim, E = target dim
S = support pairs, Q = query pairs
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from model.episode import Episode, FloatArray


class PairId(NamedTuple):
    """Where a pair came from: its record's offset, and its place among the record's pairs."""

    offset: int
    place: int


@dataclass(frozen=True, slots=True)
class Pair:
    """One pair's features, x (D,) and y (E,) float32, and when it happened (ms, UTC)."""

    id: PairId
    x_D: FloatArray
    y_E: FloatArray
    time_ms: int


@dataclass(frozen=True, slots=True)
class WindowShape:
    """How large windows are and how they are cut."""

    support_size: int
    query_size: int
    min_support: int
    source_dim: int
    target_dim: int

    @property
    def size(self) -> int:
        """W: the most pairs a window holds."""
        return self.support_size + self.query_size

    @property
    def slots(self) -> int:
        """Rows allocated: some more than W, so that sliding moves memory only now and then."""
        return self.size + max(8, self.size // 4)

    @property
    def nbytes(self) -> int:
        """Bytes of one window in memory."""
        return self.slots * (4 * (self.source_dim + self.target_dim) + 24)


class Window:
    """The newest W pairs of one stream, in the order of their ids.

    Rows lie in one block from `_first` to `_end`; when the block reaches the end of the memory it
    is moved to the front. So a cut is a view, never a copy, and is valid until the next `slide`.
    """

    __slots__ = ("_end", "_first", "_ids", "_shape", "_times", "_x", "_y")

    def __init__(self, shape: WindowShape, pairs: Sequence[Pair] = ()) -> None:
        self._shape = shape
        self._x = np.empty((shape.slots, shape.source_dim), np.float32)
        self._y = np.empty((shape.slots, shape.target_dim), np.float32)
        self._ids: NDArray[np.int64] = np.empty((shape.slots, 2), np.int64)
        self._times: NDArray[np.int64] = np.empty(shape.slots, np.int64)
        self._first = self._end = 0
        for pair in pairs:
            self.slide(pair)

    def __len__(self) -> int:
        return self._end - self._first

    @property
    def newest(self) -> PairId:
        """The id of the newest pair; before every pair's when there is none."""
        return self._id(self._end - 1) if len(self) else PairId(-1, -1)

    @property
    def newest_time_ms(self) -> int:
        """When the newest pair happened (ms, UTC)."""
        return int(self._times[self._end - 1])

    def ids(self) -> list[PairId]:
        """The ids of all pairs, oldest first."""
        return [self._id(row) for row in range(self._first, self._end)]

    def _id(self, row: int) -> PairId:
        return PairId(int(self._ids[row, 0]), int(self._ids[row, 1]))

    def slide(self, pair: Pair) -> bool:
        """Take the pair in and let the oldest go when full; False for a replay, which changes
        nothing: a pair at or before the newest was here already."""
        if pair.id <= self.newest:
            return False
        if self._end == len(self._x):
            self._move_to_front()
        row = self._end
        self._x[row] = pair.x_D
        self._y[row] = pair.y_E
        self._ids[row] = pair.id
        self._times[row] = pair.time_ms
        self._end += 1
        self._first = max(self._first, self._end - self._shape.size)
        return True

    def _move_to_front(self) -> None:
        keep = slice(self._first, self._end)
        n = len(self)
        for rows in (self._x, self._y, self._ids, self._times):
            rows[:n] = rows[keep].copy()
        self._first, self._end = 0, n

    @property
    def ready(self) -> bool:
        """Whether an episode can be cut: the smallest support, and one pair to judge on."""
        return len(self) > self._shape.min_support

    def cut(self) -> Episode:
        """The newest pairs as query (at most `query_size`, at least one), the older as support.

        Raises ValueError when the window is not ready.
        """
        if not self.ready:
            raise ValueError(f"a window of {len(self)} pairs is not ready")
        n_query = min(self._shape.query_size, len(self) - self._shape.min_support)
        middle = self._end - n_query
        return Episode(
            x_support_SD=self._x[self._first : middle],
            y_support_SE=self._y[self._first : middle],
            x_query_QD=self._x[middle : self._end],
            y_query_QE=self._y[middle : self._end],
        )
