"""A PNG encoder and decoder as the specification words it (PNG, third edition): slow, and
independent of any library but zlib.
"""

import struct
import zlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
"""Channels by colour type: grey, RGB, palette, grey and alpha, RGBA."""


@dataclass(frozen=True)
class Png:
    """A picture's numbers as a PNG has them: by row, column and channel."""

    numbers: NDArray[np.int64]
    bits: int
    colour_type: int
    transparent: tuple[int, ...] | None = None
    """One colour (grey, RGB), or the alphas of a palette."""
    palette: tuple[tuple[int, int, int], ...] = ()

    def encoded(self, *ancillary: bytes, filtered: int = 0, interlaced: bool = False) -> bytes:
        """Returns the file; each of `ancillary`, a name and data, follows the header."""
        height, width, _ = self.numbers.shape
        header = struct.pack(
            ">IIBBBBB", width, height, self.bits, self.colour_type, 0, 0, interlaced
        )
        chunks = [b"IHDR" + header, *ancillary]
        if self.palette:
            chunks.append(b"PLTE" + bytes(v for colour in self.palette for v in colour))
        if self.transparent is not None:
            form = f">{len(self.transparent)}{'B' if self.palette else 'H'}"
            chunks.append(b"tRNS" + struct.pack(form, *self.transparent))
        passes = [(0, 0, 1, 1)] if not interlaced else ADAM7
        raw = b"".join(self._rows(self.numbers[y::dy, x::dx], filtered) for x, y, dx, dy in passes)
        return chunked(*chunks, b"IDAT" + zlib.compress(raw))

    def _rows(self, numbers: NDArray[np.int64], filtered: int) -> bytes:
        if not numbers.size:
            return b""
        step = max(1, self.bits * CHANNELS[self.colour_type] // 8)
        packed = [self._packed(row) for row in numbers]
        before = bytes(len(packed[0]))
        rows = []
        for row in packed:
            if filtered == 1:  # Sub
                out = bytes(
                    (v - (row[i - step] if i >= step else 0)) % 256 for i, v in enumerate(row)
                )
            elif filtered == 2:  # Up
                out = bytes((v - u) % 256 for v, u in zip(row, before, strict=True))
            else:
                out = row
            rows.append(bytes([filtered]) + out)
            before = row
        return b"".join(rows)

    def _packed(self, row: NDArray[np.int64]) -> bytes:
        bits = "".join(f"{int(v):0{self.bits}b}" for v in row.ravel())
        bits += "0" * (-len(bits) % 8)
        return bytes(int(bits[i : i + 8], 2) for i in range(0, len(bits), 8))

    def shown(self) -> NDArray[np.uint8]:
        """Returns the pixels (Y, X, 3) on white, of which the upper 8 of 16 bits count."""
        height, width, _ = self.numbers.shape
        result = np.zeros((height, width, 3), np.uint8)
        for y in range(height):
            for x in range(width):
                result[y, x] = self._on_white(tuple(int(v) for v in self.numbers[y, x]))
        return result

    def _on_white(self, numbers: tuple[int, ...]) -> tuple[int, int, int]:
        if self.colour_type == 3:
            colour = self.palette[numbers[0]]
            alphas = self.transparent or ()
            return over_white(colour, alphas[numbers[0]] if numbers[0] < len(alphas) else 255)
        eight = [v >> 8 if self.bits == 16 else v * 255 // (2**self.bits - 1) for v in numbers]
        alpha = eight.pop() if self.colour_type in (4, 6) else 255
        if self.transparent is not None and numbers == self.transparent:
            alpha = 0
        red, green, blue = eight * 3 if len(eight) == 1 else eight
        return over_white((red, green, blue), alpha)


ADAM7 = (
    (0, 0, 8, 8),
    (4, 0, 8, 8),
    (0, 4, 4, 8),
    (2, 0, 4, 4),
    (0, 2, 2, 4),
    (1, 0, 2, 2),
    (0, 1, 1, 2),
)
"""Where each pass of an interlaced picture begins (x, y), and its steps."""


def over_white(colour: tuple[int, int, int], alpha: int) -> tuple[int, int, int]:
    """Returns the colour at this alpha over white, rounded."""
    red, green, blue = ((c * alpha + 255 * (255 - alpha) + 127) // 255 for c in colour)
    return red, green, blue


def chunked(*chunks: bytes) -> bytes:
    """Returns a PNG of these chunks, each a name and data, with the right checksums and an end."""
    packed = [
        struct.pack(">I", len(c) - 4) + c + struct.pack(">I", zlib.crc32(c))
        for c in (*chunks, b"IEND")
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(packed)
