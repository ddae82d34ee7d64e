"""Baselines against closed forms, scipy and scikit-learn, and on inputs that say little."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.linalg import orthogonal_procrustes
from scipy.stats import ortho_group
from sklearn.linear_model import Ridge as SklearnRidge

from model.baselines import fine_tuning
from model.baselines.chance import Chance
from model.baselines.fine_tuning import FineTuning, choose_fine_tuning
from model.baselines.fit import Fit
from model.baselines.joint import JointMapping, JointRecipe, mean_loss, train_joint
from model.baselines.procrustes import fit_procrustes
from model.baselines.ridge import fit_ridge
from model.baselines.shared import FirstDims, OnSharedFeatures, train_shared
from model.mappings.mlp import Mlp, apply
from model.meta.episodes import EpisodeBatch
from model.meta.shared_features import all_pairs, rotated_loss
from model.retrieval import euclidean_scores, scores_of
from model.values.arrays import FloatArray

D, E = 6, 4
RECIPE = JointRecipe(steps=120, streams=6, hidden_dim=16, rate=1e-2)
SMALL = JointMapping(
    Mlp(*(0.4 * torch.randn(s, generator=torch.Generator().manual_seed(3)) for s in
          ((9, D), (9,), (E, 9), (E,)))),
    "gelu",
)  # fmt: skip


class Streams:
    """Targets are one nonlinear function of the inputs, rotated by each stream as it likes; some
    pairs are padding."""

    source_dim, target_dim = D, E

    def __init__(self, rotate: bool) -> None:
        self.rotate = rotate
        self.truth_DE = torch.randn(D, E, generator=torch.Generator().manual_seed(7))

    def draw(self, generator: torch.Generator, streams: int) -> EpisodeBatch:
        x = torch.randn(streams, 24, D, generator=generator)
        y = torch.tanh(x @ self.truth_DE)
        if self.rotate:
            q, r = torch.linalg.qr(torch.randn(streams, E, E, generator=generator))
            y = y @ (q * r.diagonal(dim1=1, dim2=2).sign()[:, None])  # uniform: their mean is 0
        length = torch.randint(1, 9, (streams, 1), generator=generator)
        real_support, real_query = torch.arange(8) < length, torch.arange(16) < 2 * length
        x[:, :8][~real_support] = 9.0
        x[:, 8:][~real_query] = -9.0
        return EpisodeBatch(x[:, :8], y[:, :8], real_support, x[:, 8:], y[:, 8:], real_query)


def normal(seed: int, *shape: int) -> FloatArray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


# --- ridge ---


@pytest.mark.parametrize(("s", "d"), [(12, 5), (5, 12), (1, 3)])
@pytest.mark.parametrize("penalty", [0.3, 10.0])
def test_ridge_is_scikit_learns(s: int, d: int, penalty: float) -> None:
    x, y, new = normal(0, s, d), normal(1, s, 4), normal(2, 7, d)
    theirs = SklearnRidge(alpha=penalty).fit(x.astype(np.float64), y.astype(np.float64))
    np.testing.assert_allclose(fit_ridge(x, y, penalty)(new), theirs.predict(new), atol=2e-6)


# --- Procrustes ---


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 10_000), st.integers(2, 8), st.floats(0.1, 10.0))
def test_procrustes_recovers_a_rotation_and_its_scale(seed: int, dim: int, scale: float) -> None:
    x = np.random.default_rng(seed).standard_normal((dim + 5, dim))
    rotation = ortho_group.rvs(dim, random_state=seed)
    found = fit_procrustes(x, scale * x @ rotation)  # type: ignore[arg-type]  # float64: 1e-6
    np.testing.assert_allclose(found.weight_DE, scale * rotation, atol=1e-6 * max(1.0, scale))


@pytest.mark.parametrize(("d", "e"), [(5, 5), (3, 6), (6, 3)])
def test_procrustes_is_scipys(d: int, e: int) -> None:
    """Rectangular ones too: there scipy is given zeros for the dims that are lacking."""
    x, y = normal(3, 20, d), normal(4, 20, e)
    wide = max(d, e)
    padded_x, padded_y = (np.pad(a, ((0, 0), (0, wide - a.shape[1]))) for a in (x, y))
    rotation, _ = orthogonal_procrustes(padded_x, padded_y)
    found = fit_procrustes(x, y, scale=False)
    np.testing.assert_allclose(found.weight_DE, rotation[:d, :e], atol=1e-5)


@pytest.mark.parametrize(("d", "e"), [(5, 5), (3, 6)])
def test_no_other_rotation_or_scale_fits_better(d: int, e: int) -> None:
    x, y = normal(5, 12, d), normal(6, 12, e)
    best = np.square(fit_procrustes(x, y)(x) - y).sum()
    rotations = [np.asarray(ortho_group.rvs(e, random_state=i))[:d] for i in range(200)]
    fitted = fit_procrustes(x, y).weight_DE
    candidates = [fitted * 0.98, fitted * 1.02, *rotations]
    assert best < min(np.square(x @ candidate - y).sum() for candidate in candidates)


def test_a_direction_that_no_pair_reaches_is_mapped_to_nothing() -> None:
    x, y = np.eye(2, 5, dtype=np.float32), normal(7, 2, 5)
    fitted = fit_procrustes(x, y)
    assert np.abs(fitted(x)).min() > 1e-3
    np.testing.assert_allclose(fitted(np.eye(5, dtype=np.float32)[2:]), 0.0, atol=1e-7)


def test_a_centred_procrustes_follows_the_means() -> None:
    x = normal(8, 15, 4) + 3.0
    rotation = ortho_group.rvs(4, random_state=1)
    y = (2.0 * x @ rotation - 5.0).astype(np.float32)
    np.testing.assert_allclose(fit_procrustes(x, y, centre=True)(x), y, atol=1e-4)
    assert np.abs(fit_procrustes(x, y)(x) - y).max() > 0.1


# --- chance ---


def test_chance_finds_one_in_as_many_as_there_are() -> None:
    x, y = normal(9, 5, D), normal(10, 5, E)
    candidates = normal(11, 20, E)
    o = Chance().fit(x, y)(np.zeros((20_000, D), np.float32))
    relevance = np.eye(20)[np.arange(20_000) % 20]
    found = float(scores_of(euclidean_scores(o, candidates), relevance).r_at_1)
    assert found == pytest.approx(1 / 20, abs=0.006)  # four standard errors
    assert np.sqrt(np.square(o).mean()) == pytest.approx(np.sqrt(np.square(y).mean()), rel=0.02)


def test_chance_is_the_same_for_the_same_support_alone() -> None:
    x, y, new = normal(12, 5, D), normal(13, 5, E), normal(14, 3, D)
    first = Chance(1).fit(x, y)(new)
    np.testing.assert_array_equal(first, Chance(1).fit(x, y)(new))
    assert np.abs(first - Chance(2).fit(x, y)(new)).max() > 0.1
    assert np.abs(first - Chance(1).fit(x + 1, y)(new)).max() > 0.1


# --- joint training ---


def held_out_loss(mapping: JointMapping, source: Streams) -> float:
    x, y, real = all_pairs(source.draw(torch.Generator().manual_seed(99), 40))
    return float(mean_loss(apply(mapping.mlp, x, mapping.activation), y, real))


def test_joint_training_lowers_the_loss_on_pairs_never_drawn() -> None:
    source = Streams(rotate=False)
    start = train_joint(source, JointRecipe(steps=0, hidden_dim=16), seed=0)
    trained = train_joint(source, RECIPE, seed=0)
    assert held_out_loss(trained, source) < 0.2 * held_out_loss(start, source)


def test_joint_training_is_reproducible() -> None:
    source = Streams(rotate=False)
    short = JointRecipe(steps=3, streams=2, hidden_dim=4)
    first, again, other = (train_joint(source, short, seed) for seed in (5, 5, 6))
    assert all(map(torch.equal, first.mlp, again.mlp))
    assert not torch.equal(first.mlp.w1, other.mlp.w1)


def test_a_joint_mapping_is_numpy_outside_and_learns_nothing_from_a_support() -> None:
    x, y = normal(15, 3, D), normal(16, 3, E)
    o = SMALL.fit(x, y)(x)
    assert isinstance(o, np.ndarray)
    np.testing.assert_array_equal(o, apply(SMALL.mlp, torch.tensor(x), "gelu").numpy())


# --- shared features ---


def test_contradicting_streams_share_features_but_no_mapping() -> None:
    source = Streams(rotate=True)
    x, y, real = all_pairs(source.draw(torch.Generator().manual_seed(98), 40))
    nothing = float(mean_loss(torch.zeros_like(y), y, real))
    joint, shared = train_joint(source, RECIPE, 0), train_shared(source, RECIPE, 0)
    assert held_out_loss(joint, source) > 0.9 * nothing
    assert float(rotated_loss(torch.tensor(shared(x.numpy())), y, real)) < 0.3 * nothing


def test_any_rotation_of_the_targets_is_as_good() -> None:
    y = torch.randn(3, 10, E, dtype=torch.float64)
    real = torch.arange(10) < torch.tensor([10, 7, 5])[:, None]
    rotation = torch.linalg.qr(torch.randn(3, E, E, dtype=torch.float64))[0]
    o = (y @ rotation).masked_fill(~real[..., None], 77.0)
    assert float(rotated_loss(o, y, real)) == pytest.approx(0.0, abs=1e-20)
    assert float(rotated_loss(o + real[..., None], y, real)) > 0.1


@pytest.mark.parametrize("spoilt", [math.nan, math.inf, 1e30])
def test_outputs_that_are_not_finite_have_a_loss_that_is_not(spoilt: float) -> None:
    o = torch.ones(2, 5, E)
    o[1, 2] = spoilt
    loss = rotated_loss(o, spoilt * torch.ones(2, 5, E), torch.ones(2, 5, dtype=torch.bool))
    assert not math.isfinite(float(loss))


def test_the_rotation_may_be_held_fixed_in_the_gradient() -> None:
    generator = torch.Generator().manual_seed(0)
    o, y = (torch.randn(2, 7, 3, generator=generator, dtype=torch.float64) for _ in range(2))
    real = torch.arange(7) < torch.tensor([7, 5])[:, None]
    assert torch.autograd.gradcheck(lambda o: rotated_loss(o, y, real), o.requires_grad_())


def test_a_head_on_shared_features_sees_only_those() -> None:
    x, y, new = normal(17, 9, D), normal(18, 9, E), normal(19, 5, D)
    first = OnSharedFeatures(FirstDims(2), fit_ridge).fit(x, y)(new)
    np.testing.assert_array_equal(first, fit_ridge(x[:, :2], y)(new[:, :2]))
    on_joint = OnSharedFeatures(SMALL, fit_procrustes).fit(x, y)(new)
    np.testing.assert_array_equal(on_joint, fit_procrustes(SMALL(x), y)(SMALL(new)))


def test_procrustes_on_shared_features_finds_more_than_ridge_on_raw_ones() -> None:
    """On streams that rotate: what shared features are for."""
    source = Streams(rotate=True)
    shared = train_shared(source, RECIPE, 0)
    batch = source.draw(torch.Generator().manual_seed(97), 60)
    full = [t for t in range(60) if batch.real_support_BS[t].all()]
    assert len(full) > 3
    fits: dict[str, Fit] = {
        "shared": OnSharedFeatures(shared, fit_procrustes).fit,
        "ridge": fit_ridge,
    }
    found = {name: np.mean([_r_at_1(fit, batch, t) for t in full]) for name, fit in fits.items()}
    assert found["shared"] > 1.3 * found["ridge"]


def _r_at_1(fit: Fit, batch: EpisodeBatch, t: int) -> float:
    mapping = fit(batch.x_support_BSD[t].numpy(), batch.y_support_BSE[t].numpy())
    score = euclidean_scores(mapping(batch.x_query_BQD[t].numpy()), batch.y_query_BQE[t].numpy())
    return float(scores_of(score, np.eye(len(score))).r_at_1)


# --- fine-tuning ---


def test_one_step_is_the_gradient_by_finite_differences() -> None:
    x, y = normal(20, 5, D), normal(21, 5, E)
    tuned = FineTuning(SMALL, rate=0.5, steps=1).fit(x, y)
    assert isinstance(tuned, JointMapping)
    step = (tuned.mlp.w2 - SMALL.mlp.w2) / -0.5

    def loss(w2: torch.Tensor) -> torch.Tensor:
        mlp = Mlp(*(t.double() for t in SMALL.mlp))._replace(w2=w2)
        o = apply(mlp, torch.tensor(x).double(), "gelu")
        return (o - torch.tensor(y).double()).square().mean()

    w2 = SMALL.mlp.w2.double()
    for place in ((0, 0), (3, 8), (2, 4)):
        nudge = torch.zeros_like(w2)
        nudge[place] = 1e-5
        slope = float(loss(w2 + nudge) - loss(w2 - nudge)) / 2e-5
        assert float(step[place]) == pytest.approx(slope, abs=1e-5)


def test_fine_tuning_fits_the_support_and_leaves_its_start_alone() -> None:
    x, y = normal(22, 5, D), normal(23, 5, E)
    before = [tensor.clone() for tensor in SMALL.mlp]

    def loss(mapping: Callable[[FloatArray], FloatArray]) -> float:
        return float(np.square(mapping(x) - y).mean())

    losses = [loss(FineTuning(SMALL, 0.5, steps).fit(x, y)) for steps in (0, 1, 10, 50)]
    assert losses == sorted(losses, reverse=True)
    assert losses[0] == pytest.approx(loss(SMALL))
    assert losses[-1] < 0.2 * losses[0]
    assert all(map(torch.equal, SMALL.mlp, before))


def test_choosing_is_trying_each_on_each_stream_alone() -> None:
    batch = Streams(rotate=False).draw(torch.Generator().manual_seed(1), 5)
    rates, steps = (0.01, 0.3, 1.0), (1, 4)
    mrr = {
        (rate, step): np.mean(
            [_mrr_alone(FineTuning(SMALL, rate, step), batch, t) for t in range(5)]
        )
        for rate in rates
        for step in steps
    }
    chosen = choose_fine_tuning(SMALL, batch, rates, steps)
    assert (chosen.rate, chosen.steps) == max(mrr, key=lambda choice: mrr[choice])
    for (rate, step), expected in mrr.items():
        mlp = dict(fine_tuning.fine_tuning_path(SMALL, batch, rate, step))[step]
        assert fine_tuning.mean_reciprocal_rank(mlp, batch, "gelu") == pytest.approx(
            float(expected), abs=1e-9
        )


def _mrr_alone(method: FineTuning, batch: EpisodeBatch, t: int) -> float:
    s, q = batch.real_support_BS[t], batch.real_query_BQ[t]
    mapping = method.fit(batch.x_support_BSD[t][s].numpy(), batch.y_support_BSE[t][s].numpy())
    y_QE = batch.y_query_BQE[t][q].numpy()
    score = euclidean_scores(mapping(batch.x_query_BQD[t][q].numpy()), y_QE)
    return float(scores_of(score, np.eye(len(score))).mrr)


def test_a_rate_that_diverges_is_not_chosen() -> None:
    batch = Streams(rotate=False).draw(torch.Generator().manual_seed(2), 3)
    assert choose_fine_tuning(SMALL, batch, (1e6, 0.1), (20,)).rate == 0.1


# --- inputs that say little ---

FITS: dict[str, Fit] = {
    "ridge": fit_ridge,
    "procrustes": fit_procrustes,
    "centred procrustes": lambda x, y: fit_procrustes(x, y, centre=True),
    "chance": Chance().fit,
    "joint": SMALL.fit,
    "fine-tuning": FineTuning(SMALL, 0.3, 5).fit,
    "ridge on shared": OnSharedFeatures(SMALL, fit_ridge).fit,
    "procrustes on shared": OnSharedFeatures(FirstDims(3), fit_procrustes).fit,
}
SUPPORTS: dict[str, tuple[NDArray[np.float32], NDArray[np.float32]]] = {
    "one pair": (normal(24, 1, D), normal(25, 1, E)),
    "constant inputs": (np.ones((5, D), np.float32), normal(26, 5, E)),
    "zero inputs": (np.zeros((5, D), np.float32), normal(27, 5, E)),
    "zero targets": (normal(28, 5, D), np.zeros((5, E), np.float32)),
    "the same pair again": (normal(29, 1, D).repeat(5, 0), normal(30, 1, E).repeat(5, 0)),
    "more pairs than dims": (normal(31, 40, D), normal(32, 40, E)),
    "fewer pairs than dims": (normal(33, 3, D), normal(34, 3, E)),
    "tiny": (1e-20 * normal(35, 5, D), 1e-20 * normal(36, 5, E)),
}


@pytest.mark.parametrize("support", SUPPORTS)
@pytest.mark.parametrize("method", FITS)
def test_outputs_are_finite_float32_of_the_targets_dims(method: str, support: str) -> None:
    o = FITS[method](*SUPPORTS[support])(normal(37, 3, D))
    assert o.shape == (3, E)
    assert o.dtype == np.float32
    assert np.isfinite(o).all()


def test_a_support_with_nan_is_a_result_and_no_error() -> None:
    x, y = normal(38, 5, D), normal(39, 5, E)
    y[2, 1] = np.nan
    assert np.isnan(fit_procrustes(x, y)(x)).all()
