"""The dead letter: the record as it came, with where it lay and why it could not be used."""

from __future__ import annotations

from dataclasses import dataclass

from daemon.errors import MalformedEvent
from daemon.ports import Message, Record

HEADER_PREFIX = "adaptd-"


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A record that was put aside."""

    record: Record
    partition: int
    error: MalformedEvent


def encode(letter: DeadLetter, *, topic: str, from_topic: str, max_bytes: int) -> Message:
    """Key, value and headers as they came, ours behind them.

    A value over `max_bytes` is cut, for the dead-letter topic must be able to take it; the header
    `adaptd-truncated-from` says how long it was, and the whole still lies at its offset.
    """
    value = letter.record.value or b""
    ours = {
        "topic": from_topic,
        "partition": letter.partition,
        "offset": letter.record.offset,
        "timestamp-ms": letter.record.timestamp,
        "error": type(letter.error).__name__,
        "reason": letter.error.reason,
        "detail": letter.error.detail,
    }
    if len(value) > max_bytes:
        ours["truncated-from"] = len(value)
        value = value[:max_bytes]
    headers = tuple((HEADER_PREFIX + name, str(fact).encode()) for name, fact in ours.items())
    return Message(topic, letter.record.key, value, (*letter.record.headers, *headers))
