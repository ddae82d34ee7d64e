"""Streams whose published mapping may be of another θ than the one that is served. Pure."""

from __future__ import annotations

from collections.abc import Iterable


class Renewals:
    """The streams of one partition that are to be adapted again: they wait, are begun, and end."""

    __slots__ = ("_begun", "_waiting")

    def __init__(self, streams: Iterable[str] = ()) -> None:
        self._waiting = dict.fromkeys(streams)
        self._begun: set[str] = set()

    @property
    def left(self) -> int:
        """How many streams wait or are begun."""
        return len(self._waiting) + len(self._begun)

    @property
    def begun(self) -> int:
        """How many streams are begun."""
        return len(self._begun)

    def begin(self, most: int) -> list[str]:
        """Begins at most `most` of the streams that wait, and returns them."""
        streams = [stream for stream, _ in zip(self._waiting, range(most), strict=False)]
        for stream in streams:
            del self._waiting[stream]
        self._begun.update(streams)
        return streams

    def finish(self, stream: str) -> bool:
        """Ends the stream's renewal: a mapping of the θ that is served is published, or none is to
        be. Returns whether the stream waited or was begun."""
        was_due = stream in self._waiting or stream in self._begun
        self._waiting.pop(stream, None)
        self._begun.discard(stream)
        return was_due


RENEWING_TURN_S = 0.05
"""How long a turn that renews mappings is to take: new events wait for it, about as long as events
wait for a batch to fill anyway."""
FIRST_RENEWALS = 16
"""Of the first turn that renews mappings, when nothing is known of what they cost."""


class RenewalPace:
    """How many renewals a turn may begin: as many as leave it short."""

    def __init__(self, max_batch: int) -> None:
        self._max_batch = max_batch
        self.most = min(FIRST_RENEWALS, max_batch)
        """Of the next turn."""

    def ended(self, turn_s: float) -> None:
        """Notes how long a turn took that has begun `most` renewals."""
        if turn_s > RENEWING_TURN_S:
            self.most = max(1, self.most // 2)
        elif turn_s < RENEWING_TURN_S / 2:
            self.most = min(self._max_batch, 2 * self.most)


def room_for_renewals(max_batch: int, changed: int, begun: int) -> int:
    """Returns how many renewals may begin: as many as a batch has room for beside the streams that
    changed, and in any case as many as keep a quarter of a batch begun."""
    return max(0, max_batch - changed, (max_batch + 3) // 4 - begun)
