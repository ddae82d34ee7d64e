"""What a window is: which pairs it holds, when there are enough, how it is cut. Pure.

W = window size (support + query), D = source dim, E = target dim
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from model.values.arrays import FloatArray


class PairId(NamedTuple):
    """Where a pair came from: its record's offset, and its place among the record's pairs."""

    offset: int
    place: int


BEFORE_ALL = PairId(-1, -1)
"""Smaller than any pair's id."""


class Pair(NamedTuple):
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

    def ready(self, pairs: int) -> bool:
        """Whether so many can be cut: the smallest support, and one pair to judge on."""
        return pairs > self.min_support

    def query_of(self, pairs: int) -> int:
        """How many of so many, the newest, are the query; the older are support.

        Raises ValueError when they are not enough to be cut.
        """
        if not self.ready(pairs):
            raise ValueError(f"a window of {pairs} pairs is not ready")
        return min(self.query_size, pairs - self.min_support)
