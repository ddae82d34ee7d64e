"""The batched inner loop against the readable one, autograd and finite differences.

B = streams, S = support pairs, D = source dim, H = hidden, E = target dim, K = inner steps
"""

from typing import get_args

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from model.inner import batched, reference
from model.losses import masked_mean_squared_error, mean_squared_error
from model.mappings.mlp import Activation, Mlp, apply, apply_batched, sigma, sigma_prime

ACTIVATIONS: tuple[Activation, ...] = get_args(Activation)
D, H, E, K = 6, 16, 5, 5


def theta_of(dtype: torch.dtype, seed: int = 0) -> Mlp:
    g = torch.Generator().manual_seed(seed)
    shapes = ((H, D), (H,), (E, H), (E,))
    return Mlp(*(0.4 * torch.randn(shape, generator=g, dtype=dtype) for shape in shapes))


def rates_of(dtype: torch.dtype) -> Tensor:
    g = torch.Generator().manual_seed(1)
    return 0.1 + 0.4 * torch.rand(K, 4, generator=g, dtype=dtype)


def pairs_of(dtype: torch.dtype, streams: int, pairs: int, seed: int = 2) -> tuple[Tensor, Tensor]:
    g = torch.Generator().manual_seed(seed)
    x_BSD = torch.randn(streams, pairs, D, generator=g, dtype=dtype)
    return x_BSD, torch.randn(streams, pairs, E, generator=g, dtype=dtype)


def real_of(lengths: list[int], capacity: int) -> Tensor:
    return torch.arange(capacity) < torch.tensor(lengths)[:, None]


def assert_close(found: Tensor, expected: Tensor, tolerance: float) -> None:
    torch.testing.assert_close(found, expected, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-12)])
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_ragged_batch_equals_one_stream_at_a_time(
    activation: Activation, dtype: torch.dtype, tolerance: float
) -> None:
    lengths = [1, 7, 4, 12]
    theta, rates = theta_of(dtype), rates_of(dtype)
    x_BSD, y_BSE = pairs_of(dtype, len(lengths), 12)
    adapted = batched.adapt(theta, rates, x_BSD, y_BSE, real_of(lengths, 12), activation)
    for b, n in enumerate(lengths):
        alone = reference.adapt(theta, rates, x_BSD[b, :n], y_BSE[b, :n], activation)
        for found, expected in zip(adapted, alone, strict=True):
            assert_close(found[b], expected, tolerance)


def outer_loss_batched(
    theta: Mlp, rates: Tensor, x: Tensor, y: Tensor, real: Tensor, activation: Activation
) -> Tensor:
    adapted = batched.adapt(theta, rates, x, y, real, activation)
    query = pairs_of(x.dtype, len(x), 3, seed=9)
    return (apply_batched(adapted, query[0], activation) - query[1]).square().mean()


def outer_loss_reference(
    theta: Mlp, rates: Tensor, x: Tensor, y: Tensor, real: Tensor, activation: Activation
) -> Tensor:
    query = pairs_of(x.dtype, len(x), 3, seed=9)
    losses = []
    for b, real_S in enumerate(real):
        adapted = reference.adapt(theta, rates, x[b, real_S], y[b, real_S], activation)
        losses.append(mean_squared_error(apply(adapted, query[0][b], activation), query[1][b]))
    return torch.stack(losses).mean()


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_second_order_gradient_equals_autograd_through_the_reference(
    activation: Activation,
) -> None:
    leaves = [t.requires_grad_() for t in (*theta_of(torch.float64), rates_of(torch.float64))]
    x, y = pairs_of(torch.float64, 3, 6)
    episodes = (x, y, real_of([6, 2, 4], 6), activation)
    found, expected = (
        torch.autograd.grad(loss(Mlp(*leaves[:4]), leaves[4], *episodes), leaves)
        for loss in (outer_loss_batched, outer_loss_reference)
    )
    for mine, theirs in zip(found, expected, strict=True):
        assert_close(mine, theirs, 1e-12)


@pytest.mark.parametrize("activation", ["gelu", "tanh", "sigmoid"])
def test_second_order_gradient_equals_finite_differences(activation: Activation) -> None:
    leaves = tuple(t.requires_grad_() for t in (*theta_of(torch.float64), rates_of(torch.float64)))
    x, y = pairs_of(torch.float64, 2, 4)
    real = real_of([4, 2], 4)

    def loss(*tensors: Tensor) -> Tensor:
        return outer_loss_batched(Mlp(*tensors[:4]), tensors[4], x, y, real, activation)

    assert torch.autograd.gradcheck(loss, leaves, fast_mode=True)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_sigma_prime_is_the_derivative_of_sigma(activation: Activation) -> None:
    z = torch.linspace(-4.0, 4.0, 100, dtype=torch.float64, requires_grad=True)
    (expected,) = torch.autograd.grad(sigma(activation)(z).sum(), z)
    assert_close(sigma_prime(activation)(z.detach()), expected, 1e-12)


@given(
    lengths=st.lists(st.integers(0, 8), min_size=1, max_size=5),
    garbage=st.sampled_from([float("nan"), float("inf"), -float("inf"), 1e30, 0.0]),
)
@settings(max_examples=40, deadline=None)
def test_what_stands_in_padding_changes_no_bit(lengths: list[int], garbage: float) -> None:
    theta, rates = theta_of(torch.float32), rates_of(torch.float32)
    real = real_of(lengths, 8)
    x, y = pairs_of(torch.float32, len(lengths), 8)
    dirty_x = x.masked_fill(~real.unsqueeze(2), garbage)
    dirty_y = y.masked_fill(~real.unsqueeze(2), garbage)
    clean = batched.adapt(theta, rates, x, y, real, "gelu")
    dirty = batched.adapt(theta, rates, dirty_x, dirty_y, real, "gelu")
    for a, b in zip(clean, dirty, strict=True):
        assert torch.equal(a, b)
    clean_loss = masked_mean_squared_error(y, x[..., :E], real)
    assert torch.equal(clean_loss, masked_mean_squared_error(dirty_y, dirty_x[..., :E], real))


def test_a_stream_without_pairs_keeps_theta_and_has_no_loss() -> None:
    theta = theta_of(torch.float32)
    x, y = pairs_of(torch.float32, 1, 4)
    nothing = real_of([0], 4)
    adapted = batched.adapt(theta, rates_of(torch.float32), x, y, nothing, "gelu")
    for found, expected in zip(adapted, theta, strict=True):
        assert torch.equal(found[0], expected)
    assert masked_mean_squared_error(y + 1.0, y, nothing).tolist() == [0.0]


def test_the_loss_is_a_mean_over_real_pairs_and_target_dims() -> None:
    o = torch.tensor([[[1.0, 3.0], [5.0, 5.0], [9.0, 9.0]]])
    y = torch.tensor([[[0.0, 1.0], [5.0, 4.0], [0.0, 0.0]]])
    assert masked_mean_squared_error(o, y, real_of([2], 3)).tolist() == [(1 + 4 + 0 + 1) / 4]
