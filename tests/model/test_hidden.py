"""Descent in hidden space against the readable form and the one in full.

B = streams in batch, S = support pairs (padded), D = source dim, H = hidden units, E = target dim,
K = inner steps, G = H + 1, J = rows of all inner steps, N = pairs of a stream, Q = query pairs,
V = spanning rows
"""

from itertools import product

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from model.inner import reference
from model.inner.batched import Objective
from model.inner.hidden.activation import apply_sigma
from model.inner.hidden.descent import descend, descend_plainly
from model.inner.hidden.memory import Workspace
from model.inner.hidden.one_stream import descend_one_stream
from model.inner.hidden.projected import Projected, chunk_of, project, terms
from model.inner.hidden.result import factors, hidden_features, outputs, weights_of
from model.losses import MSE, Loss
from model.mappings.mlp import AnyActivation, Mlp, apply_batched
from tests.model.hidden_lab import (
    ACTIVATIONS,
    GARBAGE,
    KINDS,
    LOSSES,
    Scene,
    apart,
    descent_of,
    in_full,
    result_of,
    row,
    scene_of,
)

DOUBLE, SINGLE = torch.float64, torch.float32


def found_by(kind: str, scene: Scene, objective: Objective) -> Mlp:
    return result_of(scene, *descent_of(kind, scene, objective))


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("loss", LOSSES, ids=str)
def test_every_stream_is_the_readable_forms(loss: Loss, activation: AnyActivation) -> None:
    scene = scene_of(loss)
    found = found_by("full", scene, Objective(loss, activation, "none"))
    for c, real_S in enumerate(scene.pairs.real_BS):
        pairs = scene.x_BND[c, : scene.support][real_S], scene.y_BNE[c, : scene.support][real_S]
        if not len(pairs[0]):
            expected = scene.theta
        else:
            expected = reference.adapt_one_stream(
                scene.theta, scene.rates_K4, *pairs, activation, loss=loss
            )
        mine, theirs = (
            Mlp(*(t.unsqueeze(0) for t in mlp)) for mlp in (Mlp(*(t[c] for t in found)), expected)
        )
        assert max(apart(mine, theirs, scene.theta)) < 1e-12


@pytest.mark.parametrize(
    ("kind", "loss", "activation"), list(product(KINDS, LOSSES, ACTIVATIONS)), ids=str
)
def test_every_kind_is_the_form_in_full(kind: str, loss: Loss, activation: AnyActivation) -> None:
    scene, objective = scene_of(loss, seed=1), Objective(loss, activation, "none")
    expected = in_full(kind, scene, objective)
    assert max(apart(found_by(kind, scene, objective), expected.mlp, scene.theta)) < 1e-12


@pytest.mark.parametrize(
    ("kind", "loss", "activation"), list(product(KINDS, LOSSES, ACTIVATIONS)), ids=str
)
def test_in_single_precision_it_is_as_good_as_the_form_in_full(
    kind: str, loss: Loss, activation: AnyActivation
) -> None:
    scene, objective = (
        scene_of(loss, dims=(24, 32, 20), seed=2),
        Objective(loss, activation, "none"),
    )
    expected = in_full(kind, scene, objective).mlp
    single = scene.to(SINGLE)
    stable = max(apart(in_full(kind, single, objective).mlp, expected, scene.theta))
    error = max(apart(found_by(kind, single, objective), expected, scene.theta))
    assert error < max(5e-6, 2 * stable)


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_any_shape_rates_and_garbage(data: st.DataObject) -> None:
    draw = data.draw
    loss, activation = draw(st.sampled_from(LOSSES)), draw(st.sampled_from(ACTIVATIONS))
    dims = draw(st.tuples(st.integers(1, 9), st.integers(1, 20), st.integers(2, 24)))
    scene = scene_of(
        loss,
        lengths=draw(st.lists(st.integers(0, 12), min_size=1, max_size=4)),
        dims=dims,
        steps=draw(st.integers(1, 8)),
        seed=draw(st.integers(0, 1000)),
        garbage=draw(st.sampled_from(GARBAGE)),
    )
    scale = draw(st.lists(st.sampled_from([0.0, 0.3, 1.0]), min_size=4, max_size=4))
    scene = scene._replace(rates_K4=scene.rates_K4 * torch.tensor(scale, dtype=DOUBLE))
    objective = Objective(loss, activation, "none")
    expected = in_full("full", scene, objective)
    found = found_by("full", scene, objective)
    assert max(apart(found, expected.mlp, scene.theta)) < 1e-10


@pytest.mark.parametrize("dtype", [DOUBLE, SINGLE])
@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("loss", [MSE, Loss("infonce")], ids=str)
def test_in_memory_that_is_used_again_steps_are_the_plain_ones_to_the_bit(
    loss: Loss, activation: AnyActivation, dtype: torch.dtype
) -> None:
    space = Workspace()
    for seed, lengths in enumerate(([8, 1, 5, 0, 3], [4], [8, 8, 2])):
        scene = scene_of(loss, dtype, lengths=lengths, dims=(24, 32, 20), seed=seed)
        objective = Objective(loss, activation, "none")
        made, projected, _ = descent_of("full", scene, objective)
        found = descend(made, projected, scene.rates_K4, objective, space)
        chunk = chunk_of(made, projected, objective)
        weights_K4BS = scene.rates_K4.unsqueeze(2).unsqueeze(3) * chunk.weight_BS
        a_BSH, beta_B1H, head = descend_plainly(chunk, weights_K4BS)
        assert torch.equal(found.a_BSH, a_BSH)
        assert torch.equal(found.beta_BH, beta_B1H.squeeze(1))
        for mine, theirs in zip(found.head[:3], head[:3], strict=True):
            assert torch.equal(mine, theirs)


def test_a_workspace_of_another_precision_grows_anew() -> None:
    space = Workspace()
    for dtype in (SINGLE, DOUBLE):
        scene = scene_of(MSE, dtype)
        made, projected, expected = descent_of("full", scene, Objective(MSE, "tanh", "none"))
        found = descend(made, projected, scene.rates_K4, expected.objective, space)
        assert found.a_BSH.dtype == dtype
        assert torch.equal(found.a_BSH, expected.a_BSH)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("loss", [MSE, Loss("hinge", margin=0.9)], ids=str)
@pytest.mark.parametrize("poison", [float("nan"), float("inf"), 1e200])
def test_a_streams_poison_stays_its_own(poison: float, loss: Loss, kind: str) -> None:
    scene, objective = scene_of(loss), Objective(loss, "tanh", "none")
    made, projected, expected = descent_of(kind, scene, objective)
    assert expected.healthy_B.all()
    theirs = result_of(scene, made, projected, expected)
    scene.y_BNE[2, 0, 0] = poison
    made, projected, found = descent_of(kind, scene, objective)
    assert found.healthy_B.tolist() == [True, True, False, True, True]
    mine = result_of(scene, made, projected, found)
    for a, b in zip(mine, theirs, strict=True):
        for c in (0, 1, 3, 4):
            assert torch.equal(a[c], b[c])


@pytest.mark.parametrize("name", ["p_BNH", "r_BNH", "g_BSN", "gamma_BSN"])
def test_projections_that_are_not_finite_show_in_their_stream_alone(name: str) -> None:
    scene = scene_of(MSE)
    made, projected, _ = descent_of("full", scene, Objective(MSE, "relu", "none"))
    getattr(projected, name)[2, 1, 0] = float("nan")
    found = descend(made, projected, scene.rates_K4, Objective(MSE, "relu", "none"))
    assert found.healthy_B.tolist() == [True, True, False, True, True]


def test_rates_that_explode_are_a_result() -> None:
    scene, objective = scene_of(MSE, SINGLE), Objective(MSE, "none", "none")
    scene = scene._replace(rates_K4=scene.rates_K4 * 1e12)
    _, _, found = descent_of("full", scene, objective)
    assert found.healthy_B.tolist() == [False, False, False, True, False]  # no pairs, no step


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("loss", [MSE, Loss("infonce")], ids=str)
def test_factors_of_padded_pairs_are_0_and_no_pairs_leave_theta(kind: str, loss: Loss) -> None:
    scene = scene_of(loss)
    made, projected, found = descent_of(kind, scene, Objective(loss, "gelu", "none"))
    thin, padded_BS = factors(made, projected, found), ~scene.pairs.real_BS
    assert not thin.a_BSH[padded_BS].any()
    assert not thin.v_BSG[padded_BS].any()
    assert not any(t[3].any() for t in thin)
    if kind != "full":
        assert not thin.a_BSH.any()
        assert not thin.beta_BH.any()


def test_one_stream_of_a_chunk_is_that_stream() -> None:
    scene, objective = scene_of(MSE), Objective(MSE, "gelu", "none")
    made, projected, found = descent_of("full", scene, objective)
    x_BSD, y_BSE, _ = scene.pairs.cleaned()
    together = weights_of(made, factors(made, projected, found), x_BSD, y_BSE)
    thin = factors(made, row(projected, 2), row(found, 2))
    alone = weights_of(made, thin, x_BSD[2:3], y_BSE[2:3])
    for a, b in zip(alone, together, strict=True):
        assert torch.equal(a[0], b[2])


@pytest.mark.parametrize(("kind", "loss"), list(product(KINDS, LOSSES)), ids=str)
def test_outputs_are_those_of_the_weights(kind: str, loss: Loss) -> None:
    scene = scene_of(loss)
    made, projected, found = descent_of(kind, scene, Objective(loss, "gelu", "none"))
    p_BQH, g_BSQ = projected.p_BNH[:, scene.support :], projected.g_BSN[:, :, scene.support :]
    h_BQH = hidden_features(p_BQH, g_BSQ, found)
    o_BQE = outputs(made, found, h_BQH, scene.pairs.cleaned().y_BSE)
    mlp, real_BQ = result_of(scene, made, projected, found), scene.real_BN[:, scene.support :]
    expected = apply_batched(mlp, scene.x_BND[:, scene.support :], "gelu")
    torch.testing.assert_close(o_BQE[real_BQ], expected[real_BQ], rtol=1e-12, atol=1e-12)


def test_projections_of_padded_pairs_are_0() -> None:
    scene = scene_of(MSE)
    _, projected, _ = descent_of("full", scene, Objective(MSE, "gelu", "none"))
    padded = ~projected.real_BN
    for tensor in (projected.p_BNH, projected.r_BNH, projected.t_BN, projected.yy_BN):
        assert not tensor[padded].any()
    for gram in (projected.g_BSN, projected.gamma_BSN):
        assert not gram.transpose(1, 2)[padded].any()
        assert not gram[padded[:, : scene.support]].any()


def test_the_fast_tanh_is_off_by_no_more_than_it_says() -> None:
    z_N = torch.cat([torch.linspace(-12, 12, 100_001), torch.linspace(-1e-3, 1e-3, 1001)])
    exact_N = torch.tanh(z_N.double())
    for out in (None, torch.empty_like(z_N)):
        found_N = apply_sigma("tanh", z_N, out)
        assert (found_N.double() - exact_N).abs().max() < 2e-7
        assert apply_sigma("tanh", torch.zeros(1)).item() == 0.0  # idle units stay idle
    infinite = torch.tensor([float("inf"), -float("inf"), 3e38])
    assert apply_sigma("tanh", infinite).tolist() == [1.0, -1.0, 1.0]


def test_an_output_activation_and_no_steps_are_refused() -> None:
    scene = scene_of(MSE)
    with pytest.raises(ValueError, match="output_activation tanh"):
        descent_of("full", scene, Objective(MSE, "gelu", "tanh"))
    with pytest.raises(ValueError, match="no steps"):
        descent_of(
            "full", scene._replace(rates_K4=scene.rates_K4[:0]), Objective(MSE, "gelu", "none")
        )


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("activation", ["tanh", "gelu"])
@pytest.mark.parametrize("loss", [MSE, Loss("infonce")], ids=str)
def test_company_and_place_change_no_bit(
    loss: Loss, activation: AnyActivation, threads: int
) -> None:
    scene = scene_of(
        loss, SINGLE, lengths=[c % 17 for c in range(37)], dims=(64, 128, 48), garbage=0.0
    )
    x_BND, y_BNE, real_BN = (t[:, : 16 + 3] for t in scene[2:5])
    scene = Scene(scene.theta, scene.rates_K4, x_BND, y_BNE, real_BN, 16)
    made, objective = terms(scene.theta), Objective(loss, activation, "none")
    projected = project(made, *scene[2:5], support=16)
    space, before = Workspace(), torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        together = descend(made, projected, scene.rates_K4, objective)
        for start, stop in ((0, 1), (5, 6), (36, 37), (3, 11), (1, 33), (5, 37)):
            part = Projected(*(t[start:stop] for t in projected))
            found = descend(made, part, scene.rates_K4, objective, space)
            assert torch.equal(found.a_BSH, together.a_BSH[start:stop])
            assert torch.equal(found.head.c_BJV, together.head.c_BJV[start:stop])
            assert torch.equal(found.head.sums_B1V, together.head.sums_B1V[start:stop])
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_the_twenty_lines_are_gradient_descent_and_the_batched_form(
    activation: AnyActivation,
) -> None:
    scene = scene_of(MSE, lengths=[8, 5], garbage=0.0)
    found = found_by("full", scene, Objective(MSE, activation, "none"))
    for b, real_S in enumerate(scene.pairs.real_BS):
        x_SD, y_SE = (t[b, : scene.support][real_S] for t in (scene.x_BND, scene.y_BNE))
        arguments = (scene.theta, scene.rates_K4, x_SD, y_SE, activation)
        mine = Mlp(*(t.unsqueeze(0) for t in descend_one_stream(*arguments)))
        for form in (reference.adapt_one_stream(*arguments), Mlp(*(t[b] for t in found))):
            theirs = Mlp(*(t.unsqueeze(0) for t in form))
            assert max(apart(mine, theirs, scene.theta)) < 1e-12
