"""Halves that the engine hands out, against numpy's conversion, which is exact."""

import numpy as np
import pytest

from model.serving.engine import Engine
from model.values.arrays import FloatArray

to_half = Engine.to_half


def same_bits(numbers: FloatArray) -> bool:
    with np.errstate(over="ignore"):
        expected = numbers.astype(np.float16)
    return np.array_equal(to_half(numbers).view(np.uint16), expected.view(np.uint16))


def test_every_half_its_neighbours_and_every_tie_is_rounded_as_numpy_does() -> None:
    """All 65,536 bit patterns, so subnormal numbers, zeros, infinities and NaN as well."""
    halves = np.arange(2**16, dtype=np.uint16).view(np.float16).astype(np.float32)
    assert same_bits(halves[np.isfinite(halves)])
    assert np.array_equal(to_half(halves), halves.astype(np.float16), equal_nan=True)
    finite = np.arange(0x7C00, dtype=np.uint16).view(np.float16).astype(np.float32)
    ties = np.append((finite[1:] + finite[:-1]) * np.float32(0.5), np.float32(65520.0))
    up, down = (np.nextafter(ties, np.float32(to)) for to in (np.inf, -np.inf))
    for numbers in (ties, up, down):
        assert same_bits(numbers)
        assert same_bits(-numbers)


@pytest.mark.parametrize("size", [0, 1, 7, 8, 15, 17, 33, 1001])
def test_no_length_takes_another_way(size: int) -> None:
    """The last few numbers of an array go through another routine than whole vectors do."""
    rng = np.random.default_rng(size)
    exponents = rng.uniform(-30.0, 15.0, size)
    assert same_bits((rng.choice([-1.0, 1.0], size) * 2.0**exponents).astype(np.float32))


def test_views_and_arrays_that_may_not_be_written_to_keep_shape_and_values() -> None:
    view = np.arange(24, dtype=np.float32).reshape(4, 6).T[::2]
    view.flags.writeable = False
    made = to_half(view)
    assert made.flags.c_contiguous
    assert np.array_equal(made, view)
