"""When things are due that are done at intervals. Pure: time is an argument, in seconds on a
monotonic clock.
"""

from __future__ import annotations

import math
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


FEW_EVENTS = 64
"""A turn that reads fewer costs more by itself than by its events."""


@dataclass(slots=True)
class TurnPace:
    """Says when the next turn may begin: `interval_s` after the last one began, or `lull_s` after
    it when events are few. In a lull they gather before a turn and are adapted in it, rather than
    in a second turn that waits for more of them."""

    interval_s: float
    lull_s: float
    """0: there are no lulls."""
    began_at: float
    is_lull: bool = False

    def left_s(self, now: float) -> float:
        """Returns the seconds until the next turn may begin; zero or less when it may now."""
        return self.began_at + (self.lull_s if self.is_lull else self.interval_s) - now

    def begin(self, now: float) -> None:
        """Notes that a turn has begun."""
        self.began_at = now

    def read(self, events: int) -> None:
        """Notes how many events the turn has read."""
        self.is_lull = self.lull_s > 0 and events < FEW_EVENTS


@dataclass(slots=True)
class Allowance:
    """Says whether something may be done that is done `per_s` times a second at most, on average;
    what is not used is saved for `saved_s` seconds."""

    per_s: float
    saved_s: float
    left: float = 0.0
    at: float = -math.inf

    def take(self, now: float) -> bool:
        """Returns whether it may be done now, and counts it if so."""
        most = self.per_s * self.saved_s
        self.left = min(most, self.left + self.per_s * max(0.0, now - self.at))
        self.at = max(self.at, now)
        if self.left < 1.0:
            return False
        self.left -= 1.0
        return True
