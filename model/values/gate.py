"""The gate: says in one word which mapping of a stream is published, and why. Pure."""

from __future__ import annotations

from enum import Enum

from model.values.episode import Adaptation, Candidate


class Outcome(Enum):
    """What the gate decided about one adaptation."""

    ADAPTED = "adapted"
    RIDGE = "ridge"
    WORSE = "worse"
    NOT_FINITE = "not_finite"

    @property
    def is_fallback(self) -> bool:
        """Whether θ itself is published, which learns nothing from further pairs."""
        return self in (Outcome.WORSE, Outcome.NOT_FINITE)


def judge(adaptation: Adaptation) -> Outcome:
    """Returns which mapping to publish: θ′, ridge regression's, or θ as the fallback.

    That is the winner of `model.serving.judging`. The fallback says whether θ′ was worse, or not
    finite to begin with. It is θ and not the last good mapping: the query has just measured θ,
    nothing has measured the last good mapping on it, and θ is the same after a crash.
    """
    if adaptation.winner is Candidate.RIDGE:
        return Outcome.RIDGE
    if not adaptation.finite:
        return Outcome.NOT_FINITE
    return Outcome.ADAPTED if adaptation.winner is Candidate.ADAPTED else Outcome.WORSE
