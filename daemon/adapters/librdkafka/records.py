"""Records as librdkafka hands them over, converted in bulk by C functions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import starmap, takewhile
from typing import cast

import msgspec
from confluent_kafka import Message

from daemon.wire.record import Headers

_headers = cast("Callable[[Message], Headers | None]", Message.headers)


class LibrdkafkaRecord(msgspec.Struct, gc=False):
    """The Record port on what a librdkafka message holds."""

    offset: int
    key: bytes | None
    value: bytes | None
    stamp: tuple[int, int]
    headers_or_none: Headers | None

    @property
    def timestamp(self) -> int:
        return self.stamp[1]

    @property
    def headers(self) -> Headers:
        return self.headers_or_none or ()


def converted(messages: Sequence[Message]) -> list[LibrdkafkaRecord]:
    """Returns the records of messages, in order, before the first that carries an error or whose
    headers librdkafka cannot read because a header's name is not UTF-8.

    Headers are taken by `map`: a plain call lets the exception that such headers leave behind come
    out at some later line (seen in confluent-kafka 2.16).
    """
    if any(map(Message.error, messages)):
        messages = list(takewhile(lambda message: message.error() is None, messages))
    headers: list[Headers | None] = []
    try:
        headers.extend(map(_headers, messages))
    except (SystemError, UnicodeDecodeError):
        messages = messages[: len(headers)]
    columns = (Message.offset, Message.key, Message.value, Message.timestamp)
    return list(
        starmap(
            LibrdkafkaRecord,
            zip(*(map(column, messages) for column in columns), headers, strict=True),
        )
    )
