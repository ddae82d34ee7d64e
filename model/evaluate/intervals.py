"""A mean over streams and how far it may be trusted.

R = rows (streams, a measurement each)

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
    """A mean and the bounds of its confidence interval. The bounds are NaN with fewer than 2
    streams, and so is the mean without any."""

    mean: float
    low: float
    high: float
    streams: int
    """Number of streams that the mean is over."""
    left_out: int
    """Number of streams without a value."""


def t_interval(values_R: ArrayLike, confidence: float = CONFIDENCE) -> Interval:
    """Return mean ± t · s/√n, with Student's t of n − 1 degrees of freedom."""
    values_R, left_out = _valued(values_R)
    n = len(values_R)
    if n < 2:
        return _of_too_few(values_R, left_out)
    mean = float(values_R.mean())
    half = t_quantile(0.5 + confidence / 2.0, n - 1) * float(values_R.std(ddof=1)) / math.sqrt(n)
    return Interval(mean, mean - half, mean + half, n, left_out)


def t_quantile(probability: float, degrees: int) -> float:
    """Return the value that Student's t of so many degrees of freedom stays below with a
    probability, by bisection on `t_within`.

    Raises ValueError unless 0 < probability < 1 and degrees >= 1.
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
    """Return P(|T| < t) for t >= 0, by the finite sums of Abramowitz & Stegun 26.7.3 and 26.7.4."""
    angle = math.atan(t / math.sqrt(degrees))
    sine, cosine = math.sin(angle), math.cos(angle)
    odd = degrees % 2
    term = total = (cosine if odd else 1.0) if degrees > 1 else 0.0
    for j in range(2 + odd, degrees - 1, 2):
        term *= cosine**2 * (j - 1) / j
        total += term
    return (2.0 / math.pi) * (angle + sine * total) if odd else sine * total


def _valued(values_R: ArrayLike) -> tuple[NDArray[np.float64], int]:
    values_R = np.asarray(values_R, np.float64)
    valued_R = ~np.isnan(values_R)
    return values_R[valued_R], int((~valued_R).sum())


def _of_too_few(values_R: NDArray[np.float64], left_out: int) -> Interval:
    mean = float(values_R[0]) if len(values_R) else math.nan
    return Interval(mean, math.nan, math.nan, len(values_R), left_out)
