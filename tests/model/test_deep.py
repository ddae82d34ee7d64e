"""Mappings of any depth and their inner loop, against one stream at a time, finite differences and
the hand-derived form for one hidden layer.

B = streams in batch, S = support pairs, D = source dim, H = hidden units, E = target dim, K = inner
steps, N = pairs of a stream
"""

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor
from torch.nn.functional import mse_loss

from model.inner import batched
from model.inner import deep as inner
from model.inner.learner import Support
from model.mappings import deep
from model.mappings.deep import Layers
from model.mappings.mlp import Activation, Mlp
from model.mappings.mlp import apply as apply_mlp

D, E, K = 3, 2, 3
DIMS = (D, 7, 5, E)
LENGTHS = [4, 1, 6, 0]
KINDS = ("number", "per tensor", "per parameter")


def theta_of(dims: Sequence[int] = DIMS) -> tuple[Tensor, ...]:
    g = torch.Generator().manual_seed(0)
    drawn = deep.flat(deep.fresh(dims, g))
    return tuple(0.5 * torch.randn(t.shape, generator=g, dtype=torch.float64) for t in drawn)


def support_of(lengths: list[int], seed: int = 1) -> Support:
    g = torch.Generator().manual_seed(seed)
    capacity = max(lengths)
    x_BSD, y_BSE = (
        torch.randn(len(lengths), capacity, dim, generator=g, dtype=torch.float64) for dim in (D, E)
    )
    return Support(x_BSD, y_BSE, torch.arange(capacity) < torch.tensor(lengths)[:, None])


def rates_of(kind: str, theta: tuple[Tensor, ...]) -> list[list[Tensor]]:
    """K steps' rates as one tensor per parameter tensor; per parameter they take both signs."""
    g = torch.Generator().manual_seed(2)
    if kind == "number":
        numbers = [0.05 + 0.1 * torch.rand((), generator=g, dtype=torch.float64) for _ in range(K)]
        return [[number] * len(theta) for number in numbers]
    shapes = [t.shape if kind == "per parameter" else () for t in theta]
    low = -0.05 if kind == "per parameter" else 0.05
    return [
        [low + 0.15 * torch.rand(shape, generator=g, dtype=torch.float64) for shape in shapes]
        for _ in range(K)
    ]


def forward_of(activation: Activation) -> inner.Forward:
    return lambda tensors, x: deep.apply_batched(deep.layered(tensors), x, activation)


def one_stream(
    theta: tuple[Tensor, ...],
    rates: Sequence[Sequence[Tensor]],
    x_SD: Tensor,
    y_SE: Tensor,
    activation: Activation,
) -> tuple[Tensor, ...]:
    """The textbook's loop on the plain, unbatched mapping."""
    tensors = tuple(t if t.requires_grad else t.detach().requires_grad_() for t in theta)
    for of_step in rates:
        loss = mse_loss(deep.apply(deep.layered(tensors), x_SD, activation), y_SE)
        gradients = torch.autograd.grad(loss, tensors, create_graph=True)
        tensors = tuple(t - a * g for t, a, g in zip(tensors, of_step, gradients, strict=True))
    return tensors


def assert_close(found: Tensor, expected: Tensor, tolerance: float = 1e-12) -> None:
    torch.testing.assert_close(found, expected, rtol=tolerance, atol=tolerance)


def test_batched_equals_one_mapping_at_a_time() -> None:
    g = torch.Generator().manual_seed(3)
    tensors = [torch.randn(4, *t.shape, generator=g, dtype=torch.float64) for t in theta_of()]
    x_BND = torch.randn(4, 6, D, generator=g, dtype=torch.float64)
    found = deep.apply_batched(deep.layered(tensors), x_BND, "tanh")
    for b, x_ND in enumerate(x_BND):
        assert_close(found[b], deep.apply(deep.layered([t[b] for t in tensors]), x_ND, "tanh"))


def test_a_deep_mapping_computes_what_its_formula_says() -> None:
    layers = deep.layered(theta_of())
    x = torch.tensor([0.3, -1.0, 2.0], dtype=torch.float64)
    (w1, b1), (w2, b2), (w3, b3) = layers
    h1 = [max(0.0, float(w1[i] @ x + b1[i])) for i in range(7)]
    h2 = [max(0.0, sum(float(w2[i, j]) * h1[j] for j in range(7)) + float(b2[i])) for i in range(5)]
    o = [sum(float(w3[i, j]) * h2[j] for j in range(5)) + float(b3[i]) for i in range(E)]
    assert deep.apply(layers, x[None], "relu")[0].tolist() == pytest.approx(o, abs=1e-12)


def test_with_one_hidden_layer_it_is_the_mlp() -> None:
    tensors = theta_of((D, 7, E))
    x_ND = support_of([5]).x_BSD[0]
    found = deep.apply(deep.layered(tensors), x_ND, "gelu")
    assert_close(found, apply_mlp(Mlp(*tensors), x_ND, "gelu"))


def test_layered_refuses_a_tensor_left_over() -> None:
    with pytest.raises(ValueError, match="shorter"):
        deep.layered(theta_of()[:-1])


def test_fresh_weights_are_cut_off_at_two_deviations_and_biases_are_nothing() -> None:
    layers: Layers = deep.fresh((1, 400, 400, 1), torch.Generator().manual_seed(0), 0.01)
    assert [tuple(w.shape) for w, _ in layers] == [(400, 1), (400, 400), (1, 400)]
    w = layers[1].w
    assert w.abs().max() <= 0.02
    # A normal cut off at two deviations keeps 0.8796 of its own.
    assert float(w.std()) == pytest.approx(0.008796, rel=0.01)
    assert all(not b.any() for _, b in layers)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("activation", ["relu", "tanh"])
@pytest.mark.parametrize("second_order", [False, True])
def test_a_ragged_batch_equals_one_stream_at_a_time(
    kind: str, activation: Activation, second_order: bool
) -> None:
    theta, support = theta_of(), support_of(LENGTHS)
    rates = rates_of(kind, theta)
    given: Sequence[inner.Rates] = [of[0] for of in rates] if kind == "number" else rates
    found = inner.adapt(forward_of(activation), theta, given, support, second_order=second_order)
    for b, n in enumerate(LENGTHS):
        x_SD, y_SE = support.x_BSD[b, :n], support.y_BSE[b, :n]
        alone = one_stream(theta, rates, x_SD, y_SE, activation) if n else theta
        for mine, theirs in zip(found, alone, strict=True):
            assert_close(mine[b].detach(), theirs.detach())


@pytest.mark.parametrize("activation", ["relu", "gelu"])
def test_one_hidden_layer_equals_the_hand_derived_batch(activation: Activation) -> None:
    theta, support = theta_of((D, 7, E)), support_of(LENGTHS)
    rates_K4 = 0.2 + 0.1 * torch.rand(K, 4, dtype=torch.float64)
    per_step = [list(rate_4.unbind()) for rate_4 in rates_K4]
    found = inner.adapt(forward_of(activation), theta, per_step, support, second_order=False)
    expected = batched.adapt_batched(Mlp(*theta), rates_K4, *support, activation)
    for mine, theirs in zip(found, expected, strict=True):
        assert_close(mine, theirs)


def leaves_of(kind: str) -> tuple[Tensor, ...]:
    theta = theta_of()
    rates = rates_of(kind, theta)
    one = [of_step[0] for of_step in rates]
    each = one if kind == "number" else [rate for of_step in rates for rate in of_step]
    return tuple(t.detach().requires_grad_() for t in (*theta, *each))


def outer_loss(*leaves: Tensor, second_order: bool = True) -> Tensor:
    """The mean query loss of three streams after the inner loop; rates as many as come."""
    theta, rates = leaves[:6], leaves[6:]
    per_step: list[inner.Rates] = (
        list(rates) if len(rates) == K else [rates[6 * k : 6 * k + 6] for k in range(K)]
    )
    support, query = support_of([4, 2, 3]), support_of([5, 5, 5], seed=7)
    forward = forward_of("tanh")
    adapted = inner.adapt(forward, theta, per_step, support, second_order=second_order)
    return (forward(adapted, query.x_BSD) - query.y_BSE).square().mean()


@pytest.mark.parametrize("kind", KINDS)
def test_the_outer_gradient_equals_finite_differences(kind: str) -> None:
    assert torch.autograd.gradcheck(outer_loss, leaves_of(kind), fast_mode=True)


def test_the_first_order_gradient_is_that_at_the_adapted_parameters() -> None:
    """FOMAML: θ's gradient is the mean over streams of ∇L_Q(θ′), and not the exact one."""
    leaves = leaves_of("number")
    found = torch.autograd.grad(outer_loss(*leaves, second_order=False), leaves[:6])
    support, query = support_of([4, 2, 3]), support_of([5, 5, 5], seed=7)
    forward = forward_of("tanh")
    adapted = inner.adapt(forward, leaves[:6], leaves[6:], support, second_order=False)
    at = tuple(t.detach().requires_grad_() for t in adapted)
    loss = (forward(at, query.x_BSD) - query.y_BSE).square().mean()
    for mine, theirs in zip(found, torch.autograd.grad(loss, at), strict=True):
        assert_close(mine, theirs.sum(0))
    exact = torch.autograd.grad(outer_loss(*leaves), leaves[:6])
    assert max((a - b).abs().max().item() for a, b in zip(found, exact, strict=True)) > 1e-3


def test_padding_and_a_broken_companion_change_no_bit() -> None:
    theta, support = theta_of(), support_of([3, 6])
    rates = [0.1] * K
    clean = inner.adapt(forward_of("relu"), theta, rates, support, second_order=False)
    x_BSD, y_BSE = support.x_BSD.clone(), support.y_BSE.clone()
    x_BSD[0, 3:], y_BSE[0, 3:], y_BSE[1, 0] = float("nan"), float("inf"), float("nan")
    dirty_support = Support(x_BSD, y_BSE, support.real_BS)
    dirty = inner.adapt(forward_of("relu"), theta, rates, dirty_support, second_order=False)
    for a, b in zip(clean, dirty, strict=True):
        assert torch.equal(a[0], b[0])
        assert b[1].isnan().any()


def test_it_adapts_under_no_grad_and_leaves_theta_alone() -> None:
    theta, support = theta_of(), support_of([4])
    before = [t.clone() for t in theta]
    with torch.no_grad():
        adapted = inner.adapt(forward_of("relu"), theta, [0.1], support, second_order=False)
    assert not any(t.requires_grad for t in adapted)
    assert all(torch.equal(a, b) for a, b in zip(before, theta, strict=True))
    assert not torch.equal(adapted[0][0], theta[0])


def test_another_mapping_and_another_loss() -> None:
    """Nothing knows of layers: f(x) = a·x on one number, absolute error, by hand."""
    x_B11, y_B11 = torch.tensor([[[2.0]]]), torch.tensor([[[7.0]]])
    support = Support(x_B11, y_B11, torch.tensor([[True]]))
    (found,) = inner.adapt(
        lambda tensors, x: tensors[0].view(-1, 1, 1) * x,
        (torch.tensor(1.0),),
        [0.5],
        support,
        second_order=False,
        loss=lambda o, y, real: (o - y).abs().sum((1, 2)),
    )
    assert found.tolist() == [1.0 + 0.5 * 2.0]


@pytest.mark.parametrize("rates", [torch.ones(6), [torch.ones(())] * 5])
def test_rates_of_another_number_are_refused(rates: inner.Rates) -> None:
    with pytest.raises(ValueError, match="neither one number nor 6"):
        inner.adapt(forward_of("relu"), theta_of(), [rates], support_of([2]), second_order=False)
