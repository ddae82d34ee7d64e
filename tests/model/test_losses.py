"""The losses against the textbook one pair at a time, their gradients against autograd.

B = streams in batch, N = pairs of a stream (padded), E = target dim
"""

import json
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional

from model.losses import EPSILON, MSE, Loss, judged_by, output_gradient, value
from model.values.errors import BadMetaInit

LOSSES = [
    Loss("mse"),
    Loss("cosine"),
    Loss("infonce"),
    Loss("infonce", temperature=0.5, symmetric=True),
    Loss("hinge", margin=0.6),
    Loss("hinge", margin=1.1, symmetric=True),
]
RANKING = LOSSES[2:]
E = 5


def ids(loss: Loss) -> str:
    return f"{loss.kind}{'-symmetric' * loss.symmetric}"


def pairs_of(streams: int, capacity: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    g = torch.Generator().manual_seed(seed)
    o, y = torch.randn(2, streams, capacity, E, generator=g, dtype=torch.float64)
    return o, y


def real_of(lengths: list[int], capacity: int) -> Tensor:
    return torch.arange(capacity) < torch.tensor(lengths)[:, None]


def textbook(loss: Loss, o_NE: Tensor, y_NE: Tensor) -> Tensor:
    """One stream without padding, pair by pair."""
    if loss.kind == "mse":
        return functional.mse_loss(o_NE, y_NE)
    c_NN = functional.cosine_similarity(o_NE[:, None], y_NE[None, :], dim=2)
    if loss.kind == "cosine":
        return torch.stack([1.0 - c_NN[i, i] for i in range(len(o_NE))]).mean()
    directions = [c_NN, c_NN.T] if loss.symmetric else [c_NN]
    return torch.stack([one_direction(loss, c) for c in directions]).mean()


def one_direction(loss: Loss, c_NN: Tensor) -> Tensor:
    n = len(c_NN)
    if loss.kind == "infonce":
        return functional.cross_entropy(c_NN / loss.temperature, torch.arange(n))
    violations = []
    for i in range(n):
        negatives = [c_NN[i, j] for j in range(n) if j != i]
        hardest = max(negatives, default=torch.tensor(-9.0))
        violations.append(torch.relu(loss.margin - c_NN[i, i] + hardest))
    return torch.stack(violations).mean()


@pytest.mark.parametrize("loss", LOSSES, ids=ids)
def test_a_ragged_batch_equals_the_textbook_stream_by_stream(loss: Loss) -> None:
    lengths = [7, 1, 4, 2]
    o, y = pairs_of(4, 7)
    found_B = value(loss, o, y, real_of(lengths, 7))
    for b, n in enumerate(lengths):
        expected = textbook(loss, o[b, :n], y[b, :n])
        # the textbook's cosines have no ε beside |o|² ≈ 5
        torch.testing.assert_close(found_B[b], expected, rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize("loss", LOSSES, ids=ids)
def test_the_gradient_is_autograds(loss: Loss) -> None:
    o, y = pairs_of(3, 6)
    real = real_of([6, 3, 1], 6)
    o.requires_grad_()
    (expected,) = torch.autograd.grad(value(loss, o, y, real).sum(), o)
    torch.testing.assert_close(output_gradient(loss, o, y, real), expected, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("loss", LOSSES, ids=ids)
def test_the_gradients_own_derivatives_are_finite_differences(loss: Loss) -> None:
    o, y = (t.requires_grad_() for t in pairs_of(2, 3, seed=3))
    real = real_of([3, 2], 3)
    assert torch.autograd.gradcheck(lambda o, y: output_gradient(loss, o, y, real), (o, y))
    assert torch.autograd.gradgradcheck(lambda o: output_gradient(loss, o, y, real), (o,))
    assert torch.autograd.gradcheck(lambda o, y: value(loss, o, y, real), (o, y))


@pytest.mark.parametrize("loss", LOSSES, ids=ids)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_zero_vectors_give_finite_numbers_up_to_the_second_derivative(
    loss: Loss, dtype: torch.dtype
) -> None:
    o = torch.zeros(2, 3, E, dtype=dtype, requires_grad=True)
    y = pairs_of(2, 3)[1].to(dtype)
    y[1] = 0.0
    gradient = output_gradient(loss, o, y, real_of([3, 2], 3))
    (second,) = torch.autograd.grad(gradient.square().sum(), o)
    for tensor in (value(loss, o, y, real_of([3, 2], 3)), gradient, second):
        assert torch.isfinite(tensor).all()


@pytest.mark.parametrize("loss", RANKING, ids=ids)
def test_without_negatives_a_ranking_loss_and_its_gradient_are_0(loss: Loss) -> None:
    o, y = pairs_of(3, 4)
    y[2] = y[2, :1] * torch.tensor([[1.0], [2.0], [0.5], [1.0]])  # one direction: one target
    real = real_of([1, 0, 4], 4)
    assert value(loss, o, y, real).abs().tolist() == [0.0, 0.0, 0.0]
    assert not output_gradient(loss, o, y, real).any()


@pytest.mark.parametrize("loss", RANKING, ids=ids)
def test_a_repeated_target_is_no_negative_of_its_own(loss: Loss) -> None:
    o, y = pairs_of(1, 3)
    y[0, 2] = y[0, 1]
    o[0, 2] = o[0, 1]
    c_NN = functional.cosine_similarity(o[0][:, None], y[0][None, :], dim=2)
    # pair 0 has two negatives, pairs 1 and 2 have pair 0 alone
    small = [c_NN[[0, 1]][:, [0, 1]], c_NN[[0, 2]][:, [0, 2]]]
    per_direction = []
    for transpose in (False, True)[: 1 + loss.symmetric]:
        rows = [one_row(loss, (c_NN.T if transpose else c_NN)[0], 0)]
        rows += [one_row(loss, (c.T if transpose else c)[1], 1) for c in small]
        per_direction.append(torch.stack(rows).mean())
    expected = torch.stack(per_direction).mean()
    found = value(loss, o, y, real_of([3], 3))[0]
    torch.testing.assert_close(found, expected, rtol=1e-7, atol=1e-7)


def one_row(loss: Loss, c_N: Tensor, own: int) -> Tensor:
    if loss.kind == "infonce":
        return functional.cross_entropy(c_N / loss.temperature, torch.tensor(own))
    others = torch.cat([c_N[:own], c_N[own + 1 :]])
    return torch.relu(loss.margin - c_N[own] + others.max())


@given(
    lengths=st.lists(st.integers(0, 6), min_size=1, max_size=4),
    garbage=st.sampled_from([float("nan"), float("inf"), -float("inf"), 1e30]),
    loss=st.sampled_from(LOSSES),
)
@settings(max_examples=60, deadline=None)
def test_what_stands_in_padding_changes_no_bit(
    lengths: list[int], garbage: float, loss: Loss
) -> None:
    real = real_of(lengths, 6)
    o, y = (t.float() for t in pairs_of(len(lengths), 6))
    dirty_o, dirty_y = (t.masked_fill(~real.unsqueeze(2), garbage) for t in (o, y))
    assert torch.equal(value(loss, o, y, real), value(loss, dirty_o, dirty_y, real))
    gradient = output_gradient(loss, dirty_o, dirty_y, real)
    assert torch.equal(output_gradient(loss, o, y, real), gradient)
    assert not gradient[~real].any()


@pytest.mark.parametrize("loss", LOSSES, ids=ids)
@pytest.mark.parametrize("poison", [float("nan"), float("inf"), 1e30])
def test_one_streams_poison_leaves_the_others_bits(loss: Loss, poison: float) -> None:
    o, y = (t.float() for t in pairs_of(3, 6))
    real = real_of([6, 6, 4], 6)
    bad_o, bad_y = o.clone(), y.clone()
    bad_o[1, 2], bad_y[1, 3] = poison, poison
    others = torch.tensor([0, 2])
    for function in (value, output_gradient):
        found, expected = function(loss, bad_o, bad_y, real), function(loss, o, y, real)
        assert torch.equal(found[others], expected[others])


@pytest.mark.parametrize("loss", LOSSES, ids=ids)
def test_no_pairs_at_all_is_no_error(loss: Loss) -> None:
    nothing = torch.zeros(2, 0, E)
    real = torch.zeros(2, 0, dtype=torch.bool)
    assert value(loss, nothing, nothing, real).tolist() == [0.0, 0.0]
    assert output_gradient(loss, nothing, nothing, real).shape == (2, 0, E)


def test_the_mse_is_a_mean_over_real_pairs_and_target_dims() -> None:
    o = torch.tensor([[[1.0, 3.0], [5.0, 5.0], [9.0, 9.0]]])
    y = torch.tensor([[[0.0, 1.0], [5.0, 4.0], [0.0, 0.0]]])
    assert value(MSE, o, y, real_of([2], 3)).tolist() == [(1 + 4 + 0 + 1) / 4]


def test_cosine_losses_do_not_see_length() -> None:
    o, y = pairs_of(2, 5)
    real = real_of([5, 4], 5)
    for loss in LOSSES[1:]:
        found = value(loss, 30.0 * o, 0.3 * y, real)
        torch.testing.assert_close(found, value(loss, o, y, real), rtol=1e-6, atol=1e-6)
    assert EPSILON < 1e-6


@pytest.mark.parametrize("loss", LOSSES, ids=ids)
def test_a_loss_survives_json(loss: Loss) -> None:
    assert Loss.from_config(json.loads(json.dumps(loss.config()))) == loss


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({}, "kind"),
        (None, "not an object"),
        ("mse", "not an object"),
        ({"kind": "l1"}, "'l1'"),
        ({"kind": ["mse"]}, "kind"),
        ({"kind": "mse", "temperature": 0.1}, "no setting temperature"),
        ({"kind": "hinge", "margins": 0.1}, "no setting margins"),
        ({"kind": "infonce", "temperature": 0}, "temperature is 0"),
        ({"kind": "infonce", "temperature": float("nan")}, "temperature is nan"),
        ({"kind": "infonce", "temperature": "hot"}, "temperature is 'hot'"),
        ({"kind": "infonce", "temperature": True}, "temperature is True"),
        ({"kind": "hinge", "margin": -0.1}, "margin is -0.1"),
        ({"kind": "hinge", "margin": 10**400}, "margin is 1000"),
        ({"kind": "hinge", "symmetric": 1}, "symmetric is 1"),
    ],
)
def test_a_bad_loss_is_named(config: Any, message: str) -> None:
    with pytest.raises(BadMetaInit, match=message):
        Loss.from_config(config)


def test_the_gate_judges_by_mse_or_cosine() -> None:
    assert [judged_by(loss).kind for loss in LOSSES] == ["mse", *["cosine"] * 5]
