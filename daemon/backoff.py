"""How long to wait before the next try of something that failed. Pure."""

from __future__ import annotations

from dataclasses import dataclass

MOST_DOUBLINGS = 30


@dataclass(frozen=True, slots=True)
class Backoff:
    """Waits that double from `first_s` to `longest_s`, with jitter: without it, all workers that
    lost the same broker would come back to it in the same moment. Whoever waits counts the
    failures."""

    first_s: float
    longest_s: float

    def wait_s(self, failures: int, chance: float) -> float:
        """Returns how long to wait after so many failures in a row, one at least. `chance` is a
        random number in [0, 1): the wait lies between half of the full wait and all of it."""
        doublings = min(failures - 1, MOST_DOUBLINGS)
        full_s = min(self.first_s * 2.0**doublings, self.longest_s)
        return full_s * (1 + chance) / 2
