"""Many trials of candidates at once, their streams drawn at random: the judge's arithmetic on rows.

R = rows (trials), B = streams in batch (of a trial, in order), Y = candidates (bets, by their λ)

The formulas are those of `daemon.canary.judge`, in the same order, so a row comes to the verdict
that the fold comes to on the same numbers; a test holds them together.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from daemon.canary.judge import (
    AGAINST,
    BETS,
    DELTA,
    HARM,
    MOST_CAPITAL,
    MOST_HARMED,
    alpha_of,
)

Numbers = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class TrialVerdicts:
    """How every trial ended."""

    won_R: NDArray[np.bool_]
    lost_R: NDArray[np.bool_]
    streams_R: NDArray[np.int64]
    """After how many streams; all of them where there was no verdict."""

    def verdict(self, row: int) -> str:
        """Returns a trial's verdict, in the judge's word."""
        return "won" if self.won_R[row] else "lost" if self.lost_R[row] else "open"


def verdicts(d_RB: Numbers, attempt: int = 1) -> TrialVerdicts:
    """Returns how trials end whose streams say `d_RB`, one after another."""
    rows, streams = d_RB.shape
    bets_Y, needed = np.array(BETS), 1.0 / alpha_of(attempt)
    capital_4RY = np.full((4, rows, len(BETS)), 1.0 / len(BETS))
    won_R, lost_R = np.zeros(rows, np.bool_), np.zeros(rows, np.bool_)
    streams_R = np.full(rows, streams)
    for at in range(streams):
        d_R = d_RB[:, at]
        harmed_R = (d_R < -HARM).astype(np.float64)
        gains_4R = np.stack(
            [d_R - DELTA, -d_R - DELTA, MOST_HARMED - harmed_R, harmed_R - MOST_HARMED]
        )
        capital_4RY *= 1.0 + bets_Y * gains_4R[:, :, None]
        np.minimum(capital_4RY, MOST_CAPITAL, out=capital_4RY)
        better_R, worse_R, safe_R, harmful_R = capital_4RY.sum(2)
        open_R = ~(won_R | lost_R)
        lost_R |= open_R & (np.maximum(worse_R, harmful_R) >= AGAINST)
        won_R |= open_R & ~lost_R & (np.minimum(better_R, safe_R) >= needed)
        streams_R[open_R & (won_R | lost_R)] = at + 1
    return TrialVerdicts(won_R, lost_R, streams_R)


@dataclass(frozen=True, slots=True)
class Trials:
    """Draws what the streams of many trials say."""

    runs: int
    streams: int
    seed: int

    def nulls(self) -> Mapping[str, Numbers]:
        """Returns candidates that must not win, by name: one whose differences are noise about 0;
        one that is better by just DELTA on the mean, and harms nobody; one that is far better on
        the mean, and harms just as many as may be."""
        shape, draw = (self.runs, self.streams), self._draw
        rare_RB = draw().random(shape) < 0.1
        harmed_RB = draw().random(shape) < MOST_HARMED
        size_RB = np.abs(draw().normal(0.0, 0.2, shape))
        return {
            "noise": np.clip(size_RB * draw().choice([-1.0, 1.0], shape), -1, 1),
            "tight": np.where(rare_RB, 0.46, -0.04),
            "harm": np.where(harmed_RB, -0.3, 0.5),
        }

    def harmful(self, share: float) -> Numbers:
        """Returns candidates that are far better for most streams and ruin this share of them."""
        shape = (self.runs, self.streams)
        harmed_RB = self._draw().random(shape) < share
        return np.clip(self._draw().normal(np.where(harmed_RB, -0.45, 0.5), 0.08), -1, 1)

    def gaining(self, gain: float, scatter: float = 0.08) -> Numbers:
        """Returns candidates that are better by so much on the mean."""
        return np.clip(self._draw().normal(gain, scatter, (self.runs, self.streams)), -1, 1)

    @property
    def _draw(self) -> Callable[[], np.random.Generator]:
        children = iter(np.random.SeedSequence(self.seed).spawn(8))
        return lambda: np.random.default_rng(next(children))
