"""The image encoder against its slow obvious form, and what its training may and may not see.

R = rows (pictures), P = pixels a side, C = channels, U = numbers of an embedding (key dims),
Y = candidates (known concepts), X = source or target dim
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray
from torch.nn import functional

from model.emoji import augment
from model.emoji import drawings as emoji
from model.emoji.train_pictures import (
    FEATURES,
    TRAIN_VENDORS,
    EncoderRecipe,
    TrainableEncoder,
    augmented,
    drawings_of,
    labels,
    train_encoder,
    training_pictures,
)
from model.encoders.image import ImageEncoder, config_of, normalised
from model.encoders.sequences import scaled
from model.theta.part import PartSpec
from model.values.errors import BadMetaInit

CPU = torch.device("cpu")
BLOCKS = ((4, True), (4, False), (6, True))
RECIPE = EncoderRecipe(steps=3, batch=8)


def small_spec(lookup: tuple[int, int] | None = (7, 5)) -> PartSpec:
    rng = np.random.default_rng(0)
    config = config_of(BLOCKS, side=8, dim=3, lookup=lookup)
    shapes: dict[str, tuple[int, ...]] = {
        "conv0": (4, 3, 3, 3),
        "conv1": (4, 4, 3, 3),
        "conv2": (6, 4, 3, 3),
    }
    shapes["linear"] = (lookup[1] if lookup else 3, 24)
    if lookup:
        shapes["direct"] = (3, lookup[1])
    tensors = {f"{n}.weight": rng.standard_normal(s) for n, s in shapes.items()}
    tensors |= {f"{n}.bias": rng.standard_normal(s[0]) for n, s in shapes.items()}
    if lookup:
        tensors |= {"keys": rng.standard_normal(lookup), "values": rng.standard_normal((7, 3))}
    return PartSpec(config, {name: t.astype(np.float32) for name, t in tensors.items()})


def slow_features(spec: PartSpec, pixels_PPC: NDArray[np.uint8]) -> NDArray[np.float64]:
    """One picture in numpy and float64."""
    t = {name: tensor.astype(np.float64) for name, tensor in spec.tensors.items()}
    h = np.moveaxis(1.0 - pixels_PPC / 255.0, 2, 0)
    for i, (channels, pool) in enumerate(BLOCKS):
        patches = sliding_window_view(np.pad(h, ((0, 0), (1, 1), (1, 1))), (3, 3), (1, 2))
        new = np.einsum("ipqjk,oijk->opq", patches, t[f"conv{i}.weight"])
        new = (new + t[f"conv{i}.bias"][:, None, None]).clip(min=0.0)
        h = new + h if len(h) == channels else new
        if pool:
            h = h.reshape(channels, h.shape[1] // 2, 2, -1, 2).max((2, 4))
    key = t["linear.weight"] @ h.ravel() + t["linear.bias"]
    if "keys" in t:
        key /= np.linalg.norm(key)
        odds = np.exp(t["keys"] @ key)
        direct = t["direct.weight"] @ key + t["direct.bias"]
        key = odds / odds.sum() @ t["values"] + direct / np.linalg.norm(direct)
    return np.asarray(key / np.linalg.norm(key) * np.sqrt(len(key)))


def pictures(n: int, side: int = 8) -> NDArray[np.uint8]:
    return np.random.default_rng(1).integers(0, 256, (n, side, side, 3), np.uint8)


@pytest.mark.parametrize("lookup", [None, (7, 5)])
def test_features_are_those_of_the_slow_form(lookup: tuple[int, int] | None) -> None:
    spec = small_spec(lookup)
    drawn = pictures(5)
    found = ImageEncoder(spec, CPU).encode(torch.from_numpy(drawn)).numpy()
    expected = np.stack([slow_features(spec, picture) for picture in drawn])
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_a_pictures_features_do_not_depend_on_the_others_to_the_bit() -> None:
    encoder = ImageEncoder(TrainableEncoder(9).eval().folded(torch.randn(9, 64), RECIPE), CPU)
    one, *others = torch.from_numpy(pictures(7, side=32))
    first = encoder.encode(torch.stack([one, *others[:3]]))
    second = encoder.encode(torch.stack([one, *others[3:]]))
    assert torch.equal(first[0], second[0])
    assert not torch.equal(first[1], second[1])
    again = encoder.encode(torch.stack([one, *others[:3]]))
    assert torch.equal(first, again)


def without_lookup(config: dict[str, Any]) -> None:
    del config["lookup"]


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda c: c.update(kind="rnn/1"), "encoder kind is 'rnn/1'"),
        (without_lookup, "malformed"),
        (lambda c: c.update(blocks=[]), "0 blocks"),
        (lambda c: c.update(blocks=[[4, 1]]), "true or false"),
        (lambda c: c.update(blocks=[[4, True]] * 4), "no pixel"),
        (lambda c: c.update(blocks=[[10**9, True]]), "block 0 is 1000000000"),
        (lambda c: c.update(side=10**6), "side is 1000000"),
        (lambda c: c.update(lookup=[7]), "malformed"),
        (lambda c: c.update(lookup=[7, -5]), "key dims is -5"),
        (lambda c: c.update(dim="3"), "dim is '3'"),
        (lambda c: c.update(dim=4), "encoder tensors have shapes"),
        (lambda c: c.update(lookup=None), "encoder tensors have shapes"),
    ],
)
def test_a_spec_that_does_not_fit_is_refused(
    damage: Callable[[dict[str, Any]], None], words: str
) -> None:
    spec = small_spec()
    config = dict(spec.config)
    damage(config)
    with pytest.raises(BadMetaInit, match=words):
        ImageEncoder(PartSpec(config, spec.tensors), CPU)


def test_the_folded_encoder_is_the_trained_one() -> None:
    torch.manual_seed(0)
    model = TrainableEncoder(12)
    for _ in range(3):
        model(torch.rand(16, 3, 32, 32))
    vectors = torch.randn(12, FEATURES)
    drawn = torch.from_numpy(emoji.sheet("noto")[:20].copy())
    with torch.no_grad():
        expected = model.eval().features(normalised(drawn), vectors, RECIPE)
    found = ImageEncoder(model.folded(vectors, RECIPE), CPU).encode(drawn)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_training_never_sees_the_held_out_vendor_or_concepts() -> None:
    assert emoji.HELD_OUT_VENDOR not in TRAIN_VENDORS
    drawn, concept_R, vectors_YU = training_pictures()
    assert len(drawn) == len(concept_R) == 599 + 796 + 786 + 782 + 782
    assert len(vectors_YU) == 796
    assert concept_R.min() == 0


def test_training_repeats_itself_to_the_bit_and_moves_every_tensor() -> None:
    first, second = train_encoder(RECIPE, 1, None), train_encoder(RECIPE, 1, None)
    other = train_encoder(replace(RECIPE, steps=1), 1, None)
    for name, tensor in first.tensors.items():
        np.testing.assert_array_equal(tensor, second.tensors[name])
        assert name == "values" or not np.array_equal(tensor, other.tensors[name])
        np.testing.assert_array_equal(tensor, tensor.astype(np.float16))
    assert sum(t.size for t in first.tensors.values()) < 1_000_000


def test_drawings_of_a_concept_are_its_own_and_all_of_them() -> None:
    table = drawings_of(torch.tensor([0, 1, 2, 0, 1, 0]))
    assert [sorted(set(row)) for row in table.tolist()] == [[0, 3, 5], [1, 4], [2]]


def test_labels_are_shares_that_lean_to_kin() -> None:
    vectors = scaled(torch.tensor([[1.0, 0.0], [0.96, 0.28], [0.0, 1.0]]))
    found = labels(vectors, kinship=0.2)
    torch.testing.assert_close(found.sum(1), torch.ones(3))
    assert found[0, 0] > 0.8
    assert found[0, 1] > 100 * found[0, 2]
    assert torch.equal(labels(vectors, kinship=0.0), torch.eye(3))


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(0)


CHANGES = [
    augmented,
    augment.redrawn,
    augment.warped,
    augment.recoloured,
    augment.thicker_or_thinner,
    augment.blurred_or_sharpened,
    augment.outlined,
    augment.with_a_hole,
]


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_a_change_keeps_shape_range_and_paper_and_is_the_generators_alone(
    change: augment.Change,
) -> None:
    assert (change(torch.zeros(8, 3, 32, 32), seeded()) == 0).all()
    ink = torch.rand(8, 3, 32, 32)
    kept = ink.clone()
    drawn = change(ink, seeded())
    assert torch.equal(ink, kept)
    assert drawn.shape == ink.shape
    assert drawn.min() >= 0
    assert drawn.max() <= 1
    assert torch.equal(drawn, change(ink, seeded()))
    assert not torch.equal(drawn, ink)


def test_lines_grow_towards_the_largest_of_a_neighbourhood_or_shrink_towards_the_least() -> None:
    ink = torch.rand(16, 3, 9, 9)
    drawn = augment.thicker_or_thinner(ink, seeded())
    edged = functional.pad(ink, (1, 1, 1, 1), mode="replicate")
    most, least = functional.max_pool2d(edged, 3, 1), -functional.max_pool2d(-edged, 3, 1)
    grown = (drawn >= ink).flatten(1).all(1)
    assert (grown ^ (drawn <= ink).flatten(1).all(1)).all()
    assert 0 < grown.sum() < 16
    goal = torch.where(grown.view(-1, 1, 1, 1), most, least)
    for before, after, end in zip(ink, drawn, goal, strict=True):
        moves = (end - before).abs() > 1e-2
        share = (after - before)[moves] / (end - before)[moves]
        assert 0.3 <= share.mean() <= 1.0
        torch.testing.assert_close(share, share.mean().expand_as(share), rtol=1e-3, atol=1e-3)


def test_mixing_stays_between_the_two_drawings_and_happens_as_often_as_asked() -> None:
    ink, other = torch.zeros(400, 3, 32, 32), torch.ones(400, 3, 32, 32)
    drawn = augment.mixed(ink, other, 0.5, seeded())
    touched = drawn.flatten(1).any(1).float().mean()
    assert 0.4 < touched < 0.6
    assert drawn.min() >= 0
    assert drawn.max() <= 1
    assert torch.equal(augment.mixed(ink, other, 0.0, seeded()), ink)


def test_a_change_made_sometimes_is_made_as_often_as_asked() -> None:
    ink = torch.zeros(1_000, 1, 1, 1)
    for probability in (0.0, 0.3, 1.0):
        share = augment.sometimes(probability, lambda x, _: x + 1.0, ink, seeded()).mean()
        assert abs(float(share) - probability) < 0.05


@pytest.mark.parametrize("lookup", [None, (7, 5)])
def test_the_forward_pass_is_exported(lookup: tuple[int, int] | None) -> None:
    encoder = ImageEncoder(small_spec(lookup), torch.device("cpu"))

    class Forward(torch.nn.Module):
        def forward(self, ink_RCPP: torch.Tensor) -> torch.Tensor:
            return encoder.forward(ink_RCPP)

    ink = torch.rand(4, 3, encoder.side, encoder.side)
    exported = torch.export.export(Forward(), (ink,))
    assert torch.equal(exported.module()(ink), encoder.encode_ink(ink))


def test_scaling_has_finite_gradients_and_norm_root_x() -> None:
    rows_RX = torch.tensor([[0.0, 0.0], [3.0, 4.0], [1e-30, 0.0]], requires_grad=True)
    result_RX = scaled(rows_RX)
    expected = torch.tensor([[0.0, 0.0], [0.6, 0.8], [0.0, 0.0]]) * 2**0.5
    torch.testing.assert_close(result_RX, expected)
    loss = (result_RX * torch.tensor([1.0, 2.0])).sum()
    (gradient_RX,) = torch.autograd.grad(loss, rows_RX)
    assert gradient_RX.isfinite().all()
    # d/dx of √2·(x₁ + 2·x₂)/|x| at (3, 4): √2·((1, 2) − u·(u·(1, 2)))/5, u = (0.6, 0.8)
    by_hand = torch.tensor([1.0 - 0.6 * 2.2, 2.0 - 0.8 * 2.2]) * 2**0.5 / 5.0
    torch.testing.assert_close(gradient_RX[1], by_hand)
