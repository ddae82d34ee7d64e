"""Hands changes from the thread that follows to whoever waits for them, without blocking it."""

from __future__ import annotations

from collections.abc import Callable
from threading import Condition

from daemon.client.newest import Swapped


class Changes:
    """The newest change of each stream that its reader has not taken yet. A slow reader misses
    mappings that were replaced meanwhile, and never the newest; memory grows with the number of
    streams alone."""

    def __init__(self, wake: Callable[[], None] = lambda: None) -> None:
        """`wake` is called, on the thread that follows, when there is something to take."""
        self._wake, self._waiting = wake, Condition()
        self._changed: dict[str, Swapped] = {}
        self._closed = False

    def put(self, change: Swapped) -> None:
        """Adds a change; one of the same stream that waits is replaced."""
        with self._waiting:
            self._changed.pop(change.stream, None)
            self._changed[change.stream] = change
            self._waiting.notify()
        self._wake()

    def take(self, timeout_s: float | None = None) -> Swapped | None:
        """Removes the change that waits longest and returns it; waits for one, but no longer than
        this. Returns None when there is none, or no more will come."""
        with self._waiting:
            self._waiting.wait_for(lambda: self._changed or self._closed, timeout_s)
            if not self._changed:
                return None
            return self._changed.pop(next(iter(self._changed)))

    @property
    def closed(self) -> bool:
        """Whether no more will come, and all were taken."""
        with self._waiting:
            return self._closed and not self._changed

    def close(self) -> None:
        """Lets whoever waits go."""
        with self._waiting:
            self._closed = True
            self._waiting.notify_all()
        self._wake()
