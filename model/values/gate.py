"""The gate: says in one word which mapping of a stream is published, and why. Pure.

Q = query pairs
"""

from __future__ import annotations

from enum import Enum

import numpy as np

from model.values.arrays import FloatArray
from model.values.episode import Adaptation, Candidate

CLEARLY = 2.0
"""Standard errors by which one must be better than another to take its place."""


LEAST_PAIRS = 3
"""Two differences are nearly equal too often by chance: any mean is then many standard errors."""
OF_THREE = 0.84
"""Standard errors of three pairs count for so much: chance brings a mean to 2.4 of them as often as
to 2 of four pairs' (Student's t)."""


class Outcome(Enum):
    """What the gate decided about one adaptation."""

    ADAPTED = "adapted"
    RIDGE = "ridge"
    """A linear map in closed form: ridge regression or Procrustes."""
    WORSE = "worse"
    NOT_FINITE = "not_finite"

    @property
    def is_fallback(self) -> bool:
        """Whether θ itself is published, which learns nothing from further pairs."""
        return self in (Outcome.WORSE, Outcome.NOT_FINITE)


def judge(adaptation: Adaptation) -> Outcome:
    """Returns which mapping to publish: θ′, the linear one, or θ as the fallback.

    That is the winner of `model.serving.judging`. The fallback says whether θ′ was worse, or not
    finite to begin with. It is θ and not the last good mapping: the query has just measured θ,
    nothing has measured the last good mapping on it, and θ is the same after a crash.
    """
    if adaptation.winner.is_linear:
        return Outcome.RIDGE
    if not adaptation.finite:
        return Outcome.NOT_FINITE
    return Outcome.ADAPTED if adaptation.winner is Candidate.ADAPTED else Outcome.WORSE


def prefers(challenger: Adaptation, incumbent: Adaptation, standard_errors: float) -> bool:
    """Returns whether the challenger, adapted to part of the incumbent's support and judged on the
    same query, takes its place: by the rule of `model.serving.judging` it is better in squared
    error and in direction, by more than so many standard errors in each."""
    if challenger.evidence is None or incumbent.evidence is None:
        return False
    ours, theirs = challenger.evidence, incumbent.evidence
    judges_Q = theirs.judges_Q & ours.judges_Q
    measures = ((ours.squared_Q, theirs.squared_Q), (ours.cosine_Q, theirs.cosine_Q))
    return all(clearly_lower(a[judges_Q], b[judges_Q], standard_errors) for a, b in measures)


def clearly_lower(one_Q: FloatArray, other_Q: FloatArray, standard_errors: float = CLEARLY) -> bool:
    """Returns whether the one's losses are lower than the other's by more than chance: the mean of
    the differences is more than so many of its standard errors; those OF_THREE count for less.
    Fewer than LEAST_PAIRS say nothing about chance."""
    gain_Q = other_Q.astype(np.float64) - one_Q
    if len(gain_Q) < LEAST_PAIRS or not np.isfinite(gain_Q).all():
        return False
    counted = standard_errors / (OF_THREE if len(gain_Q) == LEAST_PAIRS else 1.0)
    return bool(gain_Q.mean() > counted * gain_Q.std(ddof=1) / np.sqrt(len(gain_Q)))
