"""No image file that a sender can make takes long to decode: each is refused by its own words, or
done in about a second. The bounds here are generous, for slow machines."""

import io
import re
import struct
import time
import zlib
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from model.encoders.build import encoder_from, fresh_encoder_spec
from model.encoders.picture_file import MAX_PIXELS, check_work_together
from model.encoders.pixels import decode_picture
from model.values.contents import VideoClip
from model.values.errors import BadContent
from tests.model.png_reference import ADAM7, chunked

LONGEST_S = 6.0
"""CPU time of one picture; measured 1.1 s at most."""
MOST_MIB = 400
"""Memory of one picture; measured 258 MiB at most."""
SIDE = 4_096
CHANNELS = {0: 1, 2: 3, 3: 1, 6: 4}


def encoded(picture: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def plain(side: int, mode: str = "RGB") -> Image.Image:
    return Image.new(mode, (side, side), (9, 80, 200, 77)[: len(mode)])


def noise(side: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (side, side, 3), np.uint8))


def png(bits: int, colour_type: int, *chunks: bytes, interlaced: bool = False) -> bytes:
    """The largest PNG, of the filter that takes longest (Paeth), in few bytes."""
    header = struct.pack(">IIBBBBB", SIDE, SIDE, bits, colour_type, 0, 0, interlaced)
    deflate = zlib.compressobj(9)
    data = []
    for x, y, dx, dy in ADAM7 if interlaced else [(0, 0, 1, 1)]:
        width = len(range(x, SIDE, dx)) * CHANNELS[colour_type] * bits // 8
        data += [deflate.compress(b"\4" + b"\1" * width) for _ in range(y, SIDE, dy)]
    return chunked(b"IHDR" + header, *chunks, b"IDAT" + b"".join(data) + deflate.flush())


def with_more_scans(jpeg: bytes, times: int) -> bytes:
    """The JPEG with its last scan, which refines what there is, over and over."""
    last = [found.start() for found in re.finditer(b"\xff\xda", jpeg)][-1]
    return jpeg[:-2] + jpeg[last:-2] * times + b"\xff\xd9"


def small_png(*idat: bytes) -> bytes:
    header = struct.pack(">IIBBBBB", 1_000, 1_000, 8, 2, 0, 0, 0)
    return chunked(b"IHDR" + header, *(b"IDAT" + part for part in idat))


BLACK = bytes(3_001 * 1_000)
"""What the pixels of `small_png` are before they are compressed."""


def png_with_a_tail() -> bytes:
    deflate = zlib.compressobj(9)
    rest = [deflate.compress(bytes(2**20)) for _ in range(300)]
    return small_png(b"".join([deflate.compress(BLACK), *rest, deflate.flush()]))


def png_in_pieces() -> bytes:
    pieces = [bytes([b]) for b in zlib.compress(BLACK, 9)]
    return small_png(*pieces[:-1], *[b""] * 12_000, pieces[-1])


def jpeg_after(head: bytes, jpeg: bytes | None = None) -> bytes:
    jpeg = jpeg or encoded(plain(16), "JPEG")
    return jpeg[:2] + head + jpeg[2:]


def exif_that_refers_to_itself(tags: int, total: int) -> bytes:
    """Segments of EXIF data of which each tag's value is nearly the whole: reading all of them
    takes tags × total bytes."""
    size = total - 12 * tags
    entries = b"".join(struct.pack("<HHII", i, 7, size, 8) for i in range(1_000, 1_000 + tags))
    tiff = b"II\x2a\0\x08\0\0\0" + struct.pack("<H", tags) + entries
    tiff += bytes(max(0, total - len(tiff)))
    parts = [tiff[i : i + 60_000] for i in range(0, len(tiff), 60_000)]
    return b"".join(b"\xff\xe1" + struct.pack(">H", len(p) + 8) + b"Exif\0\0" + p for p in parts)


def arithmetic(jpeg: bytes, data: bytes) -> bytes:
    """The JPEG as if it was coded arithmetically, with other data in its scan."""
    frame, scan = jpeg.index(b"\xff\xc0"), jpeg.index(b"\xff\xda")
    return jpeg[:frame] + b"\xff\xc9" + jpeg[frame + 2 : scan + 14] + data + b"\xff\xd9"


def frames(count: int, side: int, **options: object) -> bytes:
    pictures = [Image.new("RGB", (side, side), (i % 256, i // 256, 0)) for i in range(count)]
    return encoded(pictures[0], "WEBP", save_all=True, append_images=pictures[1:], **options)


DECODED: dict[str, Callable[[], bytes]] = {
    "PNG, RGBA of 16 bits": lambda: png(16, 6),
    "PNG, interlaced": lambda: png(16, 6, interlaced=True),
    "PNG, RGB of 16 bits, one transparent": lambda: png(16, 2, b"tRNS" + bytes(6)),
    "PNG, grey of 16 bits, one transparent": lambda: png(16, 0, b"tRNS" + bytes(2)),
    "PNG, palette of alphas": lambda: png(8, 3, b"PLTE" + bytes(768), b"tRNS" + bytes(range(256))),
    "PNG, on its side": lambda: png(
        8,
        6,
        b"eXIfMM\0\x2a\0\0\0\x08\0\1" + struct.pack(">HHIHHI", 0x112, 3, 1, 6, 0, 0),
    ),
    "PNG, 15,000 chunks of a byte or none": png_in_pieces,
    "JPEG, noise": lambda: encoded(noise(1_000), "JPEG", quality=60, subsampling=0),
    "JPEG, progressive": lambda: encoded(plain(SIDE), "JPEG", progressive=True, subsampling=0),
    "JPEG, 31 scans of 16 megapixels": lambda: with_more_scans(
        encoded(plain(SIDE), "JPEG", progressive=True, subsampling=0), 21
    ),
    "JPEG, 490 scans of 1 megapixel": lambda: with_more_scans(
        encoded(plain(1_020), "JPEG", progressive=True), 480
    ),
    "JPEG, scans of noise": lambda: with_more_scans(
        encoded(noise(700), "JPEG", progressive=True, quality=40), 2
    ),
    "JPEG, progressive, without its end": lambda: encoded(
        plain(SIDE), "JPEG", progressive=True, subsampling=0
    )[:-2],
    "JPEG, arithmetic": lambda: arithmetic(
        encoded(plain(SIDE), "JPEG", subsampling=0), bytes(900_000)
    ),
    "JPEG, a megabyte between segments": lambda: jpeg_after(b"\xff" * 2**20),
    "JPEG, 16,000 tables": lambda: jpeg_after(b"\xff\xc4\0\2" * 16_000),
    "JPEG, EXIF of 20 gigabytes": lambda: jpeg_after(exif_that_refers_to_itself(43_000, 10**6)),
    "JPEG, EXIF behind what looks like a scan": lambda: jpeg_after(
        b"\xff\xfe\0\4\xff\xda" + exif_that_refers_to_itself(1_000, 15_000)
    ),
    "WebP, lossless": lambda: encoded(plain(SIDE, "RGBA"), "WEBP", lossless=True),
    "WebP, lossy": lambda: encoded(plain(SIDE), "WEBP", method=0),
    "WebP, noise": lambda: encoded(noise(1_024), "WEBP", quality=80, method=0),
    "WebP, lossless noise": lambda: encoded(noise(590), "WEBP", lossless=True, method=0),
    "WebP, 2,000 frames": lambda: frames(2_000, 16, method=0, kmin=1, kmax=1),
    "WebP, frames of 16 megapixels": lambda: frames(3, SIDE, lossless=True, method=0),
}
REFUSED: dict[str, Callable[[], bytes]] = {
    "JPEG, 86,000 scans": lambda: with_more_scans(
        encoded(plain(1_020), "JPEG", progressive=True), 86_000
    ),
    "JPEG, 86,000 scans of 16 pixels": lambda: with_more_scans(
        encoded(plain(16), "JPEG", progressive=True), 86_000
    ),
    "JPEG, 33 scans of 16 megapixels": lambda: with_more_scans(
        encoded(plain(SIDE), "JPEG", progressive=True, subsampling=0), 23
    ),
    "JPEG, small, 1,000 scans": lambda: with_more_scans(
        encoded(plain(8), "JPEG", progressive=True), 1_000
    ),
    "JPEG, 250,000 comments": lambda: jpeg_after(b"\xff\xfe\0\2" * 250_000),
    "PNG, 87,000 chunks": lambda: small_png(*[b""] * 87_000),
    "WebP, 80,000 chunks": lambda: (
        encoded(plain(16), "WEBP", exif=b"II") + b"NONE\0\0\0\0" * 80_000
    ),
}

EITHER: dict[str, Callable[[], bytes]] = {
    "PNG, 300 megabytes behind the pixels": png_with_a_tail,
    "JPEG, scans of one component, not progressive": lambda: with_more_scans(
        encoded(plain(1_020), "JPEG"), 600
    ),
}
"""Pillow and libjpeg may refuse them or not."""


def begin_peak_memory_mib() -> float:
    """Makes the kernel forget the process's peak memory, and returns what it is then; 0 where the
    kernel is not Linux."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
    return peak_memory_mib()


def peak_memory_mib() -> float:
    with suppress(OSError):
        found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
        return int(found[1]) / 1024 if found else 0.0
    return 0.0


@pytest.mark.parametrize("name", DECODED)
def test_a_picture_is_decoded_within_its_time_and_memory(name: str) -> None:
    content = DECODED[name]()
    before_mib = begin_peak_memory_mib()
    started = time.process_time()
    assert decode_picture(content, 32).shape == (32, 32, 3)
    assert time.process_time() - started < LONGEST_S
    assert peak_memory_mib() - before_mib < MOST_MIB


@pytest.mark.parametrize("name", REFUSED)
def test_a_picture_of_too_much_work_is_refused_at_once(name: str) -> None:
    content = REFUSED[name]()
    started = time.process_time()
    with pytest.raises(BadContent) as caught:
        decode_picture(content, 32)
    assert caught.value.reason == "too_much_work"
    assert time.process_time() - started < LONGEST_S / 10


@pytest.mark.parametrize("name", EITHER)
def test_what_stands_behind_a_whole_picture_takes_no_time(name: str) -> None:
    content = EITHER[name]()
    started = time.process_time()
    with suppress(BadContent):
        decode_picture(content, 32)
    assert time.process_time() - started < LONGEST_S


def test_pictures_that_come_together_are_counted_together() -> None:
    largest = [
        chunked(b"IHDR" + struct.pack(">IIBBBBB", SIDE, SIDE, 8, 2, 0, 0, 0)),
        encoded(plain(SIDE), "JPEG"),
        encoded(plain(SIDE), "WEBP", lossless=True),
    ]
    for picture in largest:
        check_work_together([picture] * 8)
        with pytest.raises(BadContent, match="pixels together") as caught:
            check_work_together([picture] * 9)
        assert caught.value.reason == "too_much_work"
    many = with_more_scans(encoded(plain(64), "JPEG", progressive=True), 440)
    assert MAX_PIXELS == SIDE**2
    with pytest.raises(BadContent):
        check_work_together([many] * 700)
    check_work_together([encoded(plain(64), "JPEG", progressive=True)] * 700)


def test_a_video_of_large_frames_is_refused_as_a_whole() -> None:
    encoder = encoder_from(
        fresh_encoder_spec("frames-gru/1", 8, 0), "video", 8, torch.device("cpu")
    )
    largest = encoded(plain(SIDE), "WEBP", lossless=True)
    started = time.process_time()
    with pytest.raises(BadContent) as caught:
        encoder.prepare(VideoClip((largest,) * 60))
    assert caught.value.reason == "too_much_work"
    assert time.process_time() - started < LONGEST_S / 10
