"""The cost rule: its counts against torch's own, its directions, how its constants are fitted."""

import random
from itertools import pairwise, product

import pytest
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.inner.forms import fitted_costs
from benchmarks.inner.turn import Form, Measured, Turn
from model.inner.cost_rule import (
    COSTS,
    QUERY,
    Costs,
    Shape,
    Work,
    both_ns,
    full_work,
    hidden_pays,
    hidden_work,
)

DIMS = (4, 16, 64, 256, 512, 2048)
HIDDEN = (8, 32, 64, 128, 512, 1024)

SHAPES = st.builds(
    Shape,
    source_dim=st.integers(1, 4096),
    hidden_dim=st.integers(1, 1024),
    target_dim=st.integers(1, 4096),
    support=st.integers(1, 128),
    steps=st.integers(1, 32),
)


def test_the_default_mapping_is_adapted_in_hidden_space() -> None:
    assert hidden_pays(512, 128, 512, 16, 5)
    assert hidden_pays(2048, 128, 2048, 32, 5)


def test_many_steps_of_a_tiny_mapping_are_made_in_full() -> None:
    assert not hidden_pays(16, 32, 16, 64, 10)
    assert not hidden_pays(8, 128, 8, 32, 20)


@given(SHAPES, st.integers(1, 1024))
def test_more_features_favour_hidden_space(shape: Shape, more: int) -> None:
    wider = shape._replace(source_dim=shape.source_dim + more)
    taller = shape._replace(target_dim=shape.target_dim + more)
    assert hidden_pays(*wider) >= hidden_pays(*shape)
    assert hidden_pays(*taller) >= hidden_pays(*shape)


@pytest.mark.parametrize("support", [4, 16, 32, 64, 128])
def test_more_steps_favour_full(support: int) -> None:
    for d, h, e in product(DIMS, HIDDEN, DIMS):
        picks = [hidden_pays(d, h, e, support, steps) for steps in range(1, 33)]
        assert all(before >= after for before, after in pairwise(picks)), (d, h, e)


@pytest.mark.parametrize("steps", [1, 2, 5, 10, 20])
def test_more_pairs_favour_full(steps: int) -> None:
    for d, h, e in product(DIMS, HIDDEN, DIMS):
        picks = [hidden_pays(d, h, e, support, steps) for support in range(16, 257, 16)]
        assert all(before >= after for before, after in pairwise(picks)), (d, h, e)


@given(SHAPES)
def test_whatever_the_shape_some_number_of_steps_is_too_many(shape: Shape) -> None:
    assert not hidden_pays(*shape._replace(steps=1_000_000))


@pytest.mark.parametrize(
    "shape",
    [
        Shape(16, 32, 16, 16, 1),
        Shape(64, 128, 32, 32, 5),
        Shape(256, 48, 128, 16, 3),
        Shape(20, 40, 30, 10, 2),
    ],
)
@pytest.mark.parametrize("form", ["hidden", "full"])
def test_multiplications_are_those_that_torch_counts(form: Form, shape: Shape) -> None:
    streams = 32
    turn = Turn.of(shape, form, streams)
    with FlopCounterMode(display=False) as counter:
        turn()
    counted = counter.get_total_flops() / 2 / streams
    work = hidden_work(shape) if form == "hidden" else full_work(shape)
    assert work.multiplications == pytest.approx(counted, rel=0.04)


def test_a_turn_by_hand() -> None:
    """D = 3, H = 16, E = 5, S = 16, K = 2; A = 20 in hidden space, 32 in full."""
    shape = Shape(3, 16, 5, 16, 2)
    assert QUERY == 4
    steps = 2 * 16 * 16**2 + 16**2 * (4 * 16 + 2 * 16) + 16**2 * (16 + 3 * 16 + 16)
    losses = 20 * (16**2 + (2 * 16 + 16) * (16 + 32))
    judging = 4 * 16**2 + 16 * (16 + 20 + 16) + 20 * 32
    hidden = Work(16 * 8 + 16**2 + steps + losses + judging, 20 * (8 + 32 + 32), 2 * 16 * 16)
    assert hidden_work(shape) == hidden
    full = Work(2 * 16 * 16 * (6 + 15) + 2 * 32 * 16 * 8, 4 * 16 * 8 + 2 * 32 * 8, 2 * 16 * 21)
    assert full_work(shape) == full
    assert both_ns(shape, Costs(1, 1, 1, 7, 2, 3, 9, 100)) == (
        sum(hidden) + 7 + 2 * 16 + 3 * 2 * 16,
        sum(full) + 9 + 200,
    )


def test_idle_units_and_padding_cost_as_much_as_others() -> None:
    assert both_ns(Shape(64, 33, 64, 17, 5)) == both_ns(Shape(64, 48, 64, 32, 5))


def test_the_fit_finds_the_constants_that_made_the_times() -> None:
    true = Costs(0.03, 0.6, 4.0, 50_000.0, 800.0, 300.0, 140_000.0, 20_000.0)
    assert fitted_costs(times_by(true)) == pytest.approx(true, rel=0.01)
    assert fitted_costs(times_by(true, noise=0.2)) == pytest.approx(true, rel=0.3)


def test_no_constant_is_fitted_below_zero() -> None:
    true = Costs(0.03, 0.6, 4.0, 50_000.0, 800.0, -200.0, 140_000.0, 20_000.0)
    found = fitted_costs(times_by(true))
    assert found.hidden_step_pair == 0.0
    assert min(found) == 0.0


def test_nothing_can_be_fitted_to_no_times() -> None:
    with pytest.raises(ValueError, match="no times"):
        fitted_costs({})


def times_by(costs: Costs, noise: float = 0.0) -> dict[Shape, Measured]:
    """What a machine of these constants would take."""
    rng = random.Random(0)
    shapes = [Shape(*dims) for dims in product(DIMS, (32, 128), (16, 512), (16, 64), (1, 5, 10))]
    times = {}
    for shape in shapes:
        hidden_s, full_s = (
            ns * 1e-9 * (1.0 + noise * rng.uniform(-1.0, 1.0)) for ns in both_ns(shape, costs)
        )
        times[shape] = Measured(hidden_s, hidden_s, full_s)
    return times


def test_the_committed_constants_are_plausible() -> None:
    """A core does 10 to 100 multiplications in a nanosecond; no number moves faster than memory."""
    assert 0.01 < COSTS.multiplication < 0.1
    assert COSTS.moved > COSTS.multiplication
    assert min(COSTS) > 0.0
