"""Reads what an image file says of itself, before anything is decoded: its size, how much work it
makes, which way up it is. Bytes only, no Pillow.

A PNG file is a signature and then chunks (PNG, third edition, section 5), a JPEG file segments and
then scans (ITU-T T.81, annex B), a WebP file chunks in a RIFF (RFC 9649, section 2). Much in them
changes no pixel: texts, colour profiles, previews. It is left out of what a decoder is given, for
it may be large, damaged, or made to unpack to gigabytes.
"""

import re
import struct
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from model.values.errors import BadContent

MAX_PIXELS = 2**24
"""The most pixels of one picture, such as 4096 × 4096. It takes at most 0.4 GB while it is decoded,
and about a second."""
MAX_SIDE = 16_384
MAX_WORK = 2**26
"""The most work that one picture may make, in pixels, see `PictureFile.work`."""
MAX_WORK_TOGETHER = 2**27
"""The most work that several pictures may make that come together, as an event or a video."""
MAX_SCANS = 500
"""The most scans of a JPEG, however small it is; encoders write 1 to 20."""
SCANS_A_PIXEL = 8
"""So many scans of a JPEG cost what its pixels cost besides."""
SMALL = 2**14
"""The most bytes of a JPEG that is given to Pillow as it is, if it holds no EXIF: what its segments
may cost is bounded by that."""
MAX_PARTS = 16_384
"""The most chunks or segments of a file."""

_PNG = b"\x89PNG\r\n\x1a\n"
_HEAD = struct.Struct(">II9xI4s").unpack_from
"""A PNG's width and height, and the length and the name of its second chunk, from byte 16."""
_MARKER = re.compile(rb"\xff+[^\xff\x00]")
_SCAN, _APP1 = 0xDA, 0xE1
_ALONE = frozenset((0x01, *range(0xD0, 0xDA)))
"""The markers of a JPEG that no length follows."""
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_SEQUENTIAL = frozenset((0xC0, 0xC1))
_CHANGES_NOTHING = (frozenset(range(0xE1, 0xF0)) - {0xEE}) | {0xFE}
"""Application segments and comments, but for JFIF's own and Adobe's, which tell the colours."""


UNKNOWN = (0, 0)


class PictureFile(NamedTuple):
    """An image file, as it describes itself."""

    data: bytes
    """The file, without what changes no pixel."""
    size: tuple[int, int] = UNKNOWN
    """Width and height in pixels as stored; UNKNOWN where the file does not get as far, and for a
    small JPEG, of which Pillow finds out at no more cost."""
    orientation: int = 1
    """How EXIF says that the stored pixels lie, 1 to 8; 1 is upright."""
    scans: int = 0
    """How often a JPEG goes over its pixels; 0 for other formats."""

    @property
    def work(self) -> int:
        """What decoding costs, in pixels: its own, once more for every 8 scans of a JPEG."""
        return _work(self.size, self.scans)


def read_picture_file(content: bytes) -> PictureFile:
    """Returns what an image file says of itself, checked as `check_work` does. Raises BadContent
    as that does, and `too_much_work` for too many chunks or segments."""
    if content.startswith(_PNG):
        picture = _png(content)
    elif content.startswith(b"\xff\xd8\xff"):
        picture = _jpeg(content)
    elif content.startswith(b"RIFF") and content[8:12] == b"WEBP":
        picture = _webp(content)
    else:
        return PictureFile(content)
    if picture.size != UNKNOWN:
        check_work(picture.size, picture.scans)
    return picture


def check_work(size: tuple[int, int], scans: int = 0) -> None:
    """Raises BadContent: `decompression_bomb` for a picture of more pixels than are decoded,
    `too_much_work` for one of more scans than decoding in about a second allows."""
    width, height = size
    if width * height > MAX_PIXELS or max(width, height) > MAX_SIDE:
        raise BadContent(
            "decompression_bomb",
            f"image of {width} x {height} pixels: at most {MAX_PIXELS} pixels "
            f"and {MAX_SIDE} a side are decoded",
        )
    if scans >= SCANS_A_PIXEL and (scans > MAX_SCANS or _work(size, scans) > MAX_WORK):
        raise BadContent(
            "too_much_work",
            f"JPEG of {scans} scans of {width} x {height} pixels: at most {MAX_SCANS} "
            f"scans are decoded, and {MAX_WORK} pixels when every {SCANS_A_PIXEL} scans count "
            "as all pixels once more",
        )


def check_work_together(contents: Iterable[bytes]) -> None:
    """Raises BadContent `too_much_work` when pictures that come together are too many for their
    sizes. What each is by itself, `read_picture_file` checks."""
    work = sum(_work(*_claimed(content)) for content in contents)
    if work > MAX_WORK_TOGETHER:
        raise BadContent(
            "too_much_work",
            f"pictures of {work} pixels together; at most {MAX_WORK_TOGETHER} are decoded",
        )


def _claimed(content: bytes) -> tuple[tuple[int, int], int]:
    """Returns the size that an image file claims, and its scans."""
    if content.startswith(b"\xff\xd8\xff"):
        jpeg = _jpeg_in_full(content)
        return jpeg.size, jpeg.scans
    if content.startswith(_PNG):
        return (_big(content[16:20]), _big(content[20:24])), 0
    return _webp_size(content), 0


def _work(size: tuple[int, int], scans: int) -> int:
    width, height = size
    return width * height * (1 + scans // SCANS_A_PIXEL)


def ends(jpeg: bytes) -> bool:
    """Returns whether a JPEG's last scan is followed by the marker of its end."""
    return jpeg.rfind(b"\xff\xd9") > jpeg.rfind(b"\xff\xda")


def _png(content: bytes) -> PictureFile:
    size = UNKNOWN
    if content[12:16] == b"IHDR" and len(content) >= 41:
        width, height, pixels_bytes, second = _HEAD(content, 16)
        size = width, height
        if second == b"IDAT" and pixels_bytes == len(content) - 57:
            return PictureFile(content, size)  # header, pixels, end: as most small pictures are
    kept, from_, orientation = [], 0, 1
    for name, start, end in _png_chunks(content):
        if name[0] & 0x20 and name != b"tRNS":  # a small first letter: not needed for the pixels
            kept.append(content[from_:start])
            from_ = end
            if name == b"eXIf":
                orientation = _orientation(content[start + 8 : end - 4])
    data = b"".join((*kept, content[from_:])) if kept else content
    return PictureFile(data, size, orientation)


def _png_chunks(content: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Yields each whole chunk's name, where it starts, and where the next one does."""
    at, read = 8, struct.Struct(">I4s").unpack_from
    for _ in range(MAX_PARTS):
        if at + 12 > len(content):
            return
        length, name = read(content, at)
        end = at + 12 + length
        if end > len(content):
            return
        yield name, at, end
        at = end
    raise _too_many_parts()


def _jpeg(content: bytes) -> PictureFile:
    if len(content) <= SMALL and b"Exif\0" not in content:
        return PictureFile(content, scans=content.count(b"\xff\xda"))
    return _jpeg_in_full(content)


def _jpeg_in_full(content: bytes) -> PictureFile:
    kept: list[bytes] = []
    size, from_, orientation, components, may_go_on = UNKNOWN, 0, 1, 0, False
    for marker, start, end in _jpeg_segments(content):
        if marker == _SCAN:
            # else the first scan has all, and libjpeg refuses a second
            several = may_go_on or content[start + 4] < components
            scans = content.count(b"\xff\xda", start) if several else 1
            data = b"".join((*kept, content[from_:])) if kept else content
            return PictureFile(data, size, orientation, scans)
        if marker in _CHANGES_NOTHING:
            kept.append(content[from_:start])
            from_ = end
            if marker == _APP1 and content[start + 4 : start + 8] == b"Exif":
                orientation = _orientation(content[start + 4 : end])
        elif marker in _FRAMES and end - start >= 10:
            height, width, components = struct.unpack_from(">HHB", content, start + 5)
            size = max(size, (width, height), key=lambda wh: wh[0] * wh[1])
            may_go_on |= marker not in _SEQUENTIAL
    return PictureFile(content, size, orientation)


def _jpeg_segments(content: bytes) -> Iterator[tuple[int, int, int]]:
    """Yields the marker of each segment before the first scan, where it starts, and where the next
    one does; then the first scan's."""
    at = 2
    for _ in range(MAX_PARTS):
        found = _MARKER.search(content, at)
        if found is None:
            return
        end = found.end()
        marker, start = content[end - 1], end - 2
        if start > at:
            yield 0xFE, at, start  # what stands between segments is passed over like a comment
        if marker not in _ALONE:
            end += int.from_bytes(content[end : end + 2])
        if end > len(content):
            return
        yield marker, start, end
        if marker == _SCAN:
            return
        at = end
    raise _too_many_parts()


def _webp(content: bytes) -> PictureFile:
    orientation = 1
    if content[12:16] == b"VP8X":
        for name, start, end in _riff_chunks(content):
            if name == b"EXIF":
                orientation = _orientation(content[start + 8 : end])
    return PictureFile(content, _webp_size(content), orientation)


def _webp_size(content: bytes) -> tuple[int, int]:
    """Returns a WebP's width and height. Needed because Pillow's reader allocates two canvases on
    opening, before it tells the size. Offsets: RFC 9649, sections 2.5 to 2.7."""
    if len(content) < 30:
        return 0, 0
    if content[12:16] == b"VP8X":
        return _little(content[24:27]) + 1, _little(content[27:30]) + 1
    if content[12:16] == b"VP8L":
        bits = _little(content[21:25])
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    return _little(content[26:28]) & 0x3FFF, _little(content[28:30]) & 0x3FFF


def _riff_chunks(content: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Yields each chunk's name, where it starts, and where the next one does."""
    at = 12
    for _ in range(MAX_PARTS):
        if at + 8 > len(content):
            return
        length = _little(content[at + 4 : at + 8])
        end = at + 8 + length
        yield content[at : at + 4], at, end
        at = end + length % 2
    raise _too_many_parts()


def _big(data: bytes) -> int:
    return int.from_bytes(data)


def _little(data: bytes) -> int:
    return int.from_bytes(data, "little")


def _too_many_parts() -> BadContent:
    detail = f"image file of more than {MAX_PARTS} chunks or segments"
    return BadContent("too_much_work", detail)


def _orientation(exif: bytes) -> int:
    """Returns the orientation that EXIF data gives, 1 where it gives none (Exif 2.32, 4.6.4).

    EXIF data is a TIFF directory: entries of a tag, a type, a count and a value, 12 bytes each.
    """
    tiff = exif.removeprefix(b"Exif\0\0")
    order = {b"II\x2a\0": "<", b"MM\0\x2a": ">"}.get(tiff[:4])
    if order is None:
        return 1
    try:
        (first,) = struct.unpack_from(f"{order}I", tiff, 4)
        (entries,) = struct.unpack_from(f"{order}H", tiff, first)
        for at in range(first + 2, first + 2 + 12 * entries, 12):
            tag, kind, _, value = struct.unpack_from(f"{order}HHIH", tiff, at)
            if tag == 0x0112:
                return value if kind == 3 and 1 <= value <= 8 else 1
    except struct.error:  # it ends within its directory
        pass
    return 1
