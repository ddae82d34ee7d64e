"""Losses and gradients out of products alone against those out of the vectors themselves.

B = streams in batch, S = support pairs (padded), N = pairs of a stream (S + queries, padded),
D = source dim, H = hidden units, E = target dim, A = anchors, V = spanning rows (H + A)
"""

from itertools import product

import pytest
import torch
from torch import Tensor

from model.inner.batched import Objective
from model.inner.hidden.coefficients import (
    BIAS_ROWS,
    columns,
    onto_anchors,
    onto_hidden,
)
from model.inner.hidden.losses import direction, losses_of_theta
from model.inner.hidden.memory import JudgingSpace
from model.inner.hidden.projected import Projected, Terms, anchors_of, pair_weights, project, terms
from model.inner.hidden.result import pair_losses
from model.losses import MSE, Loss, output_gradient
from model.mappings.mlp import AnyActivation, apply_batched, expand
from tests.model.hidden_lab import (
    ACTIVATIONS,
    KINDS,
    LOSSES,
    Scene,
    descent_of,
    in_full,
    per_pair,
    scene_of,
)

JUDGES = [MSE, Loss("cosine")]
SEEING_BIAS = [loss for loss in LOSSES if loss.kind != "mse"]


def close(found: Tensor, expected: Tensor, tolerance: float = 1e-12) -> None:
    torch.testing.assert_close(found, expected, rtol=tolerance, atol=tolerance)


def projections_of(scene: Scene) -> tuple[Terms, Projected]:
    made = terms(scene.theta)
    return made, project(made, *scene[2:5], support=scene.support)


def basis_of(scene: Scene) -> Tensor:
    """V (B, V, E), written out: W2ᵀ, ŷ, b2, rows of 0."""
    _, y_BSE, real_BS = scene.pairs.cleaned()
    y_hat_BSE = (y_BSE - scene.theta.b2).masked_fill(~real_BS.unsqueeze(2), 0.0)
    streams, dim = len(y_BSE), len(scene.theta.b2)
    rest = y_BSE.new_zeros(streams, BIAS_ROWS - 1, dim)
    w2_BHE, b2_B1E = (t.expand(streams, -1, -1) for t in (scene.theta.w2.T, scene.theta.b2[None]))
    return torch.cat([w2_BHE, y_hat_BSE, b2_B1E, rest], 1)


@pytest.mark.parametrize("loss", SEEING_BIAS, ids=str)
def test_gradients_are_the_losses_own(loss: Loss) -> None:
    scene, hidden = scene_of(loss), 16
    made, projected = projections_of(scene)
    v_BVE, at = basis_of(scene), anchors_of(made, projected, with_bias=True)
    coefficients = torch.randn(5, 8, hidden, generator=torch.Generator().manual_seed(3)).double()
    own_BSA = torch.zeros(5, 8, 8 + BIAS_ROWS).double()
    own_BSA[:, :, 8] = 1.0
    o_BSV = torch.cat([coefficients, own_BSA], 2)
    o = columns(o_BSV, hidden)
    g = columns(torch.cat([onto_hidden(o, made.m_HH, at), onto_anchors(o, at)], 2), hidden)
    close(torch.cat(g, 2), torch.bmm(torch.bmm(o_BSV, v_BVE), v_BVE.transpose(1, 2)))
    _, y_BSE, real_BS = scene.pairs.cleaned()
    c_BSV, products = direction(loss, o, g, at, real_BS)
    weight_BS1 = -pair_weights(loss, 5, real_BS, torch.float64).unsqueeze(2)
    expected = output_gradient(loss, torch.bmm(o_BSV, v_BVE), y_BSE, real_BS)
    close(torch.bmm(c_BSV, v_BVE) * weight_BS1, expected)
    close(torch.cat(products, 2), torch.bmm(torch.bmm(c_BSV, v_BVE), v_BVE.transpose(1, 2)))


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("judge", JUDGES, ids=str)
def test_losses_of_theta(judge: Loss, activation: AnyActivation) -> None:
    scene = scene_of(judge)
    found = losses_of_theta(*projections_of(scene), judge, activation)
    o_BNE = apply_batched(expand(scene.theta, 5), scene.x_BND, activation)
    close(found, per_pair(judge, o_BNE, scene))


@pytest.mark.parametrize(("kind", "loss"), list(product(KINDS, LOSSES)), ids=str)
@pytest.mark.parametrize("judge", JUDGES, ids=str)
def test_losses_of_the_adapted(judge: Loss, kind: str, loss: Loss) -> None:
    scene, objective = scene_of(loss), Objective(loss, "gelu", "none")
    found = pair_losses(*descent_of(kind, scene, objective), judge)
    o_BNE = apply_batched(in_full(kind, scene, objective).mlp, scene.x_BND, "gelu")
    close(found, per_pair(judge, o_BNE, scene), 1e-11)


@pytest.mark.parametrize("judge", JUDGES, ids=str)
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_losses_in_memory_used_before_are_the_same(activation: AnyActivation, judge: Loss) -> None:
    space = JudgingSpace()
    with torch.inference_mode():
        for kind, loss in product(KINDS, (MSE, Loss("cosine"))):  # chunks of several shapes
            given = descent_of(kind, scene_of(loss), Objective(loss, activation, "none"))
            found = pair_losses(*given, judge, space)
            close(found, pair_losses(*given, judge), 1e-13)
            assert torch.equal(found, pair_losses(*given, judge, space))


def test_a_pair_at_its_target_has_no_less_than_no_loss() -> None:
    scene = scene_of(MSE).to(torch.float32)
    y_BNE = apply_batched(expand(scene.theta, 5), scene.x_BND, "tanh")
    found = losses_of_theta(*projections_of(scene._replace(y_BNE=y_BNE)), MSE, "tanh")
    assert (found >= 0.0).all()
    assert found.max() < 1e-5
