"""The outer loop's gradient through every learner.

B = streams in batch, S = support pairs (padded), D = source dim, H = hidden units, E = target dim,
K = inner steps, N = pairs of a stream
"""

from itertools import product
from typing import Any

import pytest
import torch
from torch import Tensor

from model.inner import reference
from model.inner.learners import build
from model.losses import MSE, Loss, value
from model.mappings.mlp import AnyActivation, Mlp, apply, apply_batched
from tests.model.learner_lab import (
    LENGTHS,
    LOSSES,
    OUTPUTS,
    K,
    case_id,
    learner_of,
    run,
    support_loss,
    support_of,
    tensors_of,
    theta_of,
)


def outer_gradient(
    kind: str, loss: Loss, output: AnyActivation = "none", **settings: Any
) -> list[Tensor]:
    """∂ Σ query loss / ∂ (θ, the learner's tensor)."""
    support, query = support_of(torch.float64), support_of(torch.float64, [4] * 5, seed=9)
    (own,) = tensors_of(kind, torch.float64).items()
    leaves = [t.requires_grad_() for t in (*theta_of(torch.float64), own[1])]
    config = {"kind": kind, "loss": loss.config()} | settings
    mlp = run(build(config, {own[0]: own[1]}, "gelu", output), support, Mlp(*leaves[:4])).mlp
    outer = support_loss(mlp, query, loss, output).sum()
    return list(torch.autograd.grad(outer, leaves))


def outer_gradient_one_by_one(
    loss: Loss, output: AnyActivation, first_order: bool, kind: str = "maml"
) -> list[Tensor]:
    support, query = support_of(torch.float64), support_of(torch.float64, [4] * 5, seed=9)
    leaves = [t.requires_grad_() for t in theta_of(torch.float64)]
    leaves.append(tensors_of(kind, torch.float64)["rates"].requires_grad_())
    held = torch.zeros(K, 4 - leaves[4].shape[1], dtype=torch.float64)
    rates = torch.cat([held, leaves[4]], dim=1)
    total = torch.zeros((), dtype=torch.float64)
    for b, n in enumerate(LENGTHS):
        mlp = Mlp(*leaves[:4])
        if n:
            pairs = support.x_BSD[b, :n], support.y_BSE[b, :n]
            mlp = reference.adapt_one_stream(mlp, rates, *pairs, "gelu", output, loss, first_order)
        o_NE = apply(mlp, query.x_BSD[b, :4], "gelu", output)
        total = total + reference.one_stream(loss, o_NE, query.y_BSE[b, :4])
    return list(torch.autograd.grad(total, leaves))


@pytest.mark.parametrize(("loss", "output"), [*product(LOSSES, OUTPUTS)], ids=case_id)
def test_second_and_first_order_equal_autograd_and_differ(
    loss: Loss, output: AnyActivation
) -> None:
    for kind in ("maml", "fomaml"):
        found = outer_gradient(kind, loss, output)
        expected = outer_gradient_one_by_one(loss, output, first_order=kind == "fomaml")
        for mine, theirs in zip(found, expected, strict=True):
            torch.testing.assert_close(mine, theirs, rtol=1e-10, atol=1e-12)
    second = outer_gradient("maml", loss, output)
    assert not torch.allclose(found[0], second[0], rtol=1e-3)


@pytest.mark.parametrize("first_order", [False, True])
@pytest.mark.parametrize("loss", LOSSES, ids=case_id)
def test_anils_gradient_is_that_of_a_held_first_layer(loss: Loss, first_order: bool) -> None:
    found = outer_gradient("anil", loss, first_order=first_order)
    expected = outer_gradient_one_by_one(loss, "none", first_order, "anil")
    for mine, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("kind", ["meta-sgd", "anil", "adam"])
def test_first_order_is_a_setting_and_moves_no_bit_of_the_result(kind: str) -> None:
    support = support_of(torch.float32)
    states = [
        run(learner_of(kind, dtype=torch.float32, first_order=first), support)
        for first in (False, True)
    ]
    for exact, first in zip(states[0].mlp, states[1].mlp, strict=True):
        assert torch.equal(exact, first)
    gradients = [outer_gradient(kind, MSE, first_order=first) for first in (False, True)]
    assert not torch.allclose(gradients[0][0], gradients[1][0], rtol=1e-3)


@pytest.mark.parametrize(
    ("kind", "loss"), [*product(("anil", "adam", "r2d2", "alpaca"), LOSSES)], ids=case_id
)
def test_the_outer_gradient_equals_finite_differences(kind: str, loss: Loss) -> None:
    support, query = support_of(torch.float64, [4, 2]), support_of(torch.float64, [3, 3], seed=9)
    own = tensors_of(kind, torch.float64)
    settings = {"eps": 1e-3} if kind == "adam" else {}

    def outer(*leaves: Tensor) -> Tensor:
        config = {"kind": kind, "loss": loss.config()} | settings
        learner = build(config, dict(zip(own, leaves[4:], strict=True)), "tanh", "none")
        mlp = run(learner, support, Mlp(*leaves[:4])).mlp
        o = apply_batched(mlp, query.x_BSD, "tanh")
        return value(loss, o, query.y_BSE, query.real_BS).sum()

    leaves = tuple(t.requires_grad_() for t in (*theta_of(torch.float64), *own.values()))
    assert torch.autograd.gradcheck(outer, leaves, fast_mode=True)


def test_adam_has_a_second_derivative_where_the_gradient_is_0() -> None:
    """A dead unit, and a stream without pairs."""
    theta = theta_of(torch.float64)
    theta.b1[0] = -50.0
    leaves = [t.requires_grad_() for t in theta]
    tensors = tensors_of("adam", torch.float64)
    learner = build({"kind": "adam"}, tensors, "relu", "none")
    mlp = run(learner, support_of(torch.float64, [4, 0]), Mlp(*leaves)).mlp
    gradients = torch.autograd.grad(sum(t.square().sum() for t in mlp), leaves)  # type: ignore[arg-type]
    for gradient in gradients:
        assert torch.isfinite(gradient).all()
