"""A mean over streams and how far it may be trusted.

N = streams

A stream's own value is a mean over its episodes; streams are what vary, so intervals are over
them. NaN (a stream that could not be scored) is left out and counted.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

CONFIDENCE = 0.95


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean and the bounds of its confidence interval; NaN bounds where they say nothing (fewer
    than 2 streams), all NaN without streams."""

    mean: float
    low: float
    high: float
    streams: int
    """How many the mean is over."""
    left_out: int
    """How many had no value."""


def t_interval(values_N: ArrayLike, confidence: float = CONFIDENCE) -> Interval:
    """mean ± t · s/√n, with Student's t of n − 1 degrees of freedom."""
    values_N, left_out = _valued(values_N)
    n = len(values_N)
    if n < 2:
        return _of_too_few(values_N, left_out)
    mean = float(values_N.mean())
    half = t_quantile(0.5 + confidence / 2.0, n - 1) * float(values_N.std(ddof=1)) / math.sqrt(n)
    return Interval(mean, mean - half, mean + half, n, left_out)


def t_quantile(probability: float, degrees: int) -> float:
    """The value that Student's t of so many degrees of freedom stays below with a probability.

    Bisection on `t_within`. Raises ValueError unless 0 < probability < 1 and degrees >= 1.
    """
    if not 0.0 < probability < 1.0 or degrees < 1:
        raise ValueError(f"no quantile {probability} of t with {degrees} degrees of freedom")
    within = abs(2.0 * probability - 1.0)
    low, high = 0.0, 1.0
    while t_within(high, degrees) < within:
        low, high = high, 2.0 * high
    while (middle := 0.5 * (low + high)) not in (low, high):
        low, high = (middle, high) if t_within(middle, degrees) < within else (low, middle)
    return math.copysign(middle, probability - 0.5)


def t_within(t: float, degrees: int) -> float:
    """P(|T| < t), t >= 0, by the finite sums of Abramowitz & Stegun 26.7.3 and 26.7.4."""
    angle = math.atan(t / math.sqrt(degrees))
    sine, cosine = math.sin(angle), math.cos(angle)
    odd = degrees % 2
    term = total = (cosine if odd else 1.0) if degrees > 1 else 0.0
    for j in range(2 + odd, degrees - 1, 2):
        term *= cosine**2 * (j - 1) / j
        total += term
    return (2.0 / math.pi) * (angle + sine * total) if odd else sine * total


def _valued(values_N: ArrayLike) -> tuple[NDArray[np.float64], int]:
    values_N = np.asarray(values_N, np.float64)
    valued_N = ~np.isnan(values_N)
    return values_N[valued_N], int((~valued_N).sum())


def _of_too_few(values_N: NDArray[np.float64], left_out: int) -> Interval:
    mean = float(values_N[0]) if len(values_N) else math.nan
    return Interval(mean, math.nan, math.nan, len(values_N), left_out)
