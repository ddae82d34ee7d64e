"""Losses and gradients out of products alone against those out of the vectors themselves.

C = streams, S = support pairs (padded), N = S + queries (padded), H = hidden, E = target dim,
A = anchors, V = H + A
"""

from itertools import product

import pytest
import torch
from torch import Tensor

from model.inner.batched import Objective
from model.inner.hidden.gradient import direction, pair_weights
from model.inner.hidden.loop import Projected, Terms, anchors_of, project, terms
from model.inner.hidden.losses import pair_losses
from model.inner.hidden.rival import ridge_losses
from model.inner.hidden.span import BIAS_ROWS, moved, onto_anchors, onto_hidden, parts
from model.inner.hidden.workspace import JudgingSpace
from model.inner.learner import Support
from model.losses import MSE, Loss, output_gradient
from model.mappings.mlp import AnyActivation, apply_batched, expand
from model.serving import rival
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
    """V (C, V, E), written out: W2ᵀ, ŷ, b2, rows of 0."""
    _, y_CSE, real_CS = scene.pairs.cleaned()
    y_hat_CSE = (y_CSE - scene.theta.b2).masked_fill(~real_CS.unsqueeze(2), 0.0)
    streams, dim = len(y_CSE), len(scene.theta.b2)
    rest = y_CSE.new_zeros(streams, BIAS_ROWS - 1, dim)
    w2_CHE, b2_C1E = (t.expand(streams, -1, -1) for t in (scene.theta.w2.T, scene.theta.b2[None]))
    return torch.cat([w2_CHE, y_hat_CSE, b2_C1E, rest], 1)


@pytest.mark.parametrize("loss", SEEING_BIAS, ids=str)
def test_gradients_are_the_losses_own(loss: Loss) -> None:
    scene, hidden = scene_of(loss), 16
    made, projected = projections_of(scene)
    v_CVE, at = basis_of(scene), anchors_of(made, projected, with_bias=True)
    coefficients = torch.randn(5, 8, hidden, generator=torch.Generator().manual_seed(3)).double()
    own_CSA = torch.zeros(5, 8, 8 + BIAS_ROWS).double()
    own_CSA[:, :, 8] = 1.0
    o_CSV = moved(coefficients, own_CSA, None)
    o = parts(o_CSV, hidden)
    g = parts(torch.cat([onto_hidden(o, made.m_HH, at), onto_anchors(o, at)], 2), hidden)
    close(torch.cat(g, 2), torch.bmm(torch.bmm(o_CSV, v_CVE), v_CVE.transpose(1, 2)))
    _, y_CSE, real_CS = scene.pairs.cleaned()
    c_CSV, products = direction(loss, o, g, at, real_CS)
    weight_CS1 = -pair_weights(loss, 5, real_CS, torch.float64).unsqueeze(2)
    expected = output_gradient(loss, torch.bmm(o_CSV, v_CVE), y_CSE, real_CS)
    close(torch.bmm(c_CSV, v_CVE) * weight_CS1, expected)
    close(torch.cat(products, 2), torch.bmm(torch.bmm(c_CSV, v_CVE), v_CVE.transpose(1, 2)))


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("judge", JUDGES, ids=str)
def test_losses_of_theta(judge: Loss, activation: AnyActivation) -> None:
    scene = scene_of(judge)
    found = pair_losses(*projections_of(scene), None, judge, activation)
    o_CNE = apply_batched(expand(scene.theta, 5), scene.x_CND, activation)
    close(found, per_pair(judge, o_CNE, scene))


@pytest.mark.parametrize(("kind", "loss"), list(product(KINDS, LOSSES)), ids=str)
@pytest.mark.parametrize("judge", JUDGES, ids=str)
def test_losses_of_the_adapted(judge: Loss, kind: str, loss: Loss) -> None:
    scene, objective = scene_of(loss), Objective(loss, "gelu", "none")
    found = pair_losses(*descent_of(kind, scene, objective), judge, "gelu")
    o_CNE = apply_batched(in_full(kind, scene, objective).mlp, scene.x_CND, "gelu")
    close(found, per_pair(judge, o_CNE, scene), 1e-11)


@pytest.mark.parametrize("judge", JUDGES, ids=str)
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_losses_in_memory_used_before_are_the_same(activation: AnyActivation, judge: Loss) -> None:
    space = JudgingSpace()
    with torch.inference_mode():
        for kind, loss in product(KINDS, (MSE, Loss("cosine"))):  # chunks of several shapes
            given = descent_of(kind, scene_of(loss), Objective(loss, activation, "none"))
            found = pair_losses(*given, judge, activation, space)
            close(found, pair_losses(*given, judge, activation), 1e-13)
            assert torch.equal(found, pair_losses(*given, judge, activation, space))


@pytest.mark.parametrize("judge", JUDGES, ids=str)
@pytest.mark.parametrize("penalty", [0.125, rival.PENALTY])
def test_ridge_regression_is_the_rivals(penalty: float, judge: Loss) -> None:
    scene = scene_of(judge, lengths=[8, 1, 5, 0, 3, 2])
    found = ridge_losses(*projections_of(scene), penalty, judge)
    fitted = rival.fit(Support(*scene.pairs), penalty)
    close(found, per_pair(judge, rival.predict(fitted, scene.x_CND), scene), 1e-10)


def test_a_pair_at_its_target_has_no_less_than_no_loss() -> None:
    scene = scene_of(MSE).to(torch.float32)
    y_CNE = apply_batched(expand(scene.theta, 5), scene.x_CND, "tanh")
    found = pair_losses(*projections_of(scene._replace(y_CNE=y_CNE)), None, MSE, "tanh")
    assert (found >= 0.0).all()
    assert found.max() < 1e-5
