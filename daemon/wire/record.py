"""Kafka records as values: those that are read, undecoded, and those to be sent. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol
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
class RawRecord:
    """The Record port on a record that was read from the log's own bytes, because the client
    refuses its batch. With a `fault` it cannot be used."""

    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: Headers = ()
    fault: str | None = None
    last_offset: int | None = None
    """Where more than one record is lost, the offset of the last one."""
    value_is: Literal["value", "record", "batch"] = "value"
    """What `value` holds: a record's value, or the bytes of a record or batch in the log."""


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
