"""Pixels come out as the formats' specifications say, whichever way they were stored."""

import io
import struct
import zlib
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image, ImageCms

from model.emoji import drawings as emoji
from model.encoders import pixels
from model.encoders.pixels import decode_picture
from model.values.errors import BadContent
from tests.model.png_reference import CHANNELS, Png

SIDE = 32
KINDS = [
    *((0, bits) for bits in (1, 2, 4, 8, 16)),
    *((3, bits) for bits in (1, 2, 4, 8)),
    *product((2, 4, 6), (8, 16)),
]
"""Every colour type and depth that a PNG may have."""


def encoded(picture: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def drawing() -> Image.Image:
    return Image.fromarray(emoji.sheet("twemoji")[7])


def random_png(colour_type: int, bits: int, transparent: bool, seed: int) -> Png:
    """A picture of few colours, so that the transparent one is among them, and near misses too."""
    rng = np.random.default_rng(seed)
    channels = CHANNELS[colour_type]
    colours = rng.integers(0, 2**bits, (6, channels))
    if bits == 16:
        colours[1:3] = colours[0]
        colours[1, 0] ^= 1  # differs in the lowest bit alone
        colours[2, -1] ^= 0x100
    numbers = colours[rng.integers(0, 6, (SIDE, SIDE))]
    if colour_type == 3:
        palette = tuple(map(tuple, rng.integers(0, 256, (2**bits, 3)).tolist()))
        alphas = tuple(rng.integers(0, 256, 2**bits - 1).tolist()) if transparent else None
        return Png(numbers, bits, 3, alphas, palette)
    key = tuple(colours[0].tolist()) if transparent else None
    return Png(numbers, bits, colour_type, key)


@pytest.mark.parametrize(
    ("filtered", "interlaced"), [(0, False), (1, False), (2, False), (2, True)]
)
@pytest.mark.parametrize("transparent", [False, True])
@pytest.mark.parametrize(("colour_type", "bits"), KINDS)
def test_every_png_is_what_the_specification_says(
    colour_type: int, bits: int, transparent: bool, filtered: int, interlaced: bool
) -> None:
    if transparent and colour_type in (4, 6):
        transparent = False  # they have an alpha channel, and may have no tRNS
    png = random_png(colour_type, bits, transparent, seed=bits)
    found = decode_picture(png.encoded(filtered=filtered, interlaced=interlaced), SIDE)
    # alpha_composite rounds in its own way, by at most one
    off_by = np.abs(found.astype(int) - png.shown())
    assert off_by.max() <= (1 if colour_type in (3, 4, 6) else 0)


def test_grey_of_16_bits_keeps_its_upper_8() -> None:
    values = np.array([0x4000, 0xC000, 0, 0xFFFF, 0x00FF, 0x0100])[:, None, None]
    grey = Png(np.repeat(values, 6, axis=1), 16, 0)
    found = decode_picture(grey.encoded(), 6)
    assert found[:, 0, 0].tolist() == [64, 192, 0, 255, 0, 1]
    assert (found == found[:, :1, :1]).all()
    by_pillow = Image.fromarray(np.repeat(values[:, :, 0], 6, axis=1).astype(np.uint16))
    assert np.array_equal(decode_picture(encoded(by_pillow, "PNG"), 6), found)


def test_a_transparent_colour_is_compared_in_all_16_bits() -> None:
    row = [[[0x4000] * 3, [0x4001] * 3, [0x4000, 0x4000, 0x4100]]]
    found = decode_picture(Png(np.array(row), 16, 2, (0x4000,) * 3).encoded(), 3)
    assert found[0].tolist() == [[255] * 3, [64] * 3, [64, 64, 65]]
    grey = decode_picture(Png(np.array([[[0x4000], [0x4001]]]), 16, 0, (0x4000,)).encoded(), 2)
    assert grey[0].tolist() == [[255] * 3, [64] * 3]


def chunk_data(kind: str, n_bytes: int) -> bytes:
    noise = np.random.default_rng(0).bytes(n_bytes)
    return {
        "tEXt": b"tEXtComment\0" + noise.replace(b"\0", b" "),
        "zTXt": b"zTXtComment\0\0" + zlib.compress(bytes(n_bytes)),
        "iTXt": b"iTXtXML:com.adobe.xmp\0\1\0\0\0" + zlib.compress(bytes(n_bytes)),
        "iCCP": b"iCCPprofile\0\0" + zlib.compress(noise),
        "eXIf": b"eXIfMM\0\x2a\0\0\0\x08\0\0" + noise,
        "acTL": b"acTL" + struct.pack(">II", 2**31 - 1, 0),
        "prVt": b"prVt" + noise,
    }[kind]


@pytest.mark.parametrize(
    ("kind", "n_bytes"),
    [
        *product(["tEXt", "zTXt", "iTXt", "iCCP", "eXIf", "acTL", "prVt"], [100, 3_000_000]),
        ("zTXt", 70_000_000),
        ("iTXt", 70_000_000),
    ],
)
def test_what_changes_no_pixel_of_a_png_may_be_large(kind: str, n_bytes: int) -> None:
    png = random_png(2, 8, transparent=False, seed=1)
    plain = decode_picture(png.encoded(), SIDE)
    assert np.array_equal(decode_picture(png.encoded(chunk_data(kind, n_bytes)), SIDE), plain)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_a_colour_profile_changes_no_pixel(kind: str) -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    options = {"lossless": True} if kind == "WEBP" else {}
    plain = decode_picture(encoded(drawing(), kind, **options), SIDE)
    for data in (profile, profile + bytes(200_000)):
        content = encoded(drawing(), kind, icc_profile=data, **options)
        assert np.array_equal(decode_picture(content, SIDE), plain)


# ---- which way up


def as_stored(upright: NDArray[np.uint8], orientation: int) -> NDArray[np.uint8]:
    """Returns the pixels that a camera stores with an orientation (Exif 2.32, 4.6.4): where the
    upright picture's row 0 and column 0 lie."""
    return {
        1: upright,  # top, left
        2: upright[:, ::-1],  # top, right
        3: upright[::-1, ::-1],  # bottom, right
        4: upright[::-1],  # bottom, left
        5: upright.transpose(1, 0, 2),  # left, top
        6: upright.transpose(1, 0, 2)[::-1],  # right, top
        7: upright[::-1, ::-1].transpose(1, 0, 2),  # right, bottom
        8: upright.transpose(1, 0, 2)[:, ::-1],  # left, bottom
    }[orientation]


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "long JPEG"])
@pytest.mark.parametrize("order", ["II", "MM"])
def test_a_picture_is_turned_upright(kind: str, orientation: int, order: str) -> None:
    upright = np.kron(np.arange(6, dtype=np.uint8).reshape(2, 3), np.full((16, 16), 40, np.uint8))
    upright = np.repeat(upright[..., np.newaxis], 3, axis=2)
    stored = Image.fromarray(np.ascontiguousarray(as_stored(upright, orientation)))
    form = "<" if order == "II" else ">"
    entries = struct.pack(form + "HHIHH", 0x0112, 3, 1, orientation, 0)
    tiff = order.encode() + struct.pack(form + "HIH", 42, 8, 1) + entries + bytes(4)
    exif = b"Exif\0\0" + tiff
    options: dict[str, object] = {"lossless": True} if kind == "WEBP" else {}
    if kind == "long JPEG":
        options["comment"] = b"long " * 10_000
    content = encoded(stored, kind.split()[-1], exif=exif, **options)
    found = decode_picture(content, 96)
    expected = decode_picture(encoded(Image.fromarray(upright), "PNG"), 96)
    assert np.abs(found.astype(int) - expected).max() <= (3 if "JPEG" in kind else 0)


@pytest.mark.parametrize("value", [0, 9, 65_535])
def test_an_orientation_that_there_is_not_counts_as_upright(value: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = value
    found = decode_picture(encoded(drawing(), "PNG", exif=exif), SIDE)
    assert np.array_equal(found, np.asarray(drawing()))


@given(st.binary(max_size=80), st.sampled_from(["PNG", "JPEG", "WEBP"]))
@settings(max_examples=100, deadline=None)
def test_no_exif_data_spoils_a_picture(data: bytes, kind: str) -> None:
    for head in (b"", b"Exif\0\0II\x2a\0", b"Exif\0\0MM\0\x2a\0\0\0\x08\xff\xff"):
        content = encoded(drawing(), kind, exif=head + data)
        assert decode_picture(content, SIDE).shape == (SIDE, SIDE, 3)


# ---- large pictures


def gradient(width: int, height: int) -> NDArray[np.uint8]:
    x = np.linspace(0, 255, width).astype(np.uint8)
    y = np.linspace(0, 255, height).astype(np.uint8)
    return np.stack(
        [np.tile(x, (height, 1)), np.tile(y[:, None], (1, width)), np.full((height, width), 99)],
        axis=2,
        dtype=np.uint8,
        casting="unsafe",
    )


def box_means(picture: NDArray[np.uint8], side: int) -> NDArray[np.float64]:
    """Means over boxes by cumulative sums, in exact arithmetic but for the edges of boxes."""
    height, width, _ = picture.shape
    down = [picture[round(i * height / side) : round((i + 1) * height / side)] for i in range(side)]
    rows = np.stack([part.mean(0) for part in down])
    across = [rows[:, round(i * width / side) : round((i + 1) * width / side)] for i in range(side)]
    return np.stack([part.mean(1) for part in across], axis=1)


@pytest.mark.parametrize(("width", "height"), [(1920, 1080), (1080, 1920), (4032, 3024)])
@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("PNG", {"compress_level": 1}),
        ("JPEG", {}),
        ("JPEG", {"progressive": True, "subsampling": 0}),
        ("WEBP", {"method": 0}),
    ],
)
def test_pictures_of_screens_and_phones_are_decoded(
    width: int, height: int, kind: str, options: dict[str, object]
) -> None:
    picture = gradient(width, height)
    found = decode_picture(encoded(Image.fromarray(picture), kind, **options), SIDE)
    assert np.abs(found - box_means(picture, SIDE)).max() <= 4


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "LA", "P", "I;16", "1"])
def test_strips_change_no_bit(mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(3)
    noise = Image.fromarray(rng.integers(0, 256, (150, 210, 4), np.uint8), "RGBA")
    picture = Image.new("I;16", (210, 150), 0x4000) if mode == "I;16" else noise.convert(mode)
    content = encoded(picture, "PNG")
    whole = decode_picture(content, SIDE)
    monkeypatch.setattr(pixels, "LARGE", 1_000)
    assert np.array_equal(decode_picture(content, SIDE), whole)


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
@pytest.mark.parametrize("apart", [False, True], ids=["", "with a picture of its own"])
def test_an_animation_gives_its_first_picture(kind: str, apart: bool) -> None:
    sheet = emoji.sheet("twemoji")
    first, *others = (Image.fromarray(sheet[i]) for i in range(7, 12))
    options = {"default_image": apart} if kind == "PNG" else {"lossless": True}
    content = encoded(first, kind, save_all=True, append_images=others, duration=50, **options)
    assert Image.open(io.BytesIO(content)).n_frames > 1  # type: ignore[attr-defined]
    assert np.array_equal(decode_picture(content, SIDE), sheet[7])


# ---- JPEGs of other kinds


def test_cmyk_and_ycck_become_rgb() -> None:
    """Adobe stores ink inverted; black over everything takes its share of the light."""
    ink = np.zeros((SIDE, SIDE, 4), np.uint8)
    ink[..., 0], ink[..., 3] = 200, 55
    light = (255 - ink.astype(float)) / 255
    expected = 255 * light[..., :3] * light[..., 3:]
    content = encoded(Image.fromarray(ink, "CMYK"), "JPEG", quality=100)
    assert b"Adobe" in content
    found = decode_picture(content, SIDE)
    assert np.abs(found - expected).max() <= 4
    padded = content[:2] + b"\xff\xfe" + struct.pack(">H", 60_002) + bytes(60_000) + content[2:]
    assert np.array_equal(decode_picture(padded, SIDE), found)


@pytest.mark.parametrize(
    "options", [{}, {"progressive": True}, {"subsampling": 0}, {"quality": 99}]
)
@pytest.mark.parametrize("size", [32, 75, 1100])
def test_a_jpeg_that_only_lacks_its_end_is_whole(size: int, options: dict[str, object]) -> None:
    picture = drawing().resize((size, size))
    content = encoded(picture, "JPEG", **options)
    assert content.endswith(b"\xff\xd9")
    whole = decode_picture(content, SIDE)
    assert np.array_equal(decode_picture(content[:-2], SIDE), whole)
    assert np.array_equal(decode_picture(content[:-2] + bytes(40), SIDE), whole)
    for cut in (0.5, 0.9):
        with pytest.raises(BadContent) as caught:
            decode_picture(content[: int(len(content) * cut)], SIDE)
        assert caught.value.reason == "truncated_image"
