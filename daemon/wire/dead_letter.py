"""The dead letter: a record as it came, with its place and the reason why it cannot be used.

A dead letter may be sent to the events topic again, once what was wrong is mended. Its header
`adaptd-attempts` counts how often it was put aside. After MAX_ATTEMPTS it is dropped and counted
under the reason `repeated_dead_letter`: otherwise a topic of dead letters that flows back into the
events topic would go round for ever. The last dead letter of it stays where it is.
"""

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


MAX_ATTEMPTS = 3
"""How often one record is put aside."""
REASON_HEADER = f"{HEADER_PREFIX}reason"
ATTEMPTS_HEADER = f"{HEADER_PREFIX}attempts"
HEADERS = tuple(
    HEADER_PREFIX + name
    for name in (
        "topic",
        "partition",
        "offset",
        "timestamp-ms",
        "error",
        "reason",
        "detail",
        "attempts",
        "cut-key",
        "cut-value",
        "cut-headers",
        "value-is",
        "last-offset",
    )
)
"""Every header that a dead letter may have besides the record's own."""


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A record that cannot be used."""

    record: Record
    partition: int
    error: MalformedEvent
    attempts: int = 1
    """How often it was put aside, this time included."""

    @property
    def is_dropped(self) -> bool:
        """Whether it was put aside too often, and is not put aside again."""
        return self.attempts > MAX_ATTEMPTS


def dead_letter_of(record: Record, partition: int, error: MalformedEvent) -> DeadLetter:
    """Returns the dead letter of a record, which may have been one before."""
    attempts = 1 + _earlier_attempts(record.headers)
    if attempts > MAX_ATTEMPTS:
        detail = f"put aside {attempts - 1} times already; now {error.reason}: {error.detail}"
        error = MalformedEvent("repeated_dead_letter", detail)
    return DeadLetter(record, partition, error, attempts)


def _earlier_attempts(headers: Headers) -> int:
    """Returns how often the record was put aside before, by the headers of its last time."""
    found = dict(headers)
    if REASON_HEADER not in found:
        return 0
    count = (found.get(ATTEMPTS_HEADER) or b"1").decode("ascii", errors="replace")
    return int(count) if count.isdecimal() and len(count) < 4 else 1


def encode_dead_letter(
    letter: DeadLetter, *, topic: str, from_topic: str, max_bytes: int
) -> Message:
    """Returns the message: key, value and headers as they came, nulls included, and then the
    headers of adaptd, in the place of those that an earlier time has left.

    The record's own part has at most `max_bytes`, so that the dead-letter topic takes it: otherwise
    one bad event could stop the daemon for good. What is too long is cut, and a header
    `adaptd-cut-key`, `-cut-headers` or `-cut-value` says how many bytes it had. The whole record
    still lies in `from_topic`, at the offset that the headers name.
    """
    record = letter.record
    own = record.headers if letter.attempts == 1 else _without_ours(record.headers)
    room = max_bytes
    key, cut_key = _cut(record.key, room)
    room -= len(key or b"")
    header_bytes = sum(
        HEADER_OVERHEAD_BYTES + len(name.encode()) + len(value or b"") for name, value in own
    )
    headers: Headers = own if header_bytes <= room else ()
    room -= header_bytes if header_bytes <= room else 0
    value, cut_value = _cut(record.value, room)
    cut = {"cut-key": cut_key, "cut-value": cut_value}
    cut["cut-headers"] = header_bytes if header_bytes and not headers else 0
    ours = {**_place_and_reason(letter, from_topic), **{k: str(n) for k, n in cut.items() if n}}
    added = tuple(
        (HEADER_PREFIX + name, fact.encode(errors="replace")) for name, fact in ours.items()
    )
    return Message(topic, key, value, (*headers, *added))


def _without_ours(headers: Headers) -> Headers:
    """Returns the headers that the record had before it became a dead letter."""
    return tuple((name, value) for name, value in headers if name not in HEADERS)


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
        **({"attempts": str(letter.attempts)} if letter.attempts > 1 else {}),
    }


def _raw_facts(record: Record) -> dict[str, str]:
    """Returns what a reader must know of a value that is not what the producer sent."""
    if not isinstance(record, RawRecord) or record.value_is == "value":
        return {}
    return {"last-offset": str(record.last_offset), "value-is": record.value_is}
