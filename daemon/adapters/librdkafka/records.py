"""Records as librdkafka hands them over, converted in bulk by C functions."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import starmap
from typing import cast

import msgspec
from confluent_kafka import Message

from daemon.wire.record import Headers


class LibrdkafkaRecord(msgspec.Struct, gc=False):
    """The Record port on a librdkafka message. Headers are converted only when someone asks."""

    offset: int
    key: bytes | None
    value: bytes | None
    stamp: tuple[int, int]
    message: Message | None

    @property
    def timestamp(self) -> int:
        return self.stamp[1]

    @property
    def headers(self) -> Headers:
        """Empty where a header's name is not UTF-8: librdkafka cannot read such headers."""
        if self.message is None:
            return ()
        try:
            return cast("Headers", self.message.headers() or ())
        except SystemError:
            self.message = None  # asked again, it would answer with a null pointer (seen in 2.16)
            return ()


def converted(messages: Sequence[Message]) -> Iterable[LibrdkafkaRecord]:
    """Returns the records of messages that carry no error, in order."""
    columns = (Message.offset, Message.key, Message.value, Message.timestamp)
    return starmap(
        LibrdkafkaRecord, zip(*(map(column, messages) for column in columns), messages, strict=True)
    )
