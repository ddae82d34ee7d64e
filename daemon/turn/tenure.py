"""A worker's tenure of a partition: its epoch, how far it read, how far it may commit. Pure.

A tenure begins when the worker claims a partition that the group assigned to it, and ends when
the group revokes the partition, when another worker claims it, or when the worker recovers from a
fault. A partition that comes back begins a new tenure with a larger epoch.
"""

from __future__ import annotations

from typing import Literal

from daemon.turn.ports import Bounds
from daemon.turn.renewals import Renewals

Reset = Literal["earliest", "latest"]


def starting_offset(bounds: Bounds, position: int | None, reset: Reset, *, rebuild: bool) -> int:
    """Returns the offset from which to read a partition when its tenure begins.

    That is usually the committed offset. It is an earlier one when the store knows less than the
    group committed, because the store lost its newest writes: reading those events again restores
    the windows. `position` is the offset after the newest event in the store, or None when the
    store has nothing for the partition: then `rebuild` reads from the beginning.
    """
    if bounds.committed is None:
        start = _first_offset(bounds, position, reset)
    elif position is not None:
        start = min(bounds.committed, position)
    else:
        start = bounds.beginning if rebuild else bounds.committed
    return min(max(start, bounds.beginning), bounds.end)


def _first_offset(bounds: Bounds, position: int | None, reset: Reset) -> int:
    if reset == "earliest":
        return bounds.beginning
    return bounds.end if position is None else position


class Tenure:
    """How far one partition was read, and which streams hold its commit back.

    An offset is committed once every event before it has had its effect: it is in its window, and
    a mapping that reflects it is published, unless none is to be. So a worker that takes over
    reads again exactly the events whose mappings are still owed.
    """

    __slots__ = ("_held", "committed", "epoch", "marked", "next_offset", "renewals")

    def __init__(
        self,
        epoch: int,
        start: int,
        committed: int | None,
        renewals: Renewals | None = None,
        *,
        marked: bool = True,
    ) -> None:
        """`renewals`: the streams whose mapping may be of another θ, none by default. `marked`:
        whether the store knows that all mappings of the partition are of the θ that is served."""
        self.epoch = epoch
        self.next_offset = start
        self.committed = committed
        self.renewals = Renewals() if renewals is None else renewals
        self.marked = marked
        self._held: dict[str, int] = {}

    def hold(self, stream: str, offset: int) -> None:
        """Holds the offset back until the stream is released. Offsets come in order, so the first
        one held is the oldest."""
        self._held.setdefault(stream, offset)

    def release(self, stream: str) -> None:
        """Lets every offset go that is held back for the stream."""
        self._held.pop(stream, None)

    @property
    def committable(self) -> int:
        """The offset that may be committed: the first one that a successor would have to read."""
        return next(iter(self._held.values()), self.next_offset)
