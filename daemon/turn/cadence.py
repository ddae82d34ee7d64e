"""When things are due that are done at intervals. Pure: time is an argument, in seconds on a
monotonic clock.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class Cadence:
    """Says when something that is done every `interval_s` seconds is due again."""

    interval_s: float
    last_at: float

    def left_s(self, now: float) -> float:
        """Returns the seconds until it is due; zero or less when it is due now."""
        return self.last_at + self.interval_s - now

    def mark(self, now: float) -> None:
        """Notes that it was done."""
        self.last_at = now
