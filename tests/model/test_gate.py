"""The gate names the judge's winner, and why θ is published where it is."""

from __future__ import annotations

import pytest

from model.values.arrays import FloatArray
from model.values.episode import Adaptation, Candidate
from model.values.gate import Outcome, judge

RIDGE: dict[str, FloatArray] = {}


@pytest.mark.parametrize(
    ("winner", "finite", "expected"),
    [
        (Candidate.ADAPTED, True, Outcome.ADAPTED),
        (Candidate.ADAPTED, False, Outcome.NOT_FINITE),
        (Candidate.THETA, True, Outcome.WORSE),
        (Candidate.THETA, False, Outcome.NOT_FINITE),
        (Candidate.RIDGE, True, Outcome.RIDGE),
        (Candidate.RIDGE, False, Outcome.RIDGE),
        (Candidate.PROCRUSTES, True, Outcome.RIDGE),
        (Candidate.PROCRUSTES, False, Outcome.RIDGE),
    ],
)
def test_the_outcome_is_the_winner(winner: Candidate, finite: bool, expected: Outcome) -> None:
    ridge = RIDGE if winner.is_linear else None
    adaptation = Adaptation({}, 1.0, 9.0, 1.0, 0.5, finite, ridge=ridge, winner=winner)
    assert judge(adaptation) is expected


def test_only_theta_is_a_fallback() -> None:
    fallbacks = {outcome for outcome in Outcome if outcome.is_fallback}
    assert fallbacks == {Outcome.WORSE, Outcome.NOT_FINITE}
