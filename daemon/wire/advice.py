"""Tells a producer what to do about a value that is no paired event: what it looks like instead,
and what would be right. Pure, and called only once decoding has failed."""

from __future__ import annotations

from collections.abc import Sequence

MSGPACK = "application/msgpack"
JSON = "application/json"

COMPRESSED: Sequence[tuple[bytes, str]] = (
    (b"\x1f\x8b", "gzip"),
    (b"\x28\xb5\x2f\xfd", "zstd"),
    (b"\x04\x22\x4d\x18", "lz4"),
    (b"\x82SNAPPY\x00", "snappy"),
    (b"\xff\x06\x00\x00sNaPpY", "snappy"),
    (b"BZh", "bzip2"),
    (b"\xfd7zXZ\x00", "xz"),
    (b"\x78\x01", "zlib"),
    (b"\x78\x9c", "zlib"),
    (b"\x78\xda", "zlib"),
)
FILES: Sequence[tuple[bytes, str]] = (
    (b"\x89PNG", "a PNG picture"),
    (b"\xff\xd8\xff", "a JPEG picture"),
    (b"RIFF", "a WAV or WebP file"),
    (b"Obj\x01", "an Avro file"),
    (b"PAR1", "a Parquet file"),
    (b"PK\x03\x04", "a zip file"),
    (b"\x80\x04\x95", "a Python pickle"),
    (b"\x80\x05\x95", "a Python pickle"),
)
UTF_MARKS = (b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff")
SCHEMA_REGISTRY_PREFIX = 5
"""A zero byte and the id of a schema, before what Schema Registry's serializers write."""


def advice(value: bytes, content_type: str) -> str | None:
    """Returns what the producer should do about this value, which could not be decoded as its
    content type; None where it looks like nothing known."""
    if not value:
        return "it is empty: send a paired event"
    for start, name in COMPRESSED:
        if value.startswith(start):
            return f"it looks compressed by {name}: send it as it is, and let Kafka compress it"
    for start, name in FILES:
        if value.startswith(start):
            return f"it looks like {name}: send a paired event that holds it"
    if value.startswith(UTF_MARKS):
        return "it begins with a byte order mark: send UTF-8 without one"
    if value[0] == 0 and len(value) > SCHEMA_REGISTRY_PREFIX:
        return "it looks like Schema Registry's format: send it without the magic byte and the id"
    return _of_the_other_type(value, content_type)


def _of_the_other_type(value: bytes, content_type: str) -> str | None:
    text = value[:64].lstrip()
    if content_type == MSGPACK and text[:1] in (b"{", b"["):
        return f"it looks like JSON: set the header content-type: {JSON}"
    if content_type == JSON and _begins_a_map(value[0]):
        return f"it looks like MessagePack: set the header content-type: {MSGPACK}"
    if text[:1] == b'"':
        return "it looks like text in quotes: encode the event once, not twice"
    return None


def _begins_a_map(first: int) -> bool:
    """Whether a MessagePack map begins with this byte."""
    return 0x80 <= first <= 0x8F or first in (0xDE, 0xDF)
