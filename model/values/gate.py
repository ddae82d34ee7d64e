"""The gate: decides from an adaptation's losses which mapping of a stream is published. Pure."""

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
    """Returns which mapping to publish: θ′, ridge regression's, or θ as the fallback.

    θ′ is published if it is finite, if its loss on the query, pairs that it has not learned from,
    is at most θ's, and if ridge is not clearly better. Ridge wins on streams unlike any that θ was
    meta-trained for; "clearly", because the query is a few pairs (`model.serving.rival`). The
    fallback is θ and not the last good mapping: the query has just shown θ to be no worse than θ′,
    nothing has measured the last good mapping on it, and θ is the same after a crash.
    """
    if not adaptation.finite:
        return Outcome.NOT_FINITE
    if adaptation.ridge is not None:
        return Outcome.RIDGE
    if adaptation.query_loss_after <= adaptation.query_loss_before:
        return Outcome.ADAPTED
    return Outcome.WORSE
