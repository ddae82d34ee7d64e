"""Many streams' newest pairs in memory: ring buffers in two blocks that are reserved once.

Z = slots (one for each stream), W = window size, R = rows (new pairs), N = pairs of a stream,
D = source dim, E = target dim, S = support pairs, Q = query pairs

A slot's pairs lie in a ring: a new pair takes the place of the oldest, nothing else moves. No
object stands for a stream or a pair; memory becomes resident as slots are used, and a slot that is
let go is the next to be used again.
"""

from __future__ import annotations

import mmap
import os
import tempfile
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from model.serving.device_faults import in_parts, lost_device_told
from model.serving.repeats import digests, new_to, single
from model.values.arrays import FloatArray
from model.values.episode import Adaptation, Cut, Episode

Slots = NDArray[np.int64]
_NO_RESERVE = getattr(mmap, "MAP_NORESERVE", 0x4000)
"""Linux: memory counts when it is touched, not when it is reserved."""
_HUGE_PAGES: int | None = getattr(mmap, "MADV_HUGEPAGE", None)
"""Slots are touched in no order, and each page of 4 KB would have to be looked up anew."""


class RawWindows:
    """The features themselves. Rings are addressed as rows of one long array: slot · W + place."""

    def __init__(
        self,
        capacity: int,
        size: int,
        source_dim: int,
        target_dim: int,
        spill_dir: Path | None = None,
    ) -> None:
        """Room for `capacity` streams of `size` pairs. With `spill_dir` the pairs lie in a file
        there that has no name, so the kernel may write them out where memory is short.

        Raises OSError when the file cannot be made."""
        self.capacity, self.size = capacity, size
        self._blocks = [Block((capacity, size, dim), spill_dir) for dim in (source_dim, target_dim)]
        self.x_ZWD, self.y_ZWE = (block.array for block in self._blocks)
        self._digests_ZW = np.zeros((capacity, size), np.uint64)
        self._next = [0] * capacity
        self._count = [0] * capacity

    def count(self, slot: int) -> int:
        """Returns how many pairs a slot holds, at most W."""
        return self._count[slot]

    def prefetch(self, slots: Sequence[int]) -> None:
        """Lets the kernel read these slots from disk ahead, where they are spilled."""
        for block in self._blocks:
            block.prefetch(slots)

    def clear(self, slot: int) -> None:
        """Lets go of a slot's pairs."""
        self._next[slot] = self._count[slot] = 0

    def append(self, slots: Sequence[int], x_RD: FloatArray, y_RE: FloatArray) -> list[int]:
        """Takes new pairs in, a stream's in order, and returns the row that each went to.

        A pair that later pairs of the same call have already displaced has row -1.
        """
        self.prefetch(slots)
        rows = [self._advance(slot) for slot in slots]
        if len(rows) > self.size:
            rows = _newest_only(rows)
        kept = np.fromiter((row >= 0 for row in rows), np.bool_, len(rows))
        where = np.array(rows, np.int64)
        if not kept.all():
            where, x_RD, y_RE = where[kept], x_RD[kept], y_RE[kept]
        self.x_ZWD.reshape(-1, x_RD.shape[1])[where] = x_RD
        self._digests_ZW.reshape(-1)[where] = digests(x_RD)
        self.y_ZWE.reshape(-1, y_RE.shape[1])[where] = y_RE
        return rows

    def _advance(self, slot: int) -> int:
        place = self._next[slot]
        self._next[slot] = place + 1 if place + 1 < self.size else 0
        if self._count[slot] < self.size:
            self._count[slot] += 1
        return slot * self.size + place

    def shorten(self, slot: int, pairs: int) -> None:
        """Lets go of all but the newest pairs of a slot."""
        self._count[slot] = min(self._count[slot], pairs)

    def first(self, cut: Cut) -> int:
        """Returns the place of a cut's oldest pair; the others follow, round the ring. Raises
        ValueError when the slot holds fewer pairs than the cut has."""
        pairs = cut.support + cut.query
        if pairs > self._count[cut.slot]:
            raise ValueError(f"cut {cut} of a window of {self._count[cut.slot]} pairs")
        return (self._next[cut.slot] - pairs) % self.size

    def episode(self, cut: Cut) -> Episode:
        """Returns a copy of a slot's newest pairs, cut. Raises ValueError when it holds fewer."""
        x_ND, y_NE = self._rows(cut, cut.support + cut.query)
        return Episode(
            x_ND[: cut.support], y_NE[: cut.support], x_ND[cut.support :], y_NE[cut.support :]
        )

    def pairs(self, cut: Cut) -> tuple[FloatArray, FloatArray]:
        """Returns a copy of support and query together, x and y. Raises ValueError as `episode`
        does."""
        return self._rows(cut, cut.support + cut.query)

    def support(self, cut: Cut) -> tuple[FloatArray, FloatArray]:
        """Returns a copy of the support alone, x and y. Raises ValueError as `episode` does."""
        return self._rows(cut, cut.support)

    def judges(self, cut: Cut) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """Returns which query pairs have a source that is not in the support (Q), and which support
        pairs one that is in no other (S)."""
        own_N = self._digests_ZW[cut.slot].take(self._places(cut, cut.support + cut.query))
        support_S = own_N[: cut.support]
        return new_to(support_S, own_N[cut.support :]), single(support_S)

    def _rows(self, cut: Cut, pairs: int) -> tuple[FloatArray, FloatArray]:
        """x and y of the cut's oldest pairs."""
        places = self._places(cut, pairs)
        return self.x_ZWD[cut.slot].take(places, 0), self.y_ZWE[cut.slot].take(places, 0)

    def _places(self, cut: Cut, pairs: int) -> list[int]:
        first = self.first(cut)
        return [place % self.size for place in range(first, first + pairs)]


class EpisodeWindows:
    """Windows of an engine that adapts whole episodes: the pairs are gathered whenever it does."""

    def __init__(
        self,
        raw: RawWindows,
        adapt: Callable[[Sequence[Episode], Sequence[bool]], Sequence[Adaptation]],
    ) -> None:
        """`adapt` takes episodes, and which of their mappings are wanted."""
        self._raw = raw
        self._adapt = adapt
        self.batch_splits = 0
        """How often the last `adapt` halved its cuts because the device's memory was short."""

    def append(
        self, slots: Sequence[int], x_D: Sequence[FloatArray], y_E: Sequence[FloatArray]
    ) -> None:
        """Takes new pairs in, a stream's in order."""
        self._raw.append(slots, np.stack(x_D), np.stack(y_E))

    def clear(self, slot: int) -> None:
        """Lets go of a slot's pairs."""
        self._raw.clear(slot)

    def shorten(self, slot: int, pairs: int) -> None:
        """Lets go of all but the newest pairs of a slot. What was adapted to those can still be
        read."""
        self._raw.shorten(slot, pairs)

    def pairs(self, cut: Cut) -> tuple[FloatArray, FloatArray]:
        """Returns a copy of a slot's pairs, x and y. Raises ValueError as `RawWindows.pairs`."""
        return self._raw.pairs(cut)

    def adapt(self, cuts: Sequence[Cut]) -> Sequence[Adaptation]:
        """Returns the adaptation of every cut, in order. Raises DeviceLost."""
        with lost_device_told():
            found, self.batch_splits = in_parts(self._adapt_all, cuts)
        return found

    def _adapt_all(self, cuts: Sequence[Cut]) -> list[Adaptation]:
        episodes = [self._raw.episode(cut) for cut in cuts]
        return list(self._adapt(episodes, [cut.wanted for cut in cuts]))

    @property
    def bytes_per_stream(self) -> int:
        """Bytes that one slot takes once it is full."""
        return stream_bytes(self._raw)


def stream_bytes(raw: RawWindows) -> int:
    """Returns the bytes of one slot's features."""
    per_pair = raw.x_ZWD.shape[2] + raw.y_ZWE.shape[2]
    return int(raw.size * per_pair * raw.x_ZWD.itemsize)


def reserved(shape: tuple[int, ...]) -> FloatArray:
    """Returns zeros that take memory only once they are written to."""
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _NO_RESERVE
    block = mmap.mmap(-1, _nbytes(shape), flags=flags)
    if _HUGE_PAGES is not None:
        with suppress(OSError):  # a kernel without them
            block.madvise(_HUGE_PAGES)
    return _as_array(block, shape)


class Block:
    """Features of one slot after another, in memory or in a file without a name."""

    def __init__(self, shape: tuple[int, ...], spill_dir: Path | None) -> None:
        """Raises OSError when the file cannot be made."""
        self._file: mmap.mmap | None = None
        if spill_dir is None:
            self.array = reserved(shape)
            return
        with tempfile.TemporaryFile(dir=spill_dir) as file:
            os.ftruncate(file.fileno(), _nbytes(shape))
            self._file = mmap.mmap(file.fileno(), _nbytes(shape), flags=mmap.MAP_SHARED)
        # neighbours in the file belong to other streams: reading ahead would read for nothing
        self._file.madvise(mmap.MADV_RANDOM)
        self.array = _as_array(self._file, shape)

    def prefetch(self, slots: Sequence[int]) -> None:
        """Let the kernel read these slots from disk all at once, not one fault after another."""
        if self._file is None:
            return
        nbytes = self.array[0].nbytes
        for slot in slots:
            first = slot * nbytes // mmap.PAGESIZE * mmap.PAGESIZE
            self._file.madvise(mmap.MADV_WILLNEED, first, (slot + 1) * nbytes - first)


def _nbytes(shape: tuple[int, ...]) -> int:
    return max(1, int(np.prod(shape)) * 4)


def _as_array(block: mmap.mmap, shape: tuple[int, ...]) -> FloatArray:
    return np.frombuffer(block, np.float32, int(np.prod(shape))).reshape(shape)


def _newest_only(rows: list[int]) -> list[int]:
    """Of several pairs for one row, the last; the others become -1."""
    last = {row: i for i, row in enumerate(rows)}
    return [row if last[row] == i else -1 for i, row in enumerate(rows)]
