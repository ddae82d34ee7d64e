"""Tenants' families, the batches drawn from them, and an outer loop that learns and repeats itself.

B = streams in batch, S = support pairs, N = pairs of a stream (pictures of the outer step),
Y = candidates (concepts), R = rows (pictures), D = source dim, E = target dim
"""

from dataclasses import replace

import numpy as np
import pytest
import torch

from model.emoji import drawings as emoji
from model.emoji import train_tenants
from model.emoji.tenant_training import (
    Features,
    TenantModel,
    TenantRecipe,
    draw,
    draw_matrices,
    outer_loss,
    train_tenant_model,
)
from model.emoji.tenants import Family, Tenant, low_rank_rotation
from model.mappings.attention import Attention
from model.mappings.numpy_mlp import apply_numpy
from model.theta.part import PartSpec

RECIPE = TenantRecipe(
    shares=(("low-rank", 0.5), ("rotation", 0.3), ("sheared", 0.2)),
    dim=16,
    steps=40,
    feature_steps=40,
    tenants=8,
    hidden_dim=32,
    width=64,
    pictures=48,
    query=12,
    candidates=24,
    max_support=24,
    rate=5e-3,
)


def features() -> Features:
    g = torch.Generator().manual_seed(0)
    u_YE = torch.tensor(emoji.concept_vectors(16)[:60])
    return Features(u_YE.unsqueeze(1) + 0.2 * torch.randn(60, 2, 16, generator=g), u_YE)


@pytest.mark.parametrize("dim", [16, 32])
def test_low_rank_matrices_are_those_of_the_data(dim: int) -> None:
    found = draw_matrices("low-rank", 2, dim, torch.Generator().manual_seed(4))
    a_B3 = torch.rand(2, 3, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    for matrix_EE, a_3 in zip(found, a_B3, strict=True):
        expected_EE = low_rank_rotation(a_3.numpy() * 2.0 - 1.0, dim)
        np.testing.assert_allclose(matrix_EE.numpy(), expected_EE, atol=1e-5)


def test_rotations_are_rotations_and_sheared_ones_are_not() -> None:
    g = torch.Generator().manual_seed(1)
    rotation = draw_matrices("rotation", 50, 16, g).double()
    torch.testing.assert_close(
        rotation @ rotation.mT, torch.eye(16).double().expand(50, 16, 16), atol=1e-5, rtol=0.0
    )
    torch.testing.assert_close(
        torch.linalg.det(rotation), torch.ones(50).double(), atol=1e-5, rtol=0.0
    )
    sheared = draw_matrices("sheared", 50, 16, g)
    norm_B = sheared.square().sum((1, 2))
    torch.testing.assert_close(norm_B, torch.full((50,), 16.0), rtol=1e-3, atol=0.0)
    assert (torch.linalg.cond(sheared) > 1.1).float().mean() > 0.9


@pytest.mark.parametrize("family", ["rotation", "permutation", "linear"])
def test_a_tenant_of_any_family_has_the_dim_asked_for(family: Family) -> None:
    matrix_EE = Tenant(3, family, 20).matrix_EE()
    assert matrix_EE.dtype == np.float32
    assert Tenant(3, family).matrix_EE().shape == (16, 16)
    product_EE = matrix_EE @ matrix_EE.T
    if family == "linear":
        assert np.trace(product_EE) == pytest.approx(20.0, rel=0.2)
        assert not np.allclose(product_EE, np.eye(20), atol=0.3)
    else:
        np.testing.assert_allclose(product_EE, np.eye(20), atol=1e-5)
    if family == "permutation":
        assert set(matrix_EE.ravel().tolist()) == {0.0, 1.0}


def test_support_and_query_share_no_concept_and_lengths_stay_in_range() -> None:
    g = torch.Generator().manual_seed(0)
    lengths = set()
    for _ in range(60):
        batch = draw(features(), replace(RECIPE, empty=0.2), g)
        assert len(set(batch.v_N.tolist())) == len(batch.v_N) == 48
        assert int(batch.support_BS.min()) >= RECIPE.query
        for picks in batch.support_BS:
            assert len(set(picks.tolist())) == len(picks)
        lengths |= set(batch.real_BS.sum(1).tolist())
        assert batch.matrix_BEE.shape == (8, 16, 16)
    assert min(lengths) == 0
    assert 20 < max(lengths) <= RECIPE.max_support
    assert 1 not in lengths


def losses_of(trained: TenantModel) -> float:
    g = torch.Generator().manual_seed(3)
    with torch.no_grad():
        batches = [draw(features(), RECIPE, g) for _ in range(8)]
        return float(np.mean([outer_loss(trained, features(), b, RECIPE).item() for b in batches]))


def test_the_outer_loop_lowers_the_outer_loss_and_repeats_itself() -> None:
    trained = train_tenant_model(features(), RECIPE, seed=1)
    again = train_tenant_model(features(), RECIPE, seed=1)
    for mine, theirs in zip(trained.parameters(), again.parameters(), strict=True):
        assert torch.equal(mine, theirs)
    untrained = train_tenant_model(features(), replace(RECIPE, steps=1), seed=1)
    assert losses_of(trained) < losses_of(untrained) - 0.05


def test_what_is_published_is_what_was_trained() -> None:
    torch.manual_seed(0)
    trained = TenantModel(16, RECIPE).requires_grad_(False)
    encoder = PartSpec({"kind": "cnn/2"}, {"weight": np.zeros((1, 1), np.float32)})
    meta_init = train_tenants.as_meta_init(
        trained.theta(),
        RECIPE.activation,
        trained.attention.spec(),
        encoder,
        train_tenants.usual_sources(features()),
        "emoji-test",
        {},
    )
    assert meta_init.version == f"emoji-test-{meta_init.version[-8:]}"
    again = Attention.from_spec(meta_init.generator, 16, 32, 16)
    for name, tensor in trained.attention.state_dict().items():
        assert torch.equal(again.state_dict()[name], tensor)
    x_RD = np.random.default_rng(0).standard_normal((5, 16)).astype(np.float32)
    theta = trained.theta()
    expected = torch.nn.functional.gelu(torch.from_numpy(x_RD) @ theta.w1.T + theta.b1)
    expected = expected @ theta.w2.T + theta.b2
    found = apply_numpy(meta_init.mapping, x_RD, "gelu")
    np.testing.assert_allclose(found, expected.numpy(), atol=1e-4)


def test_with_perfect_features_and_many_pairs_a_rotation_is_found() -> None:
    """u(x) = x by two layers: x = relu(x) − relu(−x)."""
    torch.manual_seed(0)
    recipe = replace(RECIPE, activation="relu")
    trained = TenantModel(16, recipe).requires_grad_(False)
    half = torch.cat([torch.eye(16), -torch.eye(16)])
    for parameter, value in zip(trained.theta(), (half, 0.0, half.T, 0.0), strict=True):
        parameter.copy_(torch.as_tensor(value))
    drawn_R = torch.from_numpy(emoji.drawn_by("noto", "train"))
    x_RD = torch.tensor(emoji.concept_vectors(16))[drawn_R]
    rows = train_tenants.measure(trained, recipe, x_RD, drawn_R, ("rotation",), tenants=3, seeds=1)
    assert [row.pairs for row in rows] == [0, 5, 16, 64]
    assert rows[-1].ceiling == pytest.approx(1.0, abs=0.02)
    assert rows[-1].adapted > 0.9
    assert rows[-1].adapted > rows[1].adapted > rows[0].adapted
