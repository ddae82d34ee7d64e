"""The outer gradient through hidden space against autograd through the form in full.

B = streams in batch, S = support pairs (padded), Q = query pairs (padded), E = target dim,
D = source dim, H = hidden units, K = inner steps, N = pairs of a stream
"""

from collections.abc import Callable
from functools import partial
from itertools import product

import pytest
import torch
from torch import Tensor

from model.inner.batched import Objective
from model.inner.hidden import descent
from model.inner.hidden.descent import Descent, descend
from model.inner.hidden.head import descend_head, solve_head
from model.inner.hidden.projected import Projected, Terms, terms
from model.inner.hidden.result import hidden_space_outputs
from model.losses import MSE, Loss, value
from model.mappings.mlp import AnyActivation, Mlp, apply_batched
from tests.model.hidden_lab import (
    ACTIVATIONS,
    LOSSES,
    Scene,
    descent_of,
    in_full,
    penalties_of,
    scene_of,
)

OUTER = {"mse": Loss("infonce"), "cosine": MSE}


def adapting(
    kind: str, scene: Scene, objective: Objective, first_order: bool
) -> Callable[[Terms, Projected], Descent]:
    if kind == "full":
        return partial(
            descend, rates_K4=scene.rates_K4, objective=objective, first_order=first_order
        )
    if kind == "head":
        rates_K2 = scene.rates_K4[:, 2:]
        return partial(
            descend_head, rates_K2=rates_K2, objective=objective, first_order=first_order
        )
    return partial(solve_head, log_penalties_2=penalties_of(scene), objective=objective)


def outer_loss(scene: Scene, loss: Loss, o_BQE: Tensor) -> Tensor:
    queries = slice(scene.support, None)
    weight_B = torch.arange(1.0, len(o_BQE) + 1, dtype=torch.float64)
    return value(loss, o_BQE, scene.y_BNE[:, queries], scene.real_BN[:, queries]) @ weight_B


def gradients(
    kind: str, loss: Loss, activation: AnyActivation, first_order: bool
) -> tuple[list[Tensor], list[Tensor]]:
    """θ's and the rates': through hidden space, in full."""
    scene, objective = scene_of(loss, garbage=0.0), Objective(loss, activation, "none")
    leaves = [t.requires_grad_() for t in (*scene.theta, scene.rates_K4)]
    scene = scene._replace(theta=Mlp(*leaves[:4]), rates_K4=leaves[4])
    outer, x_BQD = OUTER.get(loss.kind, MSE), scene.x_BND[:, scene.support :]
    adapt = adapting(kind, scene, objective, first_order)
    found = hidden_space_outputs(terms(scene.theta), scene.pairs, x_BQD, adapt)
    assert found.healthy_B.all()
    mlp = in_full(kind, scene, objective, first_order).mlp
    both = []
    for o_BQE in (found.o_BQE, apply_batched(mlp, x_BQD, activation)):
        leaf_gradients = torch.autograd.grad(
            outer_loss(scene, outer, o_BQE), leaves, allow_unused=kind == "ridge"
        )
        both.append([torch.zeros(()) if g is None else g for g in leaf_gradients])
    return both[0], both[1]


@pytest.mark.parametrize("first_order", [False, True], ids=["second", "first"])
@pytest.mark.parametrize(
    ("kind", "loss", "activation"),
    [
        *product(["full", "head"], LOSSES, ["gelu"]),
        *product(["full"], [MSE, Loss("infonce")], ["relu", "tanh", "sigmoid", "none"]),
    ],
    ids=str,
)
def test_outer_gradients_are_those_in_full(
    kind: str, loss: Loss, activation: AnyActivation, first_order: bool
) -> None:
    for mine, theirs in zip(*gradients(kind, loss, activation, first_order), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-10, atol=1e-10 * float(theirs.abs().max()))


@pytest.mark.parametrize("loss", [MSE, Loss("cosine")], ids=str)
def test_the_closed_form_too(loss: Loss) -> None:
    for mine, theirs in zip(*gradients("ridge", loss, "tanh", False), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-10, atol=1e-10 * float(theirs.abs().max()))


def test_first_and_second_order_differ() -> None:
    first, second = (gradients("full", MSE, "tanh", order)[0] for order in (True, False))
    for a, b in zip(first[:4], second[:4], strict=True):
        assert float((a - b).norm() / b.norm()) > 0.01


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_the_backward_pass_by_hand_is_autograds(
    activation: AnyActivation, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene, objective = scene_of(MSE, dtype, garbage=0.0), Objective(MSE, activation, "none")
    leaves = [t.requires_grad_() for t in (*scene.theta, scene.rates_K4, scene.x_BND)]
    scene = scene._replace(theta=Mlp(*leaves[:4]))
    both = []
    for by_hand in (True, False):
        if not by_hand:
            monkeypatch.setattr(descent, "descend_with_gradient", descent.descend_plainly)
        _, _, found = descent_of("full", scene, objective)
        loss = sum((t * torch.arange(t.numel()).view(t.shape)).sin().sum() for t in found.head[:3])
        loss = loss + found.a_BSH.square().sum() + found.beta_BH.sin().sum()
        both.append(torch.autograd.grad(loss, leaves))
    tolerance = 1e-11 if dtype == torch.float64 else 1e-3
    for mine, theirs in zip(*both, strict=True):
        size = float(theirs.abs().max())
        torch.testing.assert_close(mine, theirs, rtol=tolerance, atol=tolerance * size)


def test_second_order_gradients_are_finite_differences() -> None:
    scene, objective = scene_of(MSE, garbage=0.0), Objective(MSE, "tanh", "none")
    leaves = tuple(t.requires_grad_() for t in (*scene.theta, scene.rates_K4))

    def loss_at(*tensors: Tensor) -> Tensor:
        here = scene._replace(theta=Mlp(*tensors[:4]), rates_K4=tensors[4])
        adapt = adapting("full", here, objective, first_order=False)
        x_BQD = scene.x_BND[:, scene.support :]
        o_BQE = hidden_space_outputs(terms(here.theta), scene.pairs, x_BQD, adapt).o_BQE
        return outer_loss(scene, MSE, o_BQE)

    assert torch.autograd.gradcheck(loss_at, leaves, fast_mode=True)


def test_encoders_of_the_pairs_learn_too() -> None:
    scene, objective = scene_of(MSE, garbage=0.0), Objective(MSE, "gelu", "none")
    leaves = [t.requires_grad_() for t in (scene.x_BND, scene.y_BNE)]
    x_BQD = scene.x_BND[:, scene.support :]
    found = hidden_space_outputs(
        terms(scene.theta), scene.pairs, x_BQD, adapting("full", scene, objective, False)
    )
    expected = apply_batched(in_full("full", scene, objective).mlp, x_BQD, "gelu")
    for mine, theirs in zip(
        *(torch.autograd.grad(outer_loss(scene, MSE, o), leaves) for o in (found.o_BQE, expected)),
        strict=True,
    ):
        torch.testing.assert_close(mine, theirs, rtol=1e-10, atol=1e-12)


def test_a_stream_that_diverges_is_told() -> None:
    scene, objective = scene_of(MSE, garbage=0.0), Objective(MSE, "none", "none")
    scene.x_BND[2, 0] = 1e200
    found = hidden_space_outputs(
        terms(scene.theta),
        scene.pairs,
        scene.x_BND[:, scene.support :],
        adapting("full", scene, objective, False),
    )
    assert found.healthy_B.tolist() == [True, True, False, True, True]
