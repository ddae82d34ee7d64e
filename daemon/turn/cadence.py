"""Things that are done at intervals. Pure: time is an argument, in seconds on a monotonic clock."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class Cadence:
    """When something is to be done again that is done once in `interval_s`."""

    interval_s: float
    last_at: float

    def left_s(self, now: float) -> float:
        """Returns how long until it is to be done again; not positive when that is now."""
        return self.last_at + self.interval_s - now

    def mark(self, now: float) -> None:
        """Notes that it was done."""
        self.last_at = now
