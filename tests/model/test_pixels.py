"""Picture bytes are judged before they are decoded."""

import io
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from model.emoji import drawings as emoji
from model.encoders.picture_file import MAX_PIXELS
from model.encoders.pixels import decode_picture
from model.values.errors import BadContent

SIDE = 32


def encoded(picture: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def png_claiming(width: int, height: int) -> bytes:
    """A PNG whose header promises more than its data holds."""
    return png(width, height, 2, b"IDAT" + zlib.compress(b"\0" * 100))


def png(width: int, height: int, colour_type: int, *chunks: bytes) -> bytes:
    """A PNG of these chunks, with the right checksums."""
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, colour_type, 0, 0, 0)
    packed = [
        struct.pack(">I", len(c) - 4) + c + struct.pack(">I", zlib.crc32(c))
        for c in (header, *chunks, b"IEND")
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(packed)


@pytest.mark.parametrize(
    "chunks", [(), (b"PLTE" + b"\xff\0\0", b"tRNS" + b"\0" * 300)], ids=["no palette", "tRNS"]
)
def test_a_palette_that_does_not_fit_is_only_a_bad_picture(chunks: tuple[bytes, ...]) -> None:
    body = b"IDAT" + zlib.compress(b"\0\0\0" * 2)
    with pytest.raises(BadContent) as caught:
        decode_picture(png(2, 2, 3, *chunks, body), SIDE)
    assert caught.value.reason == "truncated_image"


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_lossless_32_pixel_pictures_come_through_unchanged(kind: str) -> None:
    drawing = emoji.sheet("twemoji")[7]
    content = encoded(Image.fromarray(drawing), kind, lossless=True)
    assert np.array_equal(decode_picture(content, SIDE), drawing)


@pytest.mark.parametrize(("width", "height"), [(1, 1), (72, 72), (31, 100), (500, 2)])
def test_any_size_becomes_the_encoders(width: int, height: int) -> None:
    pixels = decode_picture(encoded(Image.new("RGB", (width, height), (9, 8, 7)), "PNG"), SIDE)
    assert pixels.shape == (SIDE, SIDE, 3)
    assert pixels.dtype == np.uint8
    assert (pixels == (9, 8, 7)).all()


@pytest.mark.parametrize("mode", ["L", "LA", "P", "1", "I;16", "RGBA"])
def test_every_kind_of_png_becomes_rgb(mode: str) -> None:
    assert decode_picture(encoded(Image.new(mode, (40, 40)), "PNG"), SIDE).shape == (SIDE, SIDE, 3)


def test_cmyk_jpeg_becomes_rgb() -> None:
    content = encoded(Image.new("CMYK", (40, 40)), "JPEG")
    assert decode_picture(content, SIDE).shape == (SIDE, SIDE, 3)


def test_transparency_is_laid_over_white() -> None:
    half_red = Image.new("RGBA", (SIDE, SIDE), (255, 0, 0, 128))
    pixels = decode_picture(encoded(half_red, "PNG"), SIDE)
    assert pixels[0, 0].tolist() == [255, 127, 127]
    invisible = Image.new("RGBA", (SIDE, SIDE), (0, 0, 0, 0))
    assert (decode_picture(encoded(invisible, "WEBP", lossless=True), SIDE) == 255).all()


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_a_truncated_picture_is_refused(kind: str) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    content = encoded(Image.fromarray(noise), kind)
    with pytest.raises(BadContent) as caught:
        decode_picture(content[: len(content) // 2], SIDE)
    assert caught.value.reason == "truncated_image"


@pytest.mark.parametrize(
    ("width", "height"), [(4097, 4096), (20_000, 10_000), (60_000, 60_000), (1, 20_000)]
)
def test_a_bomb_is_refused_by_its_header(width: int, height: int) -> None:
    with pytest.raises(BadContent) as caught:
        decode_picture(png_claiming(width, height), SIDE)
    assert caught.value.reason == "decompression_bomb"


@pytest.mark.parametrize("options", [{"lossless": True}, {"lossless": False}, {"exif": b"1234"}])
def test_a_webp_bomb_is_refused_before_pillow_opens_it(
    options: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    content = encoded(Image.new("RGB", (5000, 4999)), "WEBP", **options)

    def opened(*_: object, **__: object) -> None:
        raise AssertionError("opened all the same")

    monkeypatch.setattr(Image, "open", opened)
    with pytest.raises(BadContent, match="5000 x 4999"):
        decode_picture(content, SIDE)


def test_the_largest_allowed_header_is_not_called_a_bomb() -> None:
    assert MAX_PIXELS == 4096 * 4096
    with pytest.raises(BadContent) as caught:
        decode_picture(png_claiming(4096, 4096), SIDE)
    assert caught.value.reason == "truncated_image"


@pytest.mark.parametrize("kind", ["GIF", "BMP", "TIFF", "PPM"])
def test_other_formats_are_refused(kind: str) -> None:
    with pytest.raises(BadContent) as caught:
        decode_picture(encoded(Image.new("RGB", (8, 8)), kind), SIDE)
    assert caught.value.reason == "unsupported_image_format"


@pytest.mark.parametrize("content", [b"", b"hello", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff"])
def test_bytes_that_are_no_picture_are_refused(content: bytes) -> None:
    with pytest.raises(BadContent):
        decode_picture(content, SIDE)


@given(kind=st.sampled_from(["PNG", "JPEG", "WEBP"]), data=st.data())
@settings(max_examples=150, deadline=None)
def test_damage_anywhere_gives_pixels_or_bad_content(kind: str, data: st.DataObject) -> None:
    content = bytearray(encoded(Image.fromarray(emoji.sheet("noto")[3]), kind))
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    try:
        pixels = decode_picture(bytes(content), SIDE)
    except BadContent:
        return
    assert pixels.shape == (SIDE, SIDE, 3)
