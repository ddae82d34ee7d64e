"""Decompresses a batch's payload up to a size, and not to whatever it unpacks to.

A megabyte of zstd may unpack to a hundred gigabytes, and kafka-python's decoders return all of it:
the worker would be killed for its memory, read the same batch again, and so for ever. Here the size
is known before the memory is taken, or the decoder is asked for a part at a time.
"""

from __future__ import annotations

import io
import zlib
from collections.abc import Iterator
from typing import Protocol

import lz4.frame
import zstandard
from kafka import codec

GZIP, SNAPPY, LZ4, ZSTD = 1, 2, 3, 4
XERIAL = b"\x82SNAPPY\x00"
"""What Java's framing of snappy begins with: a header, then blocks with their lengths before."""
XERIAL_HEADER_BYTES = 16
MOST_PLAIN_BYTES = 2**28
"""The most bytes that a batch may unpack to: 256 times what a broker takes by default."""
LZ4_LARGEST_RATIO = 255
"""The most bytes that a byte of LZ4 can unpack to, by its format."""


class _Readable(Protocol):
    def read(self, size: int, /) -> bytes: ...


def decompressed(number: int, data: bytes, most: int = MOST_PLAIN_BYTES) -> bytes:
    """Returns what a payload unpacks to; `number` is Kafka's of the codec. Raises ValueError for
    more than `most` bytes and for an unknown codec, and for damage what the codec has."""
    if number == SNAPPY:
        _check_claims(data, most)
        plain: bytes = codec.snappy_decode(data)
        return plain
    if number == GZIP:
        return _gzip(data, most)
    if number == LZ4:
        if len(data) * LZ4_LARGEST_RATIO <= most:
            return bytes(lz4.frame.decompress(data))
        return _read(lz4.frame.LZ4FrameFile(io.BytesIO(data)), len(data), most)
    if number == ZSTD:
        file = io.BytesIO(data)
        reader = zstandard.ZstdDecompressor().stream_reader(file, read_across_frames=True)
        return _read(reader, len(data), most)
    raise ValueError("Kafka has no such codec")


def _gzip(data: bytes, most: int) -> bytes:
    """Returns what all members of a gzip file unpack to. Zeros may follow the last."""
    parts: list[bytes] = []
    room = most
    while data:
        member = zlib.decompressobj(wbits=31)
        parts.append(member.decompress(data, room + 1))
        room -= len(parts[-1])
        if room < 0:
            raise _too_large(most)
        if not member.eof:
            raise EOFError("gzip data ends within a member")
        data = member.unused_data.lstrip(b"\0")
    return parts[0] if len(parts) == 1 else b"".join(parts)


def _read(file: _Readable, compressed_bytes: int, most: int) -> bytes:
    """Returns all that a decoder has, in parts of a size that suits the compressed bytes."""
    part_bytes = max(2**16, 8 * compressed_bytes)
    parts: list[bytes] = []
    room = most
    while part := file.read(min(part_bytes, room + 1)):
        parts.append(part)
        room -= len(part)
        if room < 0:
            raise _too_large(most)
    return parts[0] if len(parts) == 1 else b"".join(parts)


def _too_large(most: int) -> ValueError:
    return ValueError(f"unpacks to more than {most} bytes")


def _check_claims(data: bytes, most: int) -> None:
    """Raises ValueError where blocks of snappy say that they unpack to more than `most` bytes
    together. The decoder takes as much memory as a block of five bytes asks for, and where it gets
    none it ends the process (seen in cramjam 2.14)."""
    claimed = sum(_claims(data))
    if claimed > most:
        raise ValueError(f"snappy says that it unpacks to {claimed} bytes, more than {most}")


def _claims(data: bytes) -> Iterator[int]:
    framed = data[: len(XERIAL)] == XERIAL
    at = XERIAL_HEADER_BYTES if framed else 0
    while at < len(data):
        length = len(data)
        if framed:
            length = int.from_bytes(data[at : at + 4], "big")
            at += 4
        claim = 0
        for i, byte in enumerate(data[at : at + 5]):
            claim |= (byte & 0x7F) << (7 * i)
            if byte < 0x80:
                break
        yield claim
        at += length
