"""A worker's tenure of a partition: its epoch, how far it read, how far it may commit. Pure."""

from __future__ import annotations

from typing import Literal

from daemon.turn.ports import Bounds
from daemon.turn.renewals import Renewals

Reset = Literal["earliest", "latest"]


def starting_offset(bounds: Bounds, position: int | None, reset: Reset, *, rebuild: bool) -> int:
    """Where to read a partition from when its tenure begins.

    Usually the committed offset. Earlier when the store knows less than the group committed, for
    it lost its newest writes: reading them again restores the windows. `position` is the offset
    after the newest event in the store; None, nothing there: then, with `rebuild`, from the start.
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

    An offset is committed once every event before it has had its effect: it is in its window,
    and a mapping that reflects it is published, unless none is to be. A worker that takes over
    therefore reads again exactly the events whose mappings are still owed.
    """

    __slots__ = ("_held", "committed", "epoch", "marked", "next_offset", "renewals")

    def __init__(
        self, epoch: int, start: int, committed: int | None, renewals: Renewals | None = None
    ) -> None:
        """`renewals`: when the partition's mappings may be of another θ than the one served."""
        self.epoch = epoch
        self.next_offset = start
        self.committed = committed
        self.renewals = renewals or Renewals()
        self.marked = renewals is None
        """Whether the store knows that all mappings are of the θ served."""
        self._held: dict[str, int] = {}

    def hold(self, stream: str, offset: int) -> None:
        """A mapping is owed for this event. Offsets come in order, so the first held is oldest."""
        self._held.setdefault(stream, offset)

    def release(self, stream: str) -> None:
        """Nothing is owed for the stream's events so far."""
        self._held.pop(stream, None)

    @property
    def committable(self) -> int:
        """The next offset a successor would have to read."""
        return next(iter(self._held.values()), self.next_offset)
