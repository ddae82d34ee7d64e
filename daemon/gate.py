"""The gate: an adapted mapping is published only if it is finite and no worse than θ. Pure."""

from __future__ import annotations

from enum import Enum

from model.episode import Adaptation


class Outcome(Enum):
    """What the gate decided about one adaptation."""

    ADAPTED = "adapted"
    WORSE = "worse"
    NOT_FINITE = "not_finite"

    @property
    def is_fallback(self) -> bool:
        """Whether θ is published instead of θ′."""
        return self is not Outcome.ADAPTED


def judge(adaptation: Adaptation) -> Outcome:
    """θ′ must be finite, and its loss on the query, pairs it has not seen, at most θ's.

    The fallback is θ and not the last good mapping: the query has just shown θ no worse than θ′,
    nothing has measured the last good one on it, and θ is the same after a crash.
    """
    if not adaptation.finite:
        return Outcome.NOT_FINITE
    if adaptation.query_loss_after <= adaptation.query_loss_before:
        return Outcome.ADAPTED
    return Outcome.WORSE
