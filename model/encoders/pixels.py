"""Picture bytes -> pixels, trusting nothing: the header is judged before anything is decoded.

C = 3 colours (red, green, blue)

Only PNG, JPEG and WebP are opened. Transparency is laid over white; EXIF (rotation included) is
ignored; an animation gives its first frame. No torch here.
"""

import io
import struct
import warnings
import zlib

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from model.errors import BadContent

FORMATS = ("PNG", "JPEG", "WEBP")
MAX_PIXELS = 4_194_304
"""Of one picture (2048 × 2048): 16 MiB decoded, far more than a 32-pixel encoder can use."""
MAX_SIDE = 16_384

_DAMAGE = (OSError, SyntaxError, ValueError, EOFError, IndexError, struct.error, zlib.error)


def decode_picture(content: bytes, side: int, max_pixels: int = MAX_PIXELS) -> NDArray[np.uint8]:
    """Pixels (side, side, 3), uint8.

    Raises BadContent: `unsupported_image_format`, `decompression_bomb` (judged from the header,
    before memory is taken) or `truncated_image`.
    """
    with _open(content) as picture:
        _check_size(picture, max_pixels)
        try:
            picture.load()
        except _DAMAGE as error:
            raise BadContent(
                "truncated_image",
                f"image of {len(content)} bytes is cut or damaged: {error}",
            ) from error
        return np.asarray(_on_white(picture).resize((side, side), Image.Resampling.BOX))


def _open(content: bytes) -> Image.Image:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            return Image.open(io.BytesIO(content), formats=FORMATS)
    except Image.DecompressionBombError as error:
        raise BadContent("decompression_bomb", str(error)) from error
    except UnidentifiedImageError as error:
        raise BadContent(
            "unsupported_image_format",
            f"image of {len(content)} bytes is none of {', '.join(FORMATS)}",
        ) from error
    except _DAMAGE as error:
        raise BadContent("truncated_image", f"image header is damaged: {error}") from error


def _check_size(picture: Image.Image, max_pixels: int) -> None:
    width, height = picture.size
    if width * height > max_pixels or max(width, height) > MAX_SIDE:
        raise BadContent(
            "decompression_bomb",
            f"image of {width} x {height} pixels: at most {max_pixels} pixels "
            f"and {MAX_SIDE} a side are decoded",
        )


def _on_white(picture: Image.Image) -> Image.Image:
    """RGB, as seen on white paper."""
    if not picture.has_transparency_data:
        return picture.convert("RGB")
    rgba = picture.convert("RGBA")
    white = Image.new("RGBA", rgba.size, (255, 255, 255, 255))
    return Image.alpha_composite(white, rgba).convert("RGB")
