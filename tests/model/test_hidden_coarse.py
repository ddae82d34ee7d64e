"""Where products cancel: what is off by how much in single precision, and which streams are told.

B = streams in batch, S = support pairs, N = pairs of a stream (S + queries), D = source dim,
H = hidden units, E = target dim, K = inner steps

Targets are θ's own outputs and a little noise: the smaller, the more of the losses cancels.
"""

from functools import cache
from typing import NamedTuple

import pytest
import torch
from torch import Tensor

from model.inner.batched import Objective
from model.inner.hidden.losses import COARSE, ROUNDINGS, losses_of_theta, unreliable
from model.inner.hidden.projected import project, terms
from model.inner.hidden.result import pair_losses
from model.losses import MSE, Loss
from model.mappings.mlp import Mlp, apply, apply_batched, expand
from tests.model.hidden_lab import Scene, apart, descent_of, in_full, per_pair, result_of

S, Q, STREAMS = 16, 4, 12
DIMS = [(32, 32, 32), (512, 128, 512), (24, 64, 2048)]
NOISES = [1.0, 0.1, 0.01, 1e-3, 1e-4, 1e-5]
ROUNDING = 2.0**-24


class Found(NamedTuple):
    """Of one precision and form."""

    mlp: Mlp
    losses: list[Tensor]
    """Means over support and over queries, of θ and of θ′ (B)."""
    coarse_B: Tensor


def nearly_solved(noise: float, dims: tuple[int, int, int], seed: int = 0) -> Scene:
    g = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=g)

    source, hidden, target = dims
    theta = Mlp(
        normal(hidden, source) / source**0.5,
        0.1 * normal(hidden),
        normal(target, hidden) / hidden**0.5,
        0.1 * normal(target),
    )
    x_BND = normal(STREAMS, S + Q, source)
    o_BNE = apply(theta, x_BND.view(-1, source), "tanh").view(STREAMS, S + Q, target)
    y_BNE = o_BNE + noise * o_BNE.std() * normal(*o_BNE.shape)
    rates_4 = [0.4 * hidden / source] * 2 + [0.4 * target / hidden] * 2
    rates_K4 = torch.tensor(rates_4).repeat(5, 1)
    real_BN = torch.ones(STREAMS, S + Q, dtype=torch.bool)
    return Scene(theta, rates_K4, x_BND, y_BNE, real_BN, S)


def means(losses_BN: Tensor) -> list[Tensor]:
    return [part.mean(1).double() for part in torch.split(losses_BN, [S, Q], 1)]


def by_vectors(scene: Scene) -> Found:
    objective = Objective(MSE, "tanh", "none")
    mlp, losses = in_full("full", scene, objective).mlp, []
    for each in (expand(scene.theta, STREAMS), mlp):
        o_BNE = apply_batched(each, scene.x_BND, "tanh")
        losses += means(per_pair(MSE, o_BNE, scene))
    return Found(mlp, losses, torch.zeros(STREAMS, dtype=torch.bool))


def by_products(scene: Scene) -> Found:
    made, projected, found = descent_of("full", scene, Objective(MSE, "tanh", "none"))
    both = [
        losses_of_theta(made, projected, MSE, "tanh"),
        pair_losses(made, projected, found, MSE),
    ]
    coarse_B = unreliable(made, projected, MSE, *both)
    return Found(
        result_of(scene, made, projected, found), [*means(both[0]), *means(both[1])], coarse_B
    )


@cache
def measured(noise: float, dims: tuple[int, int, int]) -> tuple[Scene, Found, Found, Found]:
    """The scene; exact (float64); by vectors and by products in float32."""
    scene = nearly_solved(noise, dims)
    return scene, by_vectors(scene.to(torch.float64)), by_vectors(scene), by_products(scene)


def errors(found: Found, exact: Found) -> Tensor:
    """Of each mean loss, relative (4, C)."""
    pairs = zip(found.losses, exact.losses, strict=True)
    return torch.stack([(mine - theirs).abs() / theirs for mine, theirs in pairs])


@pytest.mark.parametrize("dims", DIMS)
@pytest.mark.parametrize("noise", NOISES)
def test_losses_are_off_by_no_more_than_the_rule_says(
    noise: float, dims: tuple[int, int, int]
) -> None:
    scene, exact, _, found = measured(noise, dims)
    yy_BN = (scene.y_BNE - scene.theta.b2).double().square().mean(2)
    bounds = [
        ROUNDINGS * ROUNDING * m + 1e-6 * e
        for m, e in zip(means(yy_BN) * 2, exact.losses, strict=True)
    ]
    for mine, theirs, bound in zip(found.losses, exact.losses, bounds, strict=True):
        assert ((mine - theirs).abs() < bound).all()


@pytest.mark.parametrize("dims", DIMS)
@pytest.mark.parametrize("noise", NOISES)
def test_what_is_not_told_is_good_and_what_is_told_is_better_done_again(
    noise: float, dims: tuple[int, int, int]
) -> None:
    _, exact, vectors, found = measured(noise, dims)
    assert (errors(found, exact)[:, ~found.coarse_B] < COARSE).all()
    if found.coarse_B.any():
        assert errors(found, exact).max() > 10 * errors(vectors, exact).max()


@pytest.mark.parametrize("dims", DIMS)
def test_usual_streams_are_not_told_and_solved_ones_are(dims: tuple[int, int, int]) -> None:
    assert not measured(0.1, dims)[3].coarse_B.any()
    assert measured(1e-3, dims)[3].coarse_B.all()
    assert errors(measured(1e-4, dims)[3], measured(1e-4, dims)[1]).max() > 0.5  # nothing is left


@pytest.mark.parametrize("dims", DIMS)
@pytest.mark.parametrize("noise", NOISES)
def test_the_descent_itself_errs_no_more_than_the_one_in_full(
    noise: float, dims: tuple[int, int, int]
) -> None:
    scene, exact, vectors, found = measured(noise, dims)
    stable = max(apart(vectors.mlp, exact.mlp, scene.theta))
    assert max(apart(found.mlp, exact.mlp, scene.theta)) < max(5e-6, 2 * stable)


def test_a_stream_is_told_alone() -> None:
    mixed = nearly_solved(0.5, DIMS[0])
    solved = nearly_solved(1e-4, DIMS[0])
    mixed.x_BND[3], mixed.y_BNE[3] = solved.x_BND[3], solved.y_BNE[3]
    mixed.real_BN[5, S:] = False  # without queries
    mixed.real_BN[6, :S] = False  # without support
    mixed.real_BN[7] = False
    assert by_products(mixed).coarse_B.nonzero().flatten().tolist() == [3]


def test_a_cosine_is_told_where_the_bias_cancels() -> None:
    judge, scene = Loss("cosine"), nearly_solved(0.1, DIMS[0])
    far = scene.theta._replace(b2=scene.theta.b2 + 1e4)
    coarse = []
    for theta in (scene.theta, far):
        made = terms(theta)
        projected = project(made, *scene[2:5], support=S)
        losses_BN = losses_of_theta(made, projected, judge, "tanh")
        coarse.append(unreliable(made, projected, judge, losses_BN))
    assert not coarse[0].any()
    assert coarse[1].all()
