"""Kafka records as values: those that are read, undecoded, and those to be sent. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol
from zlib import crc32

Headers = Sequence[tuple[str, bytes | None]]


class Record(Protocol):
    """One Kafka record as the client read it. No deserializer has touched it: an error in one would
    block the client."""

    @property
    def offset(self) -> int: ...
    @property
    def timestamp(self) -> int:
        """Milliseconds since 1970, UTC."""

    @property
    def key(self) -> bytes | None: ...
    @property
    def value(self) -> bytes | None: ...
    @property
    def headers(self) -> Headers: ...


@dataclass(frozen=True, slots=True)
class Message:
    """One record to be sent."""

    topic: str
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes | None], ...]


def fingerprint(record: Record) -> int:
    """Returns a checksum of the record's time, key and value: that of another record at the same
    place is the same only by chance."""
    seen = crc32(str(record.timestamp).encode())
    return crc32(record.value or b"", crc32(record.key or b"", seen))
