"""What the judge sees in hidden space is what outputs and targets themselves give, in any units.

B = streams in batch, S = support pairs (padded), Q = query pairs (padded), N = pairs of a stream
(S + Q), R = rows, D = source dim, E = target dim, H = hidden units, K = inner steps
"""

from itertools import product
from typing import NamedTuple

import pytest
import torch
from torch import Tensor

from model.inner.batched import Objective
from model.inner.hidden.descent import descend
from model.inner.hidden.judging import Seen, adapted_seen, ridge_seen, theta_seen, too_far_out
from model.inner.hidden.losses import RawTargets, losses_out_of_units
from model.inner.hidden.projected import (
    Projected,
    UsualProducts,
    in_units,
    less_bias,
    means_of,
    project,
    terms,
    units_of,
)
from model.inner.hidden.result import factors, mean_onto, pair_outputs, weights_of
from model.inner.learner import Support
from model.inner.units import UsualSources, frame_of, in_frame, mean_target, out_of_frame
from model.losses import MSE, Loss, value
from model.mappings.mlp import Mlp, apply_batched, expand
from model.serving import rival
from tests.model.hidden_lab import Scene, scene_of

JUDGES = (MSE, Loss("cosine"))
LENGTHS = [8, 1, 5, 3, 2]
MOVES = [(1.0, 0.0), (1e-6, 0.0), (1e6, 0.0), (1.0, 0.8), (1.0, 8.0), (1e-3, 0.01), (250.0, -1e3)]
"""Factor and shift of all sources and targets."""


def moved(factor: float, shift: float, loss: Loss = MSE) -> Scene:
    scene = scene_of(loss, lengths=LENGTHS)
    padded_BN1 = ~scene.real_BN.unsqueeze(2)
    return scene._replace(
        x_BND=(scene.x_BND * factor - shift).masked_fill(padded_BN1, 0.0),
        y_BNE=(scene.y_BNE * factor + shift).masked_fill(padded_BN1, 0.0),
    )


def dims(scene: Scene) -> tuple[int, int]:
    return scene.x_BND.shape[2], scene.y_BNE.shape[2]


def raw_of(scene: Scene) -> Projected:
    """The projections of y itself."""
    made = terms(scene.theta)
    unbiased = project(made._replace(b2=torch.zeros_like(made.b2)), *scene[2:5], scene.support)
    return unbiased._replace(t_BN=scene.y_BNE @ made.b2)


def usual_of(scene: Scene) -> UsualSources:
    """Sources that θ says it was trained on."""
    mean_D = torch.linspace(-0.7, 0.9, scene.x_BND.shape[2], dtype=scene.x_BND.dtype)
    return UsualSources(mean_D, spread=1.6)


def products(scene: Scene, usual: UsualSources | None) -> UsualProducts | None:
    if usual is None:
        return None
    mean_D = usual.mean_D
    own = mean_D.square().sum()
    return UsualProducts(scene.x_BND @ mean_D, scene.theta.w1 @ mean_D, own, usual.spread)


class Adapted(NamedTuple):
    """θ′ in both forms."""

    seen: Seen
    loss_BN: Tensor
    mlp: Mlp


def adapted(
    scene: Scene, loss: Loss, judge: Loss, usual: UsualSources | None, *, standardise: bool
) -> Adapted:
    made, raw, objective = terms(scene.theta), raw_of(scene), Objective(loss, "gelu", "none")
    means = means_of(raw, products(scene, usual))
    units, mean = units_of(raw, means, dims(scene), standardise=standardise), means.target
    projected = in_units(made, raw, means, units)
    descent = descend(made, projected, scene.rates_K4, objective)
    outputs = pair_outputs(made, projected, descent)
    om_BN = outputs.onto(mean_onto(projected, mean, units.target, outputs.c.a.shape[2]))
    targets = RawTargets(units.target, mean, om_BN, raw.yy_BN)
    frame = frame_of(scene.pairs, standardise=standardise, usual=usual)
    framed = in_frame(scene.pairs, frame).cleaned()
    in_full = weights_of(made, factors(made, projected, descent), framed.x_BSD, framed.y_BSE)
    return Adapted(
        adapted_seen(made, raw, projected, outputs.own, targets),
        losses_out_of_units(made, projected, outputs.own, judge, targets),
        out_of_frame(in_full, frame),
    )


def seen_in_full(scene: Scene, o_BNE: Tensor) -> Seen:
    mean_B1E = mean_target(scene.pairs)
    o_BQE, y_BQE = (t[:, scene.support :] - mean_B1E for t in (o_BNE, scene.y_BNE))
    return Seen(o_BQE.square().sum(2), (o_BQE * y_BQE).sum(2), y_BQE.square().sum(2))


def per_pair(judge: Loss, o_BNE: Tensor, scene: Scene) -> Tensor:
    count, pairs, dim = o_BNE.shape
    o_R1E, y_R1E = o_BNE.reshape(-1, 1, dim), scene.y_BNE.reshape(-1, 1, dim)
    return value(judge, o_R1E, y_R1E, scene.real_BN.reshape(-1, 1)).view(count, pairs)


def same(found: Seen, expected: Seen, scene: Scene) -> None:
    real_BQ = scene.real_BN[:, scene.support :]
    size = max(t[real_BQ].abs().max() for t in expected)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one[real_BQ], other[real_BQ], atol=1e-9 * size.item(), rtol=1e-9)


EXPECTED = pytest.mark.parametrize(
    ("standardise", "tells_usual"), [(False, False), (True, False), (False, True)]
)
"""What θ expects of sources: none, that all are standardised, or those that it tells."""


@EXPECTED
@pytest.mark.parametrize("move", MOVES, ids=str)
def test_projections_in_units_are_those_of_pairs_in_units(
    move: tuple[float, float], standardise: bool, tells_usual: bool
) -> None:
    scene, made = moved(*move), terms(moved(*move).theta)
    raw = raw_of(scene)
    usual = usual_of(scene) if tells_usual else None
    means = means_of(raw, products(scene, usual))
    units = units_of(raw, means, dims(scene), standardise=standardise)
    frame = frame_of(scene.pairs, standardise=standardise, usual=usual)
    for side, expected_side in zip(units, frame.units, strict=True):
        for one, other in zip(side, expected_side, strict=True):
            torch.testing.assert_close(one, other, atol=1e-7, rtol=1e-7)
    assert (units.target.share_B > 0.8).any() == (move[1] != 0.0)
    framed = in_frame(Support(scene.x_BND, scene.y_BNE, scene.real_BN), frame)
    expected = project(made, *framed, scene.support)
    for one, other in zip(in_units(made, raw, means, units), expected, strict=True):
        torch.testing.assert_close(one, other, atol=1e-7, rtol=1e-7)
    whole = project(made, *scene[2:5], scene.support)
    less = less_bias(made, raw)
    for name in ("t_BN", "yy_BN"):
        torch.testing.assert_close(getattr(less, name), getattr(whole, name))
    torch.testing.assert_close(less.r_BNH[scene.real_BN], whole.r_BNH[scene.real_BN])


@EXPECTED
@pytest.mark.parametrize(("loss", "judge"), list(product((MSE, Loss("infonce")), JUDGES)), ids=str)
@pytest.mark.parametrize("move", MOVES, ids=str)
def test_the_adapted(
    move: tuple[float, float], loss: Loss, judge: Loss, standardise: bool, tells_usual: bool
) -> None:
    scene = moved(*move, loss)
    usual = usual_of(scene) if tells_usual else None
    found = adapted(scene, loss, judge, usual, standardise=standardise)
    o_BNE = apply_batched(found.mlp, scene.x_BND, "gelu")
    same(found.seen, seen_in_full(scene, o_BNE), scene)
    expected_BN = per_pair(judge, o_BNE, scene)
    atol = 1e-9 * max(1.0, expected_BN.max().item())
    torch.testing.assert_close(found.loss_BN, expected_BN, atol=atol, rtol=1e-7)


@pytest.mark.parametrize("move", MOVES, ids=str)
def test_theta(move: tuple[float, float]) -> None:
    scene, raw = moved(*move), raw_of(moved(*move))
    found = theta_seen(terms(scene.theta), raw, means_of(raw).target, "gelu")
    o_BNE = apply_batched(expand(scene.theta, len(LENGTHS)), scene.x_BND, "gelu")
    same(found, seen_in_full(scene, o_BNE), scene)


@pytest.mark.parametrize("judge", JUDGES, ids=str)
@pytest.mark.parametrize("move", MOVES, ids=str)
def test_ridge_regression(move: tuple[float, float], judge: Loss) -> None:
    scene, raw = moved(*move), raw_of(moved(*move))
    found = ridge_seen(raw, means_of(raw).target, scene.y_BNE.shape[2], judge)
    o_BQE = rival.predict(rival.fit(scene.pairs), scene.x_BND[:, scene.support :])
    o_BNE = torch.cat([scene.y_BNE[:, : scene.support], o_BQE], 1)
    same(found.seen, seen_in_full(scene, o_BNE), scene)
    expected_BQ = per_pair(judge, o_BNE, scene)[:, scene.support :]
    atol = 1e-9 * max(1.0, expected_BQ.max().item())
    torch.testing.assert_close(found.loss_BQ, expected_BQ, atol=atol, rtol=1e-7)


def test_means_far_out_are_told() -> None:
    near, far = moved(1.0, 8.0), moved(1.0, 1e4)
    assert not too_far_out(raw_of(near), means_of(raw_of(near))).any()
    found_B = too_far_out(raw_of(far), means_of(raw_of(far)))
    assert found_B.tolist() == [length > 1 for length in LENGTHS]
    sources = near._replace(x_BND=(near.x_BND + 1e4) * near.real_BN.unsqueeze(2))
    assert too_far_out(raw_of(sources), means_of(raw_of(sources)))[0]
