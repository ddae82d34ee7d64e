"""The emoji data and the synthetic tenants, against DESIGN's numbers."""

import zlib

import numpy as np
import pytest
import torch

from model.emoji import drawings as emoji
from model.emoji.tenants import Tenant, low_rank_rotation
from model.encoders.pixels import decode_picture


def test_every_concept_has_a_place_in_every_sheet_and_embedding() -> None:
    assert len(emoji.concepts()) == 1914
    assert emoji.universal().shape == (1914, 64)
    for vendor in emoji.VENDORS:
        assert emoji.sheet(vendor).shape == (1914, 32, 32, 3)


@pytest.mark.parametrize("vendor", emoji.VENDORS)
def test_cells_are_empty_where_a_vendor_does_not_draw(vendor: str) -> None:
    ink_Y = 255.0 - emoji.sheet(vendor).mean(axis=(1, 2, 3))
    for concept, ink in zip(emoji.concepts(), ink_Y.tolist(), strict=True):
        # lossy WebP leaves a trace of the neighbouring cells; a white heart has little ink
        assert ink < 2.0 if vendor in concept.missing else ink > 1.0, concept.label


def test_splits_follow_the_checksum_rule() -> None:
    sizes = dict.fromkeys(("train", "validation", "rest"), 0)
    for concept in emoji.concepts():
        sizes[concept.split] += 1
    assert sizes == {"train": 796, "validation": 263, "rest": 855}
    for concept in emoji.concepts():
        if concept.split == "train":
            assert concept.group != "flags"
            assert "200d" not in concept.codepoints
            assert zlib.crc32(concept.codepoints.encode()) % 100 < 56


def test_a_png_holds_the_drawing() -> None:
    content = emoji.picture_png(100, "noto")
    assert np.array_equal(decode_picture(content, emoji.SIDE), emoji.sheet("noto")[100])


def test_a_low_rank_rotation_is_the_exponential_of_its_generators() -> None:
    raw = np.random.RandomState(7).randn(3, 32, 32)
    generators = raw - raw.transpose(0, 2, 1)
    a = np.array([0.3, -0.9, 0.5])
    exponent = sum(
        4.0 * a_q * g / np.linalg.svd(g, compute_uv=False)[0]
        for a_q, g in zip(a, generators, strict=True)
    )
    expected = torch.matrix_exp(torch.from_numpy(np.asarray(exponent))).numpy()
    np.testing.assert_allclose(low_rank_rotation(a), expected, atol=1e-6)


@pytest.mark.parametrize(("family", "dim"), [("low-rank", 32), ("rotation", 16)])
def test_a_tenants_space_is_a_rotation_of_the_universal_one(family: str, dim: int) -> None:
    tenant = Tenant(5, "rotation" if family == "rotation" else "low-rank")
    rotation = tenant.matrix_EE().astype(np.float64)
    np.testing.assert_allclose(rotation @ rotation.T, np.eye(dim), atol=1e-6)
    assert np.linalg.det(rotation) == pytest.approx(1.0, abs=1e-5)
    targets = tenant.targets()
    assert targets.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(targets, axis=1), np.sqrt(dim), rtol=1e-5)
    np.testing.assert_array_equal(targets, Tenant(5, tenant.family).targets())
    assert not np.allclose(targets, Tenant(6, tenant.family).targets())


def test_shared_arrays_cannot_be_written() -> None:
    for array in (emoji.universal(), emoji.concept_vectors(32), emoji.sheet("noto")):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 0
