"""How long an emoji training takes: a number of steps, or fewer where a time limit cuts in."""

import time

from model.meta.progress import cosine

WARM_UP = 0.05
"""The share of a training in which the learning rate rises."""


class StepBudget:
    """Counts a training's steps; with `minutes` the training also ends when they have passed.

    By steps alone the same seed gives the same training; a time limit that cuts in gives that up.
    """

    def __init__(self, steps: int, minutes: float | None) -> None:
        self.steps = steps
        self.step = 0
        self._seconds = None if minutes is None else minutes * 60.0
        self._started = time.monotonic()

    def advance(self) -> None:
        """Count one step."""
        self.step += 1

    @property
    def progress(self) -> float:
        """Progress from 0 to 1, by steps or by time, whichever is further."""
        by_steps = self.step / self.steps
        return min(1.0, by_steps if self._seconds is None else max(by_steps, self._by_time()))

    @property
    def finished(self) -> bool:
        """Whether the last step is done or the time is up."""
        return self.progress >= 1.0

    def rate_factor(self) -> float:
        """Return the factor of the learning rate; see `model.meta.progress.cosine`."""
        return cosine(self.progress, WARM_UP)

    def __str__(self) -> str:
        return f"step {self.step}/{self.steps} ({time.monotonic() - self._started:.0f} s)"

    def _by_time(self) -> float:
        assert self._seconds is not None
        return (time.monotonic() - self._started) / self._seconds
