"""The gate lets through what is finite and, on pairs it has not seen, no worse than θ and ridge."""

from __future__ import annotations

import math

import pytest

from model.values.arrays import FloatArray
from model.values.episode import Adaptation
from model.values.gate import Outcome, judge

RIDGE: dict[str, FloatArray] = {}


@pytest.mark.parametrize(
    ("before", "after", "finite", "ridge", "expected"),
    [
        (1.0, 0.5, True, None, Outcome.ADAPTED),
        (1.0, 1.0, True, None, Outcome.ADAPTED),
        (1.0, 1.1, True, None, Outcome.WORSE),
        (1.0, 0.5, False, None, Outcome.NOT_FINITE),
        (math.inf, 0.5, False, None, Outcome.NOT_FINITE),
        (1.0, math.nan, True, None, Outcome.WORSE),
        (math.nan, math.nan, True, None, Outcome.WORSE),
        (1.0, 0.5, True, RIDGE, Outcome.RIDGE),
        (1.0, 1.1, True, RIDGE, Outcome.RIDGE),
        (1.0, 0.5, False, RIDGE, Outcome.NOT_FINITE),
    ],
)
def test_the_gate_judges_by_the_query(
    before: float,
    after: float,
    finite: bool,
    ridge: dict[str, FloatArray] | None,
    expected: Outcome,
) -> None:
    adaptation = Adaptation(
        tensors={},
        support_loss_before=1.0,
        support_loss_after=9.0,
        query_loss_before=before,
        query_loss_after=after,
        finite=finite,
        ridge=ridge,
    )
    assert judge(adaptation) is expected


def test_only_theta_is_a_fallback() -> None:
    fallbacks = {outcome for outcome in Outcome if outcome.is_fallback}
    assert fallbacks == {Outcome.WORSE, Outcome.NOT_FINITE}
