"""Things that happen at intervals. Pure: time is an argument, in seconds on a monotonic clock."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class Interval:
    """The time between two occurrences of the same thing."""

    length_s: float
    begun_at: float

    def left_s(self, now: float) -> float:
        """Returns how long until the interval ends; not positive once it has ended."""
        return self.begun_at + self.length_s - now

    def restart(self, now: float) -> None:
        """Begins the next interval."""
        self.begun_at = now
