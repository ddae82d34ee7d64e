"""Which encoder a θ asks for; what does not fit is refused before it serves."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from model.encoders import audio, image, text, vector, video
from model.encoders.build import encoder_from, fresh_encoder_spec
from model.encoders.encoder import Encoder
from model.encoders.picture import ROWS
from model.encoders.trained_part import fresh_net
from model.encoders.vector import ProjectionNet, ProjectionSizes
from model.theta.meta_init import Modality, fresh_meta_init
from model.theta.meta_init_file import meta_init_from_bytes, meta_init_to_bytes
from model.theta.part import PartSpec
from model.values.contents import Content
from model.values.errors import BadContent, BadMetaInit

CPU = torch.device("cpu")
SMALL: dict[Modality, tuple[str, dict[str, Any]]] = {
    "image": (image.KIND, {"side": 8, "blocks": ((4, True),)}),
    "text": (text.KIND, {"buckets": 16, "width": 4, "hidden": 4}),
    "audio": (audio.KIND, {"bands": 8, "channels": (2, 4)}),
    "video": (
        video.KIND,
        {
            "frame_dim": 8,
            "hidden": 4,
            "frame": fresh_encoder_spec(image.KIND, 8, 0, side=8, blocks=((4, True),)),
        },
    ),
    "vector": (vector.KIND, {"input_dim": 5}),
}
LEARNED = list(SMALL)


def spec(modality: Modality, dim: int = 6, seed: int = 0) -> PartSpec:
    kind, sizes = SMALL[modality]
    return fresh_encoder_spec(kind, dim, seed, **sizes)


@pytest.mark.parametrize("modality", LEARNED)
def test_every_kind_is_built_by_its_modality(modality: Modality) -> None:
    encoder: Encoder = encoder_from(spec(modality), modality, 6, CPU)
    assert (encoder.modality, encoder.dim) == (modality, 6)
    empty_RX = encoder.encode([])
    assert (empty_RX.shape, empty_RX.dtype) == ((0, 6), torch.float32)


@pytest.mark.parametrize("modality", LEARNED)
def test_a_theta_file_brings_the_encoder_back_to_the_bit(modality: Modality) -> None:
    meta_init = replace(
        fresh_meta_init(6, 6, 4),
        source_modality=modality,
        source_encoder=spec(modality),
        target_modality=modality,
        target_encoder=spec(modality, seed=1),
    )
    again = meta_init_from_bytes(meta_init_to_bytes(meta_init), "a test")
    assert again.encoder_version == meta_init.encoder_version
    assert again.source_encoder is not None
    read = encoder_from(again.source_encoder, modality, 6, CPU)
    prepared = [np.random.default_rng(0).random(5, np.float32)]
    if modality == "vector":
        expected = encoder_from(spec(modality), modality, 6, CPU).encode(prepared)
        assert torch.equal(read.encode(prepared), expected)


@pytest.mark.parametrize("modality", LEARNED)
def test_the_same_seed_gives_the_same_encoder_another_seed_another(modality: Modality) -> None:
    one, same, other = spec(modality), spec(modality), spec(modality, seed=1)
    assert one.config == same.config
    assert all(np.array_equal(one.tensors[name], same.tensors[name]) for name in one.tensors)
    assert any(not np.array_equal(one.tensors[n], other.tensors[n]) for n in one.tensors)
    assert all(tensor.dtype == np.float32 for tensor in one.tensors.values())


def test_without_an_encoder_a_vector_is_used_as_it_is() -> None:
    encoder = encoder_from(None, "vector", 3, CPU)
    prepared = [encoder.prepare(np.array(v, np.float64)) for v in ([1, 2, 3], [4, 5, 6])]
    assert encoder.encode(prepared).tolist() == [[1, 2, 3], [4, 5, 6]]
    assert encoder.encode([]).shape == (0, 3)
    assert (encoder.modality, encoder.dim) == ("vector", 3)


@pytest.mark.parametrize("modality", ["image", "text", "audio", "video"])
def test_no_other_modality_can_do_without(modality: Modality) -> None:
    with pytest.raises(BadMetaInit, match=f"no encoder for '{modality}'"):
        encoder_from(None, modality, 6, CPU)


@pytest.mark.parametrize("modality", LEARNED)
def test_an_encoder_of_another_modality_is_refused(modality: Modality) -> None:
    other = spec("text" if modality != "text" else "audio")
    with pytest.raises(BadMetaInit, match=r"kind is|no image encoder"):
        encoder_from(other, modality, 6, CPU)


@pytest.mark.parametrize("modality", LEARNED)
def test_an_encoder_of_another_dim_is_refused(modality: Modality) -> None:
    with pytest.raises(BadMetaInit, match="gives 6 features, not 7"):
        encoder_from(spec(modality), modality, 7, CPU)


@pytest.mark.parametrize("modality", LEARNED)
def test_tensors_that_do_not_fit_are_refused(modality: Modality) -> None:
    good = spec(modality)
    name = next(iter(good.tensors))
    short = {**good.tensors, name: good.tensors[name][:-1]}
    missing = {n: t for n, t in good.tensors.items() if n != name}
    for tensors in (short, missing, {**good.tensors, "more": np.zeros(1, np.float32)}):
        with pytest.raises(BadMetaInit, match="shapes"):
            encoder_from(PartSpec(good.config, tensors), modality, 6, CPU)


@pytest.mark.parametrize("modality", LEARNED)
@pytest.mark.parametrize("value", [0, -1, 2.0, "6", True, None, 10**9, [6]])
def test_a_size_that_cannot_be_is_refused_before_memory_is_taken(
    modality: Modality, value: object
) -> None:
    good = spec(modality)
    config = {**good.config, "dim": value}
    with pytest.raises(BadMetaInit):
        encoder_from(PartSpec(config, good.tensors), modality, 6, CPU)


@pytest.mark.parametrize("modality", ["text", "audio", "video", "vector"])
def test_a_config_with_other_names_is_refused(modality: Modality) -> None:
    good = spec(modality)
    less = {n: v for n, v in good.config.items() if n != "dim"}
    for config in (less, {**good.config, "depth": 2}):
        with pytest.raises(BadMetaInit, match="config has"):
            encoder_from(PartSpec(config, good.tensors), modality, 6, CPU)


@pytest.mark.parametrize(
    ("modality", "change", "says"),
    [
        ("text", {"stride": 3}, "does not divide"),
        ("text", {"grams": []}, "not a list of 1 to 16"),
        ("text", {"grams": [1] * 17}, "not a list of 1 to 16"),
        ("text", {"grams": [1, 9]}, "not in 1..8"),
        ("audio", {"channels": [2, 2, 2, 2]}, "cannot be halved"),
        ("audio", {"channels": 4}, "not a list"),
    ],
)
def test_sizes_that_do_not_fit_each_other_are_refused(
    modality: Modality, change: dict[str, Any], says: str
) -> None:
    good = spec(modality)
    with pytest.raises(BadMetaInit, match=says):
        encoder_from(PartSpec({**good.config, **change}, good.tensors), modality, 6, CPU)


def test_an_unknown_kind_cannot_be_made_afresh() -> None:
    with pytest.raises(BadMetaInit, match="no encoder is of kind 'hologram/1'"):
        fresh_encoder_spec("hologram/1", 6, 0)


@pytest.mark.parametrize("normalise", [0, 1])
def test_the_projection_is_the_linear_map(normalise: int) -> None:
    part = fresh_encoder_spec(vector.KIND, 6, 0, input_dim=5, normalise=normalise)
    encoder = encoder_from(part, "vector", 6, CPU)
    x_RI = np.random.default_rng(0).standard_normal((37, 5))
    features_RX = encoder.encode([encoder.prepare(x) for x in x_RI]).numpy()
    expected_RX = x_RI @ part.tensors["linear.weight"].T + part.tensors["linear.bias"]
    if normalise:
        expected_RX *= 6**0.5 / np.linalg.norm(expected_RX, axis=1, keepdims=True)
    np.testing.assert_allclose(features_RX, expected_RX, atol=1e-5)
    alone = [encoder.encode([encoder.prepare(x)])[0].numpy() for x in x_RI]
    np.testing.assert_array_equal(np.stack(alone), features_RX)


@pytest.mark.parametrize("spec_or_none", [None, spec("vector", dim=5)], ids=["as it is", "learned"])
@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (np.zeros(4), "wrong_dimension"),
        (np.array([0, 0, 0, 0, np.inf]), "not_finite"),
        (b"", "wrong_modality"),
    ],
)
def test_bad_vectors_are_named(
    spec_or_none: PartSpec | None, content: Content, reason: str
) -> None:
    encoder = encoder_from(spec_or_none, "vector", 5, CPU)
    with pytest.raises(BadContent) as caught:
        encoder.prepare(content)
    assert caught.value.reason == reason


def test_the_projection_is_exported_and_learns() -> None:
    net = fresh_net(lambda: ProjectionNet(ProjectionSizes(dim=3, input_dim=5, normalise=1)), 0)
    x_RI = torch.randn(16, 5, generator=torch.Generator().manual_seed(0))
    exported = torch.export.export(net, (x_RI,))
    torch.testing.assert_close(exported.module()(x_RI), net(x_RI))
    optimiser = torch.optim.SGD(net.parameters(), 0.05)
    before = net(x_RI)[:, 0].mean()
    for _ in range(20):
        optimiser.zero_grad()
        torch.autograd.backward(-net(x_RI)[:, 0].mean())
        optimiser.step()
    assert net(x_RI)[:, 0].mean() > before + 0.3


def test_a_pictures_features_do_not_depend_on_company_to_the_bit() -> None:
    encoder = encoder_from(spec("image"), "image", 6, CPU)
    rng = np.random.default_rng(0)
    pictures = [rng.integers(0, 256, (8, 8, 3), dtype=np.uint8) for _ in range(3 * ROWS["cpu"] - 1)]
    together_RX = encoder.encode(pictures)
    for picture, features_X in zip(pictures, together_RX, strict=True):
        assert torch.equal(encoder.encode([picture])[0], features_X)
    assert torch.equal(encoder.encode(pictures[::-1]).flip(0), together_RX)


def test_a_picture_that_is_not_bytes_is_refused() -> None:
    encoder = encoder_from(spec("image"), "image", 6, CPU)
    with pytest.raises(BadContent, match="must be bytes") as caught:
        encoder.prepare("text")
    assert caught.value.reason == "wrong_modality"
