"""Confidence intervals against scipy, and what they do without enough streams."""

import math

import numpy as np
import pytest
from scipy import stats

from model.evaluate.intervals import t_interval, t_quantile, t_within


@pytest.mark.parametrize("degrees", [1, 2, 3, 4, 5, 8, 39, 40, 119, 1000])
@pytest.mark.parametrize("probability", [0.6, 0.9, 0.975, 0.995, 0.025, 0.5])
def test_t_quantiles_are_scipys(degrees: int, probability: float) -> None:
    expected = stats.t.ppf(probability, degrees)
    assert t_quantile(probability, degrees) == pytest.approx(expected, rel=1e-10, abs=1e-12)


@pytest.mark.parametrize("degrees", [1, 2, 7, 12])
def test_t_probabilities_are_scipys(degrees: int) -> None:
    for t in (0.0, 0.3, 1.0, 4.0, 50.0):
        expected = 1.0 - 2.0 * stats.t.sf(t, degrees)
        assert t_within(t, degrees) == pytest.approx(expected, abs=1e-13)


@pytest.mark.parametrize("confidence", [0.8, 0.95])
def test_the_t_interval_is_scipys(confidence: float) -> None:
    values = np.random.default_rng(0).gamma(2.0, size=40)
    found = t_interval(values, confidence)
    low, high = stats.t.interval(confidence, 39, loc=values.mean(), scale=stats.sem(values))
    assert (found.low, found.high) == pytest.approx((low, high), rel=1e-10)
    assert found.mean == pytest.approx(values.mean())


def test_streams_without_a_value_are_left_out_and_counted() -> None:
    values = [0.2, math.nan, 0.4, 0.9, math.nan]
    found, without = t_interval(values), t_interval([0.2, 0.4, 0.9])
    assert (found.mean, found.low, found.high) == (without.mean, without.low, without.high)
    assert (found.streams, found.left_out, without.left_out) == (3, 2, 0)


def test_too_few_streams_have_no_bounds() -> None:
    one = t_interval([0.5])
    assert (one.mean, one.streams) == (0.5, 1)
    assert math.isnan(one.low)
    assert math.isnan(one.high)
    none = t_interval([math.nan])
    assert math.isnan(none.mean)
    assert (none.streams, none.left_out) == (0, 1)
    assert math.isnan(t_interval([]).mean)


def test_equal_streams_leave_no_doubt() -> None:
    found = t_interval([0.25] * 5)
    assert (found.low, found.mean, found.high) == (0.25, 0.25, 0.25)


def test_the_t_interval_covers_as_often_as_it_says() -> None:
    draws = np.random.default_rng(2).normal(3.0, 2.0, size=(2_000, 6))
    covered = np.mean([low <= 3.0 <= high for low, high in map(_bounds, draws)])
    assert covered == pytest.approx(0.95, abs=0.02)


def _bounds(values: np.ndarray) -> tuple[float, float]:
    found = t_interval(values)
    return found.low, found.high


@pytest.mark.parametrize(("probability", "degrees"), [(0.0, 3), (1.0, 3), (0.5, 0)])
def test_no_quantile_where_there_is_none(probability: float, degrees: int) -> None:
    with pytest.raises(ValueError, match="no quantile"):
        t_quantile(probability, degrees)
