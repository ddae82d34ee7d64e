"""Decodes image files from senders that are not trusted: the header is checked before decoding.

Only PNG, JPEG and WebP are opened. Transparent pixels are shown over white; EXIF, rotation
included, is ignored; an animation gives its first frame. No torch here.
"""

import io
import warnings

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from model.values.errors import BadContent

FORMATS = ("PNG", "JPEG", "WEBP")
MAX_PIXELS = 1_048_576
"""The most pixels of one picture, such as 1024 × 1024, by default: far more than an encoder of 32
pixels a side can use."""
MAX_SIDE = 16_384

# as pillow's documentation advises; far above MAX_PIXELS, and safe with threads unlike a context
warnings.simplefilter("error", Image.DecompressionBombWarning)


def decode_picture(content: bytes, side: int, max_pixels: int = MAX_PIXELS) -> NDArray[np.uint8]:
    """Returns a picture's pixels, red, green and blue (side, side, 3), uint8.

    Raises BadContent: `unsupported_image_format`, `decompression_bomb` (more than `max_pixels` by
    its header, so before memory is taken) or `truncated_image`.
    """
    _check_size(_webp_size(content), max_pixels)
    with _open(content) as picture:
        _check_size(picture.size, max_pixels)
        try:
            picture.load()
            return np.asarray(_on_white(picture).resize((side, side), Image.Resampling.BOX))
        except MemoryError:
            raise
        except Exception as error:  # what pillow raises on damage is no closed set
            raise BadContent(
                "truncated_image",
                f"image of {len(content)} bytes is cut or damaged: {error}",
            ) from error


def _open(content: bytes) -> Image.Image:
    try:
        return Image.open(io.BytesIO(content), formats=FORMATS)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise BadContent("decompression_bomb", str(error)) from error
    except UnidentifiedImageError as error:
        raise BadContent(
            "unsupported_image_format",
            f"image of {len(content)} bytes is none of {', '.join(FORMATS)}",
        ) from error
    except MemoryError:
        raise
    except Exception as error:  # as above
        raise BadContent("truncated_image", f"image header is damaged: {error}") from error


def _webp_size(content: bytes) -> tuple[int, int]:
    """Returns a WebP's width and height by its own header, (0, 0) for anything else.

    Needed because Pillow's reader allocates two canvases on opening, before it tells the size.
    Offsets: RFC 9649, sections 2.5 to 2.7.
    """
    if content[:4] != b"RIFF" or content[8:12] != b"WEBP" or len(content) < 30:
        return 0, 0
    if content[12:16] == b"VP8X":
        return _uint(content[24:27]) + 1, _uint(content[27:30]) + 1
    if content[12:16] == b"VP8L":
        bits = _uint(content[21:25])
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    return _uint(content[26:28]) & 0x3FFF, _uint(content[28:30]) & 0x3FFF


def _uint(data: bytes) -> int:
    return int.from_bytes(data, "little")


def _check_size(size: tuple[int, int], max_pixels: int) -> None:
    width, height = size
    if width * height > max_pixels or max(width, height) > MAX_SIDE:
        raise BadContent(
            "decompression_bomb",
            f"image of {width} x {height} pixels: at most {max_pixels} pixels "
            f"and {MAX_SIDE} a side are decoded",
        )


def _on_white(picture: Image.Image) -> Image.Image:
    """Returns the picture in RGB, transparent parts laid over white."""
    if not picture.has_transparency_data:
        return picture.convert("RGB")
    rgba = picture.convert("RGBA")
    white = Image.new("RGBA", rgba.size, (255, 255, 255, 255))
    return Image.alpha_composite(white, rgba).convert("RGB")
