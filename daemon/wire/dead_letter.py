"""The dead letter: a record as it came, with its place and the reason why it cannot be used."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from daemon.errors import MalformedEvent
from daemon.wire.record import Headers, Message, RawRecord, Record

HEADER_PREFIX = "adaptd-"
HEADER_OVERHEAD_BYTES = 10
"""What a header takes in a record besides its name and value: two lengths of at most five bytes."""
MAX_DETAIL_CHARS = 500
"""A longer detail is cut: it quotes what was found, which may be as long as the event."""


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A record that cannot be used."""

    record: Record
    partition: int
    error: MalformedEvent


def encode_dead_letter(
    letter: DeadLetter, *, topic: str, from_topic: str, max_bytes: int
) -> Message:
    """Returns the message: key, value and headers as they came, and then the headers of adaptd.

    The record's own part has at most `max_bytes`, so that the dead-letter topic takes it: otherwise
    one bad event could stop the daemon for good. What is too long is cut, and a header
    `adaptd-cut-key`, `-cut-headers` or `-cut-value` says how many bytes it had. The whole record
    still lies in `from_topic`, at the offset that the headers name.
    """
    record = letter.record
    room = max_bytes
    key, cut_key = _cut(record.key, room)
    room -= len(key or b"")
    header_bytes = sum(
        HEADER_OVERHEAD_BYTES + len(name.encode()) + len(value or b"")
        for name, value in record.headers
    )
    headers: Headers = record.headers if header_bytes <= room else ()
    room -= header_bytes if header_bytes <= room else 0
    value, cut_value = _cut(record.value, room)
    cut = {"cut-key": cut_key, "cut-value": cut_value}
    cut["cut-headers"] = header_bytes if header_bytes and not headers else 0
    ours = {**_place_and_reason(letter, from_topic), **{k: str(n) for k, n in cut.items() if n}}
    added = tuple((HEADER_PREFIX + name, fact.encode()) for name, fact in ours.items())
    theirs = tuple((name, value or b"") for name, value in headers)
    return Message(topic, key, value or b"", (*theirs, *added))


def _cut(data: bytes | None, room: int) -> tuple[bytes | None, int]:
    """Returns as much of the data as there is room for, and its length if it was cut, else 0."""
    if data is None or len(data) <= room:
        return data, 0
    return data[:room], len(data)


def _place_and_reason(letter: DeadLetter, from_topic: str) -> Mapping[str, str]:
    return _raw_facts(letter.record) | {
        "topic": from_topic,
        "partition": str(letter.partition),
        "offset": str(letter.record.offset),
        "timestamp-ms": str(letter.record.timestamp),
        "error": type(letter.error).__name__,
        "reason": letter.error.reason,
        "detail": letter.error.detail[:MAX_DETAIL_CHARS],
    }


def _raw_facts(record: Record) -> dict[str, str]:
    """Returns what a reader must know of a value that is not what the producer sent."""
    if not isinstance(record, RawRecord) or record.value_is == "value":
        return {}
    return {"last-offset": str(record.last_offset), "value-is": record.value_is}
