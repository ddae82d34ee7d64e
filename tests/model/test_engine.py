"""The engine as the daemon meets it: contents in, features out; episodes in, mappings out."""

import math
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch

from model.baselines.ridge import fit_ridge
from model.emoji import drawings as emoji
from model.inner import reference
from model.inner.units import FAMILIAR, NEAR_USUAL, USUAL
from model.mappings.mlp import Mlp
from model.mappings.numpy_mlp import apply_numpy
from model.serving.engine import Engine
from model.serving.packing import every_pair
from model.theta.meta_init import fresh_meta_init, usual_sources_of
from model.theta.meta_init_file import load_meta_init, shipped
from model.values.arrays import FloatArray
from model.values.contents import Content
from model.values.episode import Episode
from model.values.errors import BadContent, BadMetaInit

THETA = fresh_meta_init(7, 5, hidden_dim=11, steps=3)
VECTORS = Engine(THETA, "cpu", support_capacity=6, query_capacity=2)
PICTURES = Engine(load_meta_init(shipped()), "cpu")


def episode(support: int, query: int, seed: int = 0) -> Episode:
    rng = np.random.default_rng(seed)
    shapes = [(pairs, dim) for pairs in (support, query) for dim in (7, 5)]
    return Episode(*(rng.standard_normal(shape).astype(np.float32) for shape in shapes))


def test_what_the_engine_says_of_itself() -> None:
    assert VECTORS.device == "cpu"
    assert VECTORS.theta.version == THETA.version
    assert (VECTORS.theta.source_dim, VECTORS.theta.target_dim) == (7, 5)
    assert (VECTORS.theta.source_modality, VECTORS.theta.target_modality) == ("vector", "vector")
    assert VECTORS.theta.encoder_version == "identity"
    assert (PICTURES.theta.source_modality, PICTURES.theta.target_modality) == ("image", "vector")
    assert len(PICTURES.theta.encoder_version) == 12
    for name, tensor in VECTORS.theta_mapping().items():
        assert np.array_equal(tensor, THETA.mapping[name])


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "int8", "uint32", ">f4"])
def test_vectors_of_any_real_type_become_float32(dtype: str) -> None:
    prepared = VECTORS.prepare("source", "vector", np.arange(7).astype(dtype))
    assert prepared.dtype == np.float32
    assert prepared.tolist() == list(range(7))


@pytest.mark.parametrize(
    ("side", "modality", "content", "reason"),
    [
        ("source", "image", b"", "wrong_modality"),
        ("source", "smell", b"", "wrong_modality"),
        ("source", "vector", b"1234567", "wrong_modality"),
        ("source", "vector", "text", "wrong_modality"),
        ("source", "vector", np.array(["a"] * 7), "wrong_modality"),
        ("source", "vector", np.ones(7, complex), "wrong_modality"),
        ("source", "vector", np.ones(5), "wrong_dimension"),
        ("target", "vector", np.ones(7), "wrong_dimension"),
        ("source", "vector", np.ones((7, 1)), "wrong_dimension"),
        ("source", "vector", np.ones(0), "wrong_dimension"),
        ("source", "vector", np.full(7, np.nan), "not_finite"),
        ("source", "vector", np.full(7, -np.inf, np.float32), "not_finite"),
        ("source", "vector", np.full(7, 1e300), "not_finite"),
    ],
)
def test_a_vector_that_cannot_be_used_says_why(
    side: str, modality: str, content: Content, reason: str
) -> None:
    assert side in ("source", "target")
    with pytest.raises(BadContent) as caught:
        VECTORS.prepare("source" if side == "source" else "target", modality, content)
    assert caught.value.reason == reason


def test_pictures_are_prepared_as_pixels_and_encoded_to_features_of_unit_size() -> None:
    contents = [emoji.picture_png(i, "twemoji") for i in range(3)]
    prepared = [PICTURES.prepare("source", "image", content) for content in contents]
    assert prepared[0].dtype == np.uint8
    assert np.array_equal(prepared[0], emoji.sheet("twemoji")[0])
    features = PICTURES.encode("source", prepared)
    assert features.shape == (3, PICTURES.theta.source_dim)
    np.testing.assert_allclose(np.square(features).mean(1), 1.0, rtol=1e-5)


@pytest.mark.parametrize("shade", [0, 255])
def test_a_blank_picture_has_finite_features(shade: int) -> None:
    assert np.isfinite(PICTURES.encode("source", [np.full((32, 32, 3), shade, np.uint8)])).all()


@pytest.mark.parametrize("content", [np.zeros((32, 32, 3), np.uint8), "text"])
def test_a_picture_must_be_bytes(content: Content) -> None:
    with pytest.raises(BadContent, match="must be bytes"):
        PICTURES.prepare("source", "image", content)


def test_nothing_to_encode_and_nothing_to_adapt() -> None:
    assert PICTURES.encode("source", []).shape == (0, PICTURES.theta.source_dim)
    assert VECTORS.encode("target", []).shape == (0, 5)
    assert VECTORS.adapt([]) == []


def frame_by_numpy(t_SX: FloatArray, *, whole_mean: bool) -> tuple[float, FloatArray]:
    """Scale and centre of one side by their definitions."""
    t = t_SX.astype(np.float64)
    n, mean, share = len(t), t.mean(0), 0.0
    if n > 1:
        effect = (mean**2).sum() / (((t - mean) ** 2).sum() / (n - 1))
        share = 1.0 if whole_mean else max(0.0, 1 - ((1 / n + USUAL) / effect) ** 2)
    centre = share * mean
    scale = float(np.sqrt(((t - centre) ** 2).mean()))
    return (1.0 if abs(scale - 1.0) <= 2**-6 else scale), centre.astype(np.float32)


def frame_beside_usual(
    x_SD: FloatArray, mean_D: FloatArray, spread: float
) -> tuple[float, FloatArray]:
    """Scale and centre of sources, by their definitions, of a θ that tells its usual ones."""

    def familiar(scale: float) -> float:
        return 1.0 if 1 / FAMILIAR <= scale <= FAMILIAR else scale

    x, usual = x_SD.astype(np.float64), mean_D.astype(np.float64)
    n, mean = len(x), x.mean(0)
    variance = ((x - mean) ** 2).sum() / max(1, n - 1)
    r = familiar(float(np.sqrt(variance / x.shape[1])) / spread)
    effect = ((mean - r * usual) ** 2).sum() / max(variance, 1e-30)
    share = max(0.0, 1 - ((1 / n + NEAR_USUAL) / effect) ** 2) if n > 1 else 0.0
    left = np.sqrt(((x - share * mean) ** 2).mean())
    # the same of n usual sources: the mean of so many scatters by a part 1/n of their variance
    around, own = spread**2 * (1 - 1 / n), spread**2 / n + (usual**2).mean()
    r = familiar(float(left / np.sqrt(around + (1 - share) ** 2 * own)))
    return r, (share * (mean - r * usual)).astype(np.float32)


def by_reference(
    x_SD: FloatArray, y_SE: FloatArray, source: tuple[float, FloatArray] | None = None
) -> Mlp:
    """θ′ of a θ that was never meta-trained, by autograd, one stream alone, in units of its
    pairs; of sources in other units, where these are given."""
    theta = Mlp(**{name: torch.tensor(tensor) for name, tensor in THETA.mapping.items()})
    (r, z_D), (s, c_E) = (
        source or frame_by_numpy(x_SD, whole_mean=True),
        frame_by_numpy(y_SE, whole_mean=False),
    )
    x, y = (torch.tensor(t.astype(np.float32)) for t in ((x_SD - z_D) / r, (y_SE - c_E) / s))
    rates = torch.tensor(THETA.learner.tensors["rates"])
    made = reference.adapt_one_stream(theta, rates, x, y, THETA.activation)
    w1 = made.w1 / r
    return Mlp(w1, made.b1 - w1 @ torch.tensor(z_D), made.w2 * s, made.b2 * s + torch.tensor(c_E))


@pytest.mark.parametrize(("scale", "shift"), [(1.0, 0.0), (100.0, 0.0), (1e-5, 0.0), (1.0, 9.0)])
def test_adaptations_are_the_references_in_order(scale: float, shift: float) -> None:
    drawn = [episode(1 + seed % 6, seed % 3, seed) for seed in range(40)]
    episodes = [
        replace(
            each,
            y_support_SE=(each.y_support_SE * scale + shift).astype(np.float32),
            y_query_QE=(each.y_query_QE * scale + shift).astype(np.float32),
        )
        for each in drawn
    ]
    for given, adapted in zip(episodes, VECTORS.adapt(episodes), strict=True):
        x_ND, y_NE = every_pair(given)
        for name, tensor in by_reference(x_ND, y_NE)._asdict().items():
            atol = 1e-5 * float(tensor.abs().max())
            np.testing.assert_allclose(adapted.tensors[name], tensor, rtol=1e-5, atol=atol)
        assert adapted.finite


@pytest.mark.parametrize(
    ("scale", "shift"), [(1.0, 0.0), (100.0, 0.0), (1e-4, 0.0), (1.0, 1.0), (1.0, 9.0), (50, -99.0)]
)
def test_sources_are_moved_to_the_usual_ones_of_a_trained_theta(scale: float, shift: float) -> None:
    rng = np.random.default_rng(4)
    mean_D = rng.standard_normal(7)
    usual = usual_sources_of((1.2 * rng.standard_normal((500, 7)) + mean_D).astype(np.float32))
    assert usual is not None
    told = usual.tensors["mean"], float(usual.tensors["spread"][0])
    trained = replace(THETA, usual_sources=usual, facts={"training": "a test's"})
    engine = Engine(trained, "cpu", support_capacity=6, query_capacity=2)
    drawn = [episode(1 + seed % 6, seed % 3, seed) for seed in range(12)]
    episodes = [
        replace(
            each,
            x_support_SD=((each.x_support_SD + mean_D) * scale + shift).astype(np.float32),
            x_query_QD=((each.x_query_QD + mean_D) * scale + shift).astype(np.float32),
        )
        for each in drawn
    ]
    for given, adapted in zip(episodes, engine.adapt(episodes), strict=True):
        x_ND, y_NE = every_pair(given)
        expected = by_reference(x_ND, y_NE, frame_beside_usual(x_ND, *told))
        for name, tensor in expected._asdict().items():
            atol = 2e-5 * float(tensor.abs().max())
            np.testing.assert_allclose(adapted.tensors[name], tensor, rtol=2e-5, atol=atol)


def test_losses_are_those_of_theta_and_of_the_mapping_adapted_to_the_support() -> None:
    given = episode(6, 2)
    adapted = VECTORS.adapt([given])[0]
    judged = by_reference(given.x_support_SD, given.y_support_SE)
    after = {name: tensor.numpy() for name, tensor in judged._asdict().items()}
    for tensors, pairs, found in (
        (THETA.mapping, "support", adapted.support_loss_before),
        (after, "support", adapted.support_loss_after),
        (THETA.mapping, "query", adapted.query_loss_before),
        (after, "query", adapted.query_loss_after),
    ):
        support = pairs == "support"
        x = given.x_support_SD if support else given.x_query_QD
        y = given.y_support_SE if support else given.y_query_QE
        expected = np.square(apply_numpy(tensors, x, THETA.activation) - y).mean()
        assert math.isclose(found, expected, rel_tol=1e-5)
    assert adapted.support_loss_after < adapted.support_loss_before


def test_no_query_gives_a_finite_mapping_without_query_losses() -> None:
    adapted = VECTORS.adapt([episode(3, 0)])[0]
    assert adapted.finite
    assert math.isnan(adapted.query_loss_before)
    assert math.isnan(adapted.query_loss_after)


def test_no_support_gives_theta() -> None:
    adapted = VECTORS.adapt([episode(0, 2)])[0]
    assert adapted.finite
    assert math.isnan(adapted.support_loss_before)
    assert adapted.query_loss_before == adapted.query_loss_after
    (without,) = VECTORS.adapt([episode(0, 0)])
    for name, tensor in THETA.mapping.items():
        assert np.array_equal(without.tensors[name], tensor)


def test_a_result_does_not_keep_its_chunk_alive() -> None:
    for tensor in VECTORS.adapt([episode(3, 1)] * 8)[0].tensors.values():
        assert tensor.base is None


def test_an_episode_over_capacity_or_of_other_dims_is_the_callers_mistake() -> None:
    with pytest.raises(ValueError, match="7 pairs, more than the capacity of 6"):
        VECTORS.adapt([episode(7, 1)])
    wrong = replace(episode(3, 1), y_query_QE=np.ones((1, 4), np.float32))
    with pytest.raises(ValueError, match="not of dims"):
        VECTORS.adapt([wrong])


@pytest.mark.parametrize("device", ["tpu", "mps", "cpu:x", "cuda:99", ""])
def test_a_device_that_is_not_there_is_refused(device: str) -> None:
    with pytest.raises(ValueError, match="device"):
        Engine(THETA, device)


@pytest.mark.parametrize(
    "change",
    [
        {"source_modality": "image"},
        {"source_modality": "text"},
        {"target_modality": "image"},
    ],
)
def test_a_theta_that_needs_an_encoder_it_lacks_is_refused(change: dict[str, str]) -> None:
    with pytest.raises(BadMetaInit, match="no encoder"):
        Engine(replace(THETA, **change), "cpu")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "module", ["model.values.episode", "model.encoders.pixels", "model.theta.meta_init"]
)
def test_the_parts_the_loop_needs_are_free_of_torch(module: str) -> None:
    program = f"import sys, {module}; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", program], check=True)


def linear_episode(noise: float) -> Episode:
    """A stream that is a linear map of its own."""
    rng = np.random.default_rng(8)
    map_ED = 2.0 * rng.standard_normal((5, 7)).astype(np.float32)
    x_ND = rng.standard_normal((46, 7)).astype(np.float32)
    y_NE = x_ND @ map_ED.T + noise * rng.standard_normal((46, 5)).astype(np.float32)
    return Episode(x_ND[:40], y_NE[:40], x_ND[40:], y_NE[40:])


def test_where_ridge_is_clearly_better_its_mapping_comes_along() -> None:
    given = linear_episode(noise=0.1)
    wide = Engine(THETA, "cpu", support_capacity=40, query_capacity=6)
    (adapted,) = wide.adapt([given])
    assert adapted.ridge is not None
    assert adapted.query_loss_ridge < adapted.query_loss_after
    judged = fit_ridge(given.x_support_SD, given.y_support_SE)(given.x_query_QD)
    loss = np.square(judged - given.y_query_QE).mean()
    assert adapted.query_loss_ridge == pytest.approx(loss, rel=1e-2)
    expected = fit_ridge(*every_pair(given))(given.x_query_QD)
    found = apply_numpy(adapted.ridge, given.x_query_QD, "none")
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-3)


def test_without_ridge_there_is_none_and_all_else_is_the_same() -> None:
    engine = Engine(THETA, "cpu", support_capacity=40, query_capacity=6, ridge=False)
    (adapted,) = engine.adapt([linear_episode(0.1)])
    assert adapted.ridge is None
    assert math.isnan(adapted.query_loss_ridge)
    assert math.isfinite(adapted.query_loss_after)
