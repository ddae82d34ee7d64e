"""Decodes image files from senders that are not trusted: the header is checked before decoding.

Only PNG, JPEG and WebP are opened. A picture is turned upright as its EXIF says, transparent pixels
are shown over white, numbers of 16 bits become their upper 8, and an animation gives its first
frame. No torch here.
"""

import io
import warnings

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageChops, ImageFile, UnidentifiedImageError

from model.encoders.picture_file import MAX_SIDE, PictureFile, check_work, ends, read_picture_file
from model.values.errors import BadContent

FORMATS = ("PNG", "JPEG", "WEBP")
LARGE = 2**20
"""The pixels from which on a picture is shrunk in strips, and a JPEG at a half, a quarter or an
eighth of its size while it is decoded."""
DETAIL = 4
"""How many times the encoder's side a JPEG that is decoded at less than its size still has."""

_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What turns a picture upright, by its EXIF orientation (Exif 2.32, 4.6.4)."""
_WHITE = (255, 255, 255, 255)

# as pillow's documentation advises; far above MAX_PIXELS, and safe with threads unlike a context
warnings.simplefilter("error", Image.DecompressionBombWarning)


def decode_picture(content: bytes, side: int) -> NDArray[np.uint8]:
    """Returns a picture's pixels, red, green and blue (side, side, 3), uint8.

    Raises BadContent: `unsupported_image_format`, `decompression_bomb` and `too_much_work` (by the
    file's own words, so before memory is taken) or `truncated_image`.
    """
    file = read_picture_file(content)
    try:
        picture = _decoded(file, side)
        return np.asarray(_shrunk(picture, side))
    except (MemoryError, BadContent):
        raise
    except Exception as error:  # what pillow raises on damage is no closed set
        raise BadContent(
            "truncated_image", f"image of {len(content)} bytes is cut or damaged: {error}"
        ) from error


def _decoded(file: PictureFile, side: int) -> Image.Image:
    """Returns the picture in 8 bits, upright. A large JPEG is of less than its size."""
    picture = _loaded(file, side)
    if picture.format == "PNG":
        picture = _in_8_bits(picture, file)
    turn = _TURNS.get(file.orientation)
    return picture if turn is None else picture.transpose(turn)


def _loaded(file: PictureFile, side: int) -> Image.Image:
    picture = _opened(file, side)
    try:
        picture.load()
    except OSError:
        if picture.format != "JPEG" or ends(file.data):
            raise
        picture = _without_its_end(file, side)
        picture.load()
    return picture


def _without_its_end(jpeg: PictureFile, side: int) -> Image.Image:
    """Returns the picture of a JPEG that only lacks the marker of its end. Raises OSError when it
    lacks pixels: then they depend on what is put in place of what is missing."""
    ended = jpeg._replace(data=jpeg.data + b"\xff\xd9")
    noise = jpeg._replace(data=jpeg.data + b"\xa5\x3c" * 512 + b"\xff\xd9")
    full = (_opened(file, MAX_SIDE) for file in (ended, noise))
    if ImageChops.difference(*full).getbbox() is not None:
        raise OSError("JPEG data ends within the picture")
    return _opened(ended, side)


def _opened(file: PictureFile, side: int) -> Image.Image:
    """Returns the picture before its pixels are decoded. Raises BadContent."""
    try:
        picture = Image.open(io.BytesIO(file.data), formats=FORMATS)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise BadContent("decompression_bomb", str(error)) from error
    except UnidentifiedImageError as error:
        raise BadContent(
            "unsupported_image_format",
            f"image of {len(file.data)} bytes is none of {', '.join(FORMATS)}",
        ) from error
    if picture.size != file.size:
        check_work(picture.size, file.scans)
    if picture.width * picture.height > LARGE:
        picture.draft("RGB", (DETAIL * side, DETAIL * side))  # which JPEGs alone know
    return picture


def _in_8_bits(picture: Image.Image, png: PictureFile) -> Image.Image:
    """Returns a PNG's picture with the upper 8 of 16 bits, and its one transparent colour (tRNS)
    compared in all bits that it has."""
    bits, transparent = png.data[24], picture.info.get("transparency")
    if picture.mode.startswith("I"):
        grey = np.asarray(picture)
        upper = Image.fromarray((grey >> 8).astype(np.uint8))
        if transparent is not None:
            upper.putalpha(Image.fromarray(np.uint8(255) * (grey != transparent)))
        return upper
    if picture.mode == "RGB" and bits == 16 and transparent is not None:
        del picture.info["transparency"]
        picture.putalpha(_other_than(transparent, picture, _lower_8_bits(png)))
    elif picture.mode == "L" and bits < 8 and transparent is not None:
        picture.info["transparency"] = transparent * 255 // (2**bits - 1)
    return picture


def _lower_8_bits(png: PictureFile) -> Image.Image:
    """Returns a PNG of 16 bits read as if it were little-endian, of which Pillow keeps the upper
    bits: the lower ones."""
    picture = _opened(png, 1)
    assert isinstance(picture, ImageFile.ImageFile)
    picture.tile = [tile._replace(args="RGB;16L") for tile in picture.tile]
    picture.load()
    return picture


def _other_than(
    colour: tuple[int, int, int], upper: Image.Image, lower: Image.Image
) -> Image.Image:
    """Returns 255 where a picture of 16 bits has another colour, 0 where it has this one."""
    other = Image.new("L", upper.size)
    for picture, shift in ((upper, 8), (lower, 0)):
        for band, value in zip(picture.split(), colour, strict=True):
            table = [255] * 256
            table[value >> shift & 0xFF] = 0
            other = ImageChops.lighter(other, band.point(table))
    return other


def _shrunk(picture: Image.Image, side: int) -> Image.Image:
    """Returns the picture in RGB on white, as means over boxes, of the encoder's size.

    A large one is shrunk across in strips and then down, to the same bits: so that what lies
    between, four times the picture, is never there all at once.
    """
    width, height = picture.size
    if width * height <= LARGE:
        return _on_white(picture).resize((side, side), Image.Resampling.BOX)
    across, rows = Image.new("RGB", (side, height)), max(1, LARGE // width)
    for top in range(0, height, rows):
        strip = picture.crop((0, top, width, min(top + rows, height)))
        narrow = _on_white(strip).resize((side, strip.height), Image.Resampling.BOX)
        across.paste(narrow, (0, top))
    return across.resize((side, side), Image.Resampling.BOX)


def _on_white(picture: Image.Image) -> Image.Image:
    """Returns the picture in RGB, transparent parts laid over white."""
    if not picture.has_transparency_data:
        return picture.convert("RGB")
    rgba = picture.convert("RGBA")
    white = Image.new("RGBA", rgba.size, _WHITE)
    return Image.alpha_composite(white, rgba).convert("RGB")
