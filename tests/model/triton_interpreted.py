"""The kernel in Triton's interpreter against torch. `test_hidden_triton` runs this file in a
process of its own: whether Triton interprets is settled when it is imported.

B = streams in batch, S = support pairs, H = hidden units, J = rows of all inner steps, N = pairs of
a stream
"""

import os

import pytest
import torch
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from model.inner.hidden import triton as hidden_triton
from model.inner.hidden.descent import descend
from model.mappings.mlp import AnyActivation
from tests.model.hidden_device_lab import ACTIVATIONS, Shape, farthest, parts_of, problem
from tests.model.hidden_lab import row

assert os.environ.get("TRITON_INTERPRET") == "1"

shapes = st.builds(
    Shape,
    streams=st.integers(1, 2),
    support=st.integers(1, 40),
    units=st.integers(1, 72),
    steps=st.integers(1, 3),
)


# a failure is not made smaller: the interpreter would take minutes over it
@settings(max_examples=10, deadline=None, database=None, phases=[Phase.generate])
@given(shapes, st.sampled_from(ACTIVATIONS), st.integers(0, 99))
def test_any_chunk_descends_as_in_torch(shape: Shape, activation: AnyActivation, seed: int) -> None:
    given = problem(shape, activation, seed=seed)
    assert farthest(hidden_triton.descend_by_kernel(*given), descend(*given)) < 1e-5


def test_a_shape_of_many_tiles() -> None:
    given = problem(Shape(streams=1, units=144, steps=5), "gelu", seed=4)
    assert farthest(hidden_triton.descend_by_kernel(*given), descend(*given)) < 1e-5


def test_padded_pairs_count_for_nothing() -> None:
    given = problem(Shape(streams=2), seed=1)
    padded_BN = ~given.projected.real_BN
    assert padded_BN[:, :16].any()
    either_BSN = padded_BN[:, :16, None] | padded_BN[:, None, :]
    whole = given.projected
    spoilt = whole._replace(
        p_BNH=whole.p_BNH.masked_fill(padded_BN.unsqueeze(2), 7.0),
        r_BNH=whole.r_BNH.masked_fill(padded_BN.unsqueeze(2), 7.0),
        g_BSN=whole.g_BSN.masked_fill(either_BSN, 7.0),
        gamma_BSN=whole.gamma_BSN.masked_fill(either_BSN, 7.0),
    )
    clean, other = (
        hidden_triton.descend_by_kernel(given.terms, each, *given[2:]) for each in (whole, spoilt)
    )
    for kept, found in zip(parts_of(clean), parts_of(other), strict=True):
        if kept is not clean.head.h_BJH:  # padded rows have features, which nothing uses
            assert torch.equal(kept, found)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # numpy's, of what is meant to overflow
@pytest.mark.parametrize(
    ("poison", "activation"),
    [
        *((float("nan"), activation) for activation in ACTIVATIONS),
        *((poison, "relu") for poison in (float("inf"), -float("inf"), 1e30)),
        (1e30, "gelu"),
    ],
)
def test_a_diverged_stream_is_alone(poison: float, activation: AnyActivation) -> None:
    given = problem(Shape(streams=2, support=4, units=8, steps=2), activation, seed=3)
    given.projected.real_BN[0, 0] = True
    before = row(hidden_triton.descend_by_kernel(*given), 1)
    given.projected.p_BNH[0, 0] = poison
    got, wanted = hidden_triton.descend_by_kernel(*given), descend(*given)
    assert got.healthy_B.tolist() == wanted.healthy_B.tolist()
    assert got.healthy_B[1]
    assert poison == poison or not got.healthy_B[0]
    assert all(map(torch.equal, parts_of(row(got, 1)), parts_of(before)))


def test_a_streams_bits_depend_on_it_alone() -> None:
    given = problem(Shape(streams=3, support=5, units=9, steps=2), seed=5)
    together = hidden_triton.descend_by_kernel(*given)
    for stream in range(3):
        alone = hidden_triton.descend_by_kernel(
            given.terms, row(given.projected, stream), *given[2:]
        )
        found = row(together, stream)
        assert all(map(torch.equal, parts_of(found), parts_of(alone)))


def test_no_streams() -> None:
    given = problem(Shape(streams=0))
    assert hidden_triton.descend_by_kernel(*given).a_BSH.shape == (0, 16, 32)


def test_interpreted_it_is_available_and_checks_itself() -> None:
    assert hidden_triton.available(torch.device("cpu"))
    assert hidden_triton._difference(torch.device("cpu")) < 1e-5
