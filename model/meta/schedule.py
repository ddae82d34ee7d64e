"""How far a training has come, and the learning rate that goes with it."""

import math
import time

WARM_UP = 0.05


class Schedule:
    """Counts steps; with `minutes` it also ends when they have passed.

    By steps alone the same seed gives the same training; a time limit that cuts in gives it up.
    """

    def __init__(self, steps: int, minutes: float | None) -> None:
        self.steps = steps
        self.step = 0
        self._seconds = None if minutes is None else minutes * 60.0
        self._started = time.monotonic()

    def advance(self) -> None:
        """One step is done."""
        self.step += 1

    @property
    def progress(self) -> float:
        """0 at the start, 1 at the end: by steps or by time, whichever is further."""
        by_steps = self.step / self.steps
        return min(1.0, by_steps if self._seconds is None else max(by_steps, self._by_time()))

    @property
    def finished(self) -> bool:
        """Whether the last step is done or the time is up."""
        return self.progress >= 1.0

    def rate_factor(self) -> float:
        """1 at its peak: a short rise, then half a cosine down to 0."""
        if self.progress < WARM_UP:
            return max(self.progress, 0.1 * WARM_UP) / WARM_UP
        return 0.5 * (1.0 + math.cos(math.pi * (self.progress - WARM_UP) / (1.0 - WARM_UP)))

    def __str__(self) -> str:
        return f"step {self.step}/{self.steps} ({time.monotonic() - self._started:.0f} s)"

    def _by_time(self) -> float:
        assert self._seconds is not None
        return (time.monotonic() - self._started) / self._seconds
