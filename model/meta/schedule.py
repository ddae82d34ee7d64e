"""How far a training has come, and the learning rate that goes with it."""

import math
import time

WARM_UP = 0.05
"""The share of a training in which the rate rises."""


def cosine(progress: float, warm_up: float = WARM_UP) -> float:
    """The rate's factor at a progress of 0 to 1: a linear rise to 1, then half a cosine to 0."""
    if progress < warm_up:
        return max(progress, 0.1 * warm_up) / warm_up
    return 0.5 * (1.0 + math.cos(math.pi * (progress - warm_up) / (1.0 - warm_up)))


def ramp(progress: float, start: float, end: float) -> float:
    """0 before `start`, 1 from `end` on, a straight line between."""
    if progress < start:
        return 0.0
    return 1.0 if progress >= end else (progress - start) / (end - start)


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
        """1 at its peak; see `cosine`."""
        return cosine(self.progress)

    def __str__(self) -> str:
        return f"step {self.step}/{self.steps} ({time.monotonic() - self._started:.0f} s)"

    def _by_time(self) -> float:
        assert self._seconds is not None
        return (time.monotonic() - self._started) / self._seconds
