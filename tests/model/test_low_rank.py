"""Thin factors against the formula in float64, also in half precision."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from model.values.arrays import FloatArray, HalfArray
from model.values.low_rank import SCALES, LowRank, in_half, in_single, multiplied_out

dims = st.tuples(*[st.integers(1, 9)] * 4)
sizes = st.tuples(*[st.sampled_from([1e-9, 1e-4, 1.0, 300.0, 1e6])] * 6)
FACTORS = ("x", "a", "beta", "y", "n", "v")


def to_half(numbers: FloatArray) -> HalfArray:
    return numbers.astype(np.float16)


def normal(rng: np.random.Generator, *shape: int) -> FloatArray:
    return rng.standard_normal(shape).astype(np.float32)


def theta_of(rng: np.random.Generator, d: int, e: int, h: int) -> dict[str, FloatArray]:
    shapes = {"w1": (h, d), "b1": (h,), "w2": (e, h), "b2": (e,)}
    return {name: normal(rng, *shape) for name, shape in shapes.items()}


def low_rank_of(
    rng: np.random.Generator, s: int, d: int, e: int, h: int, scale: tuple[float, ...] = (1.0,) * 6
) -> LowRank:
    g = h + 1
    shapes = ((s, d), (s, h), (h,), (s, e), (g, g), (s, g))
    return LowRank(
        *(normal(rng, *shape) * np.float32(z) for shape, z in zip(shapes, scale, strict=True))
    )


def added(low: LowRank, theta: Mapping[str, FloatArray]) -> dict[str, NDArray[np.float64]]:
    """What comes on top of θ, pair by pair and unit by unit, in float64."""
    x_SD, a_SH, beta_H, y_SE, n_GG, v_SG = (part.astype(np.float64) for part in parts(low))
    wide_EG = np.column_stack([theta["w2"], theta["b2"]]).astype(np.float64)
    change_HD = sum(np.outer(a_H, x_D) for a_H, x_D in zip(a_SH, x_SD, strict=True))
    change_EG = np.einsum("eg,gk->ek", wide_EG, n_GG)
    change_EG += sum(np.outer(y_E, v_G) for y_E, v_G in zip(y_SE, v_SG, strict=True))
    made = {"w1": change_HD, "b1": beta_H, "w2": change_EG[:, :-1], "b2": change_EG[:, -1]}
    return {name: np.asarray(change) for name, change in made.items()}


def obvious(low: LowRank, theta: Mapping[str, FloatArray]) -> dict[str, NDArray[np.float64]]:
    return {n: change + theta[n].astype(np.float64) for n, change in added(low, theta).items()}


def magnitudes(low: LowRank, theta: Mapping[str, FloatArray]) -> dict[str, NDArray[np.float64]]:
    """What the sums would be if nothing cancelled: rounding is relative to it."""
    return obvious(LowRank(*(np.abs(f) for f in parts(low))), {n: abs(t) for n, t in theta.items()})


def parts(low: LowRank) -> tuple[FloatArray, ...]:
    return low.x_SD, low.a_SH, low.beta_H, low.y_SE, low.n_GG, low.v_SG


@given(dims=dims, sizes=sizes, seed=st.integers(0, 2**32 - 1))
def test_multiplied_out_is_the_formula(
    dims: tuple[int, int, int, int], sizes: tuple[float, ...], seed: int
) -> None:
    rng = np.random.default_rng(seed)
    s, d, e, h = dims
    theta, low = theta_of(rng, d, e, h), low_rank_of(rng, s, d, e, h, sizes)
    made, expected = low.multiplied_out(theta), obvious(low, theta)
    for name, bound in magnitudes(low, theta).items():
        assert made[name].dtype == np.float32
        assert np.all(abs(made[name] - expected[name]) <= 1e-6 * bound), name


@given(
    dims=st.tuples(st.integers(1, 32), *[st.integers(4, 40)] * 3),
    sizes=sizes,
    seed=st.integers(0, 2**32 - 1),
)
def test_half_precision_keeps_the_delta_to_two_thousandths_of_its_largest_number(
    dims: tuple[int, int, int, int], sizes: tuple[float, ...], seed: int
) -> None:
    rng = np.random.default_rng(seed)
    s, d, e, h = dims
    theta, low = theta_of(rng, d, e, h), low_rank_of(rng, s, d, e, h, sizes)
    halved = in_half(low.factors(), to_half)
    assert all(t.dtype == np.float16 for name, t in halved.items() if name != SCALES)
    read = in_single(halved)
    exact = LowRank(*(read[name] for name in FACTORS))
    here, there = added(low, theta), added(exact, theta)
    for name, change in here.items():
        assert abs(there[name] - change).max() <= 2e-3 * abs(change).max(), name


@given(dims=dims, sizes=sizes, seed=st.integers(0, 2**32 - 1))
def test_half_precision_errs_by_what_two_roundings_can(
    dims: tuple[int, int, int, int], sizes: tuple[float, ...], seed: int
) -> None:
    """Also where the pairs' products cancel, and against the multiplied-out form."""
    rng = np.random.default_rng(seed)
    s, d, e, h = dims
    theta, low = theta_of(rng, d, e, h), low_rank_of(rng, s, d, e, h, sizes)
    made = multiplied_out(in_half(low.factors(), to_half), theta)
    bounds = magnitudes(low, theta)
    for name, expected in obvious(low, theta).items():
        assert np.all(abs(made[name] - expected) <= 1.01 * 2**-10 * bounds[name]), name


def test_head_only_adaptation_carries_no_source_and_no_a() -> None:
    rng = np.random.default_rng(0)
    theta, low = theta_of(rng, 5, 4, 3), low_rank_of(rng, 6, 5, 4, 3)
    head = LowRank(low.x_SD, 0 * low.a_SH, 0 * low.beta_H, low.y_SE, low.n_GG, low.v_SG)
    assert set(head.factors()) == {"y", "v", "n"}
    assert head.nbytes == 4 * (6 * 4 + 6 * 4 + 4 * 4)
    made = head.multiplied_out(theta)
    assert np.array_equal(made["w1"], theta["w1"])
    assert np.array_equal(made["b1"], theta["b1"])
    np.testing.assert_allclose(made["w2"], obvious(head, theta)["w2"], rtol=1e-5)


def test_nothing_added_is_theta_to_the_bit() -> None:
    theta = theta_of(np.random.default_rng(0), 5, 4, 3)
    nothing = low_rank_of(np.random.default_rng(1), 6, 5, 4, 3, (1.0, 0, 0, 1.0, 0, 0))
    assert nothing.factors() == {}
    assert in_half(nothing.factors(), to_half) == {}
    assert nothing.nbytes == 0
    for name, tensor in nothing.multiplied_out(theta).items():
        assert tensor.tobytes() == theta[name].tobytes()


@pytest.mark.parametrize("missing", ["x", "y"])
def test_factors_that_lack_their_partner_are_refused(missing: str) -> None:
    factors = low_rank_of(np.random.default_rng(1), 6, 5, 4, 3).factors()
    del factors[missing]
    with pytest.raises(ValueError, match="missing"):
        multiplied_out(factors, theta_of(np.random.default_rng(0), 5, 4, 3))


@pytest.mark.parametrize("dims", [(5, 4, 2), (5, 3, 3), (6, 4, 3)])
def test_another_thetas_factors_are_refused(dims: tuple[int, int, int]) -> None:
    factors = low_rank_of(np.random.default_rng(1), 6, 5, 4, 3).factors()
    with pytest.raises(ValueError, match=r"mismatch|shape"):
        multiplied_out(factors, theta_of(np.random.default_rng(0), *dims))


def test_factors_in_half_keep_their_shape_and_a_views_values() -> None:
    view = np.arange(24, dtype=np.float32).reshape(4, 6).T[::2]
    made: dict[str, NDArray[Any]] = in_half({"t": view, "zero": np.zeros(3, np.float32)}, to_half)
    assert made["t"].shape == view.shape
    assert np.array_equal(in_single(made)["t"], view)
    assert np.array_equal(in_single(made)["zero"], np.zeros(3))


@pytest.mark.parametrize("size", [1e-44, 1e-38, 1.0, 3.3e38])
def test_scales_reach_as_far_as_float32(size: float) -> None:
    tensor = np.array([size, -size / 2, 0], np.float32)
    np.testing.assert_allclose(in_single(in_half({"t": tensor}, to_half))["t"], tensor, rtol=2**-10)


def test_small_numbers_beside_a_large_one_keep_their_bits() -> None:
    tensor = np.array([1e4, 0.0123], np.float32)
    np.testing.assert_allclose(in_single(in_half({"t": tensor}, to_half))["t"], tensor, rtol=2**-11)
