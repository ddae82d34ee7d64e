"""How much is published at a time. Pure.

A turn's messages go to Kafka in slices, each acknowledged before the next is made: so memory holds
one slice and not a turn's worth of mappings, each slice has the delivery timeout to itself, and
what was acknowledged counts although a later slice fails. Where even that is more than Kafka takes
in the time that a turn has, fewer streams are adapted in a turn.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TypeVar

from daemon.config import PUBLISH_BUDGET_MS
from daemon.wire.record import Message

T = TypeVar("T")

SLICE_BYTES = 16 * 1024 * 1024
"""Of a slice, at most, once it holds a message: at 10 s for a delivery a link of 14 Mbit/s does."""
PUBLISH_BUDGET_S = PUBLISH_BUDGET_MS / 1000
"""After this long a turn begins no further slice and leaves the other mappings to the next turn: a
slow broker must not make a turn longer than the consumer group and the supervisor allow."""


class PublishingPace:
    """How large slices are, and how many mappings a turn may hope to publish."""

    def __init__(self, max_batch: int, slice_bytes: int = SLICE_BYTES) -> None:
        self._most, self._slice_most = max_batch, slice_bytes
        self.slice_bytes = slice_bytes
        """Shrinks to a half at each failure, and doubles with each slice that is acknowledged."""
        self.mappings = max_batch
        """Of the next turn, at most."""

    def slices(self, outgoing: Iterable[tuple[Message, T]]) -> Iterator[list[tuple[Message, T]]]:
        """Yields the messages, and what goes with each, in order and in lists. A list ends with
        the message that makes it `slice_bytes` large. Takes no message before it is needed."""
        slice_, size = list[tuple[Message, T]](), 0
        for message, other in outgoing:
            slice_.append((message, other))
            size += size_of(message)
            if size >= self.slice_bytes:
                yield slice_
                slice_, size = [], 0
        if slice_:
            yield slice_

    def acknowledged(self) -> None:
        """Notes that Kafka has taken a slice."""
        self.slice_bytes = min(self._slice_most, 2 * self.slice_bytes)

    def failed(self) -> None:
        """Notes that a slice was not acknowledged."""
        self.slice_bytes = max(1, self.slice_bytes // 2)

    def ended(self, published: int, left: int) -> None:
        """Notes that a turn published so many mappings, and had no time for so many others."""
        if left:
            self.mappings = max(1, published)
        elif published >= self.mappings:
            self.mappings = min(self._most, 2 * self.mappings)


def size_of(message: Message) -> int:
    """Returns the bytes of a message's value and key; those of its headers are few."""
    return len(message.value or b"") + len(message.key or b"")
