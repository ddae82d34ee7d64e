"""Streams whose published mapping may be of another θ than the one that is served. Pure."""

from __future__ import annotations

from collections.abc import Iterable


class Renewals:
    """A partition's streams that are to be adapted again: waiting, then begun, then done."""

    __slots__ = ("_begun", "_waiting")

    def __init__(self, streams: Iterable[str] = ()) -> None:
        self._waiting = dict.fromkeys(streams)
        self._begun: set[str] = set()

    def __len__(self) -> int:
        return len(self._waiting) + len(self._begun)

    @property
    def waiting(self) -> int:
        """How many are not begun."""
        return len(self._waiting)

    def begin(self, most: int) -> list[str]:
        """At most so many that waited, now begun."""
        begun = [stream for stream, _ in zip(self._waiting, range(most), strict=False)]
        for stream in begun:
            del self._waiting[stream]
        self._begun.update(begun)
        return begun

    def done(self, stream: str) -> bool:
        """A mapping of the θ that is served is published, or none is to be; whether it was due."""
        was_waiting = stream in self._waiting
        self._waiting.pop(stream, None)
        was_begun = stream in self._begun
        self._begun.discard(stream)
        return was_waiting or was_begun
