"""The gate: an adapted mapping is published only if it is finite, and on the newest pairs no worse
than θ and not clearly worse than plain ridge regression. Pure."""

from __future__ import annotations

from enum import Enum

from model.values.episode import Adaptation


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
    """θ′ must be finite, its loss on the query, pairs it has not seen, at most θ's, and not clearly
    above ridge's.

    Ridge takes its place on streams that are like none that θ was meta-trained for (clearly, for
    the query is a few pairs: `model.serving.rival`). The last resort is θ and not the last good
    mapping: the query has just shown θ no worse than θ′, nothing has measured the last good one on
    it, and θ is the same after a crash.
    """
    if not adaptation.finite:
        return Outcome.NOT_FINITE
    if adaptation.ridge is not None:
        return Outcome.RIDGE
    if adaptation.query_loss_after <= adaptation.query_loss_before:
        return Outcome.ADAPTED
    return Outcome.WORSE
