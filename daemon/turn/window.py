"""What a window is: which pairs it holds, when it has enough of them, how it is cut. Pure.

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
"""Smaller than the id of any pair."""


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
        """W: the most pairs that a window holds."""
        return self.support_size + self.query_size

    def ready(self, pairs: int) -> bool:
        """Returns whether so many pairs can be cut: into the smallest support and a query pair."""
        return pairs > self.min_support

    def query_of(self, pairs: int) -> int:
        """Returns how many of so many pairs are the query, the newest ones; the older pairs are
        the support. Raises ValueError when the pairs are too few to be cut."""
        if not self.ready(pairs):
            raise ValueError(f"a window of {pairs} pairs is not ready")
        return min(self.query_size, pairs - self.min_support)
