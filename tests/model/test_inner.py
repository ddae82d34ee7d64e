"""The batched gradients against the readable form, closed forms and finite differences.

B = streams in batch, S = support pairs (padded), N = pairs of a stream, D = source dim, H = hidden
units, E = target dim, K = inner steps, L = learned numbers in one vector
"""

from itertools import product
from typing import get_args

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.functional import mse_loss

from model.inner import batched, reference
from model.inner.batched import Objective
from model.inner.learner import Support
from model.losses import Loss, masked_mean_squared_error, value
from model.mappings.mlp import (
    Activation,
    AnyActivation,
    Mlp,
    apply,
    apply_batched,
    expand,
    sigma,
    sigma_prime,
)
from model.mappings.numpy_mlp import apply_numpy

ACTIVATIONS: tuple[Activation, ...] = get_args(Activation)
ANY_ACTIVATION: tuple[AnyActivation, ...] = get_args(AnyActivation)
LOSSES = [Loss("mse"), Loss("cosine"), Loss("infonce"), Loss("hinge", margin=0.9, symmetric=True)]
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
    adapted = batched.adapt_batched(theta, rates, x_BSD, y_BSE, real_of(lengths, 12), activation)
    for b, n in enumerate(lengths):
        alone = reference.adapt_one_stream(theta, rates, x_BSD[b, :n], y_BSE[b, :n], activation)
        for found, expected in zip(adapted, alone, strict=True):
            assert_close(found[b], expected, tolerance)


def outer_loss_batched(
    theta: Mlp, rates: Tensor, x: Tensor, y: Tensor, real: Tensor, activation: Activation
) -> Tensor:
    adapted = batched.adapt_batched(theta, rates, x, y, real, activation)
    query = pairs_of(x.dtype, len(x), 3, seed=9)
    return (apply_batched(adapted, query[0], activation) - query[1]).square().mean()


def outer_loss_reference(
    theta: Mlp, rates: Tensor, x: Tensor, y: Tensor, real: Tensor, activation: Activation
) -> Tensor:
    query = pairs_of(x.dtype, len(x), 3, seed=9)
    losses = []
    for b, real_S in enumerate(real):
        adapted = reference.adapt_one_stream(theta, rates, x[b, real_S], y[b, real_S], activation)
        losses.append(mse_loss(apply(adapted, query[0][b], activation), query[1][b]))
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


@pytest.mark.parametrize(
    ("loss", "activation", "output"),
    [
        *product(LOSSES, ANY_ACTIVATION, ["none", "tanh"]),
        *product(LOSSES, ["gelu"], ANY_ACTIVATION),
    ],
)
def test_hand_derived_gradients_are_autograds(
    loss: Loss, activation: AnyActivation, output: AnyActivation
) -> None:
    x, y = pairs_of(torch.float64, 3, 6)
    support = Support(x, y, real_of([6, 1, 4], 6))
    leaves = [t.clone().requires_grad_() for t in expand(theta_of(torch.float64), 3)]
    o = apply_batched(Mlp(*leaves), x, activation, output)
    expected = torch.autograd.grad(value(loss, o, y, support.real_BS).sum(), leaves)
    found = batched.gradients(Mlp(*leaves), support, Objective(loss, activation, output))
    for mine, theirs in zip(found, expected, strict=True):
        assert_close(mine, theirs, 1e-12)


def quadratic_oracle(
    a_LL: Tensor, c_L: Tensor, p_L: Tensor, rate: float, query: tuple[Tensor, Tensor]
) -> tuple[Tensor, Tensor]:
    """θ′ and the exact meta-gradient where L_S = ½pᵀAp − cᵀp and L_Q = ½pᵀA_q·p − c_qᵀp:

    θ′ = p* + (I − αA)^K (p − p*) with A·p* = c, and ∇ = (I − αA)^K (A_q·θ′ − c_q).
    """
    contraction_LL = torch.linalg.matrix_power(torch.eye(len(a_LL)).to(a_LL) - rate * a_LL, K)
    best_L = torch.linalg.lstsq(a_LL, c_L[:, None], driver="gelsd").solution[:, 0]
    adapted_L = best_L + contraction_LL @ (p_L - best_L)
    return adapted_L, contraction_LL @ (query[0] @ adapted_L - query[1])


def head_quadratic(h_NH: Tensor, y_NE: Tensor) -> tuple[Tensor, Tensor]:
    """The mse as a function of [W2, b2] flattened row by row."""
    h1 = torch.cat([h_NH, torch.ones(len(h_NH), 1, dtype=h_NH.dtype)], dim=1)
    scale = 2.0 / y_NE.numel()
    return torch.kron(torch.eye(E).to(h1), h1.T @ h1) * scale, (y_NE.T @ h1).flatten() * scale


def hidden_quadratic(mlp: Mlp, x_ND: Tensor, y_NE: Tensor) -> tuple[Tensor, Tensor]:
    """The same of [W1, b1], for a linear σ."""
    x1 = torch.cat([x_ND, torch.ones(len(x_ND), 1, dtype=x_ND.dtype)], dim=1)
    scale = 2.0 / y_NE.numel()
    c_HD = mlp.w2.T @ (y_NE - mlp.b2).T @ x1
    return torch.kron(mlp.w2.T @ mlp.w2, x1.T @ x1) * scale, c_HD.flatten() * scale


def flattened(weights: Tensor, biases: Tensor) -> Tensor:
    return torch.cat([weights, biases.unsqueeze(1)], dim=1).flatten()


@pytest.mark.parametrize("layer", ["head", "hidden"])
def test_the_meta_gradient_equals_the_closed_form_of_a_quadratic(layer: str) -> None:
    """With one layer held, the mse is quadratic in the other: 1e-10 in float64."""
    activation: AnyActivation = "gelu" if layer == "head" else "none"
    theta, rate = theta_of(torch.float64), 0.2
    x, y = (t[0] for t in pairs_of(torch.float64, 1, 20))
    q, z = (t[0] for t in pairs_of(torch.float64, 1, 9, seed=9))
    if layer == "head":
        h, h_q = (sigma(activation)(t @ theta.w1.T + theta.b1) for t in (x, q))
        a_c, query = head_quadratic(h, y), head_quadratic(h_q, z)
        p, rates = flattened(theta.w2, theta.b2), [0.0, 0.0, rate, rate]
    else:
        a_c, query = hidden_quadratic(theta, x, y), hidden_quadratic(theta, q, z)
        p, rates = flattened(theta.w1, theta.b1), [rate, rate, 0.0, 0.0]
    expected_adapted, expected_gradient = quadratic_oracle(*a_c, p, rate, query)

    leaves = [t.requires_grad_() for t in theta]
    rates_K4 = torch.tensor([rates] * K, dtype=torch.float64)
    real = torch.ones(1, 20, dtype=torch.bool)
    adapted = batched.adapt_batched(Mlp(*leaves), rates_K4, x[None], y[None], real, activation)
    outer = mse_loss(apply_batched(adapted, q[None], activation)[0], z)
    gradient = torch.autograd.grad(outer, leaves)
    moved = slice(2, 4) if layer == "head" else slice(0, 2)
    found_adapted = flattened(*(t[0].detach() for t in adapted[moved]))
    for found, expected in (
        (found_adapted, expected_adapted),
        (flattened(*gradient[moved]), expected_gradient),
    ):
        assert (found - expected).norm() <= 1e-10 * expected.norm()


@pytest.mark.parametrize("activation", ANY_ACTIVATION)
def test_sigma_prime_is_the_derivative_of_sigma(activation: AnyActivation) -> None:
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
    clean = batched.adapt_batched(theta, rates, x, y, real, "gelu")
    dirty = batched.adapt_batched(theta, rates, dirty_x, dirty_y, real, "gelu")
    for a, b in zip(clean, dirty, strict=True):
        assert torch.equal(a, b)
    clean_loss = masked_mean_squared_error(y, x[..., :E], real)
    assert torch.equal(clean_loss, masked_mean_squared_error(dirty_y, dirty_x[..., :E], real))


def test_a_stream_without_pairs_keeps_theta_and_has_no_loss() -> None:
    theta = theta_of(torch.float32)
    x, y = pairs_of(torch.float32, 1, 4)
    nothing = real_of([0], 4)
    adapted = batched.adapt_batched(theta, rates_of(torch.float32), x, y, nothing, "gelu")
    for found, expected in zip(adapted, theta, strict=True):
        assert torch.equal(found[0], expected)
    assert masked_mean_squared_error(y + 1.0, y, nothing).tolist() == [0.0]


@pytest.mark.parametrize(("activation", "output"), [*product(ANY_ACTIVATION, ANY_ACTIVATION)])
def test_one_stream_many_streams_and_numpy_map_alike(
    activation: AnyActivation, output: AnyActivation
) -> None:
    theta = theta_of(torch.float32)
    x, _ = pairs_of(torch.float32, 2, 7)
    together = apply_batched(expand(theta, 2), x, activation, output)
    tensors = {name: tensor.numpy() for name, tensor in theta._asdict().items()}
    for b in range(2):
        assert_close(apply(theta, x[b], activation, output), together[b], 1e-6)
        by_numpy = torch.from_numpy(apply_numpy(tensors, x[b].numpy(), activation, output))
        assert_close(by_numpy, together[b], 1e-6)
