"""The gate lets through what is finite and no worse than θ on pairs it has not seen."""

from __future__ import annotations

import math

import pytest

from daemon.gate import Outcome, judge
from model.episode import Adaptation


@pytest.mark.parametrize(
    ("before", "after", "finite", "expected"),
    [
        (1.0, 0.5, True, Outcome.ADAPTED),
        (1.0, 1.0, True, Outcome.ADAPTED),
        (1.0, 1.1, True, Outcome.WORSE),
        (1.0, 0.5, False, Outcome.NOT_FINITE),
        (math.inf, 0.5, False, Outcome.NOT_FINITE),
        (1.0, math.nan, True, Outcome.WORSE),
        (math.nan, math.nan, True, Outcome.WORSE),
    ],
)
def test_the_gate_judges_by_the_query(
    before: float, after: float, finite: bool, expected: Outcome
) -> None:
    adaptation = Adaptation(
        tensors={},
        support_loss_before=1.0,
        support_loss_after=9.0,
        query_loss_before=before,
        query_loss_after=after,
        finite=finite,
    )
    assert judge(adaptation) is expected
    assert expected.is_fallback == (expected is not Outcome.ADAPTED)
