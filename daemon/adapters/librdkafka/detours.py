"""Partitions that librdkafka cannot read on in: another client reads past the place.

librdkafka 2.16 has no way past a batch that it cannot parse. It reports one that it cannot
decompress again and again; after a failed checksum it goes on at an offset that it has read from
the middle of the batch; and at a record whose lengths are wrong it stops without a word.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Protocol

from confluent_kafka import KafkaError

from daemon.config import Settings
from daemon.wire.record import Record

UNREADABLE = frozenset(
    {
        KafkaError._BAD_MSG,
        KafkaError._BAD_COMPRESSION,
        KafkaError._NOT_IMPLEMENTED,
        KafkaError._UNDERFLOW,
        KafkaError.INVALID_MSG,
    }
)
"""Errors in place of a record or batch that librdkafka cannot parse, or that the broker cannot
send."""

STALL_S = 5.0
"""A partition that has records and brings none for so long has a batch that librdkafka cannot
parse. Where the broker is only slow, nothing is lost by reading it with the other client."""


class OtherReader(Protocol):
    """Reads a partition by another client, see KafkaPythonReader."""

    def read(
        self, partition: int, offset: int, max_records: int
    ) -> tuple[Sequence[Record], int] | None: ...
    def close(self) -> None: ...


class OpensReader(Protocol):
    """Makes the other reader; it connects when it is first used."""

    def __call__(self, settings: Settings, client_id: str) -> OtherReader: ...


class Detours:
    """The partitions that the other client reads, and from which offset on."""

    def __init__(self, reader: OtherReader) -> None:
        self._reader = reader
        self._from: dict[int, int] = {}
        self._past: dict[int, int] = {}
        """Where the last detour of each partition ended."""
        self._still: dict[int, tuple[int, float]] = {}
        """The position of each partition, and since when (monotonic) it has stood there."""

    def __contains__(self, partition: int) -> bool:
        return partition in self._from

    def __bool__(self) -> bool:
        return bool(self._from)

    def begin(self, partition: int, offset: int) -> None:
        """Has the other client read a partition from this offset on."""
        self._from[partition] = offset

    def forget(self, partition: int) -> None:
        """Leaves the partition to librdkafka, wherever it is to be read from now on."""
        for known in (self._from, self._past, self._still):
            known.pop(partition, None)

    def is_passed(self, partition: int, offset: int) -> bool:
        """Returns whether a detour has been here. The offset at which librdkafka goes on after a
        failed checksum is no offset of the log mostly; then it begins the partition anew, which was
        seen to happen even after a seek."""
        return offset < self._past.get(partition, 0)

    def read(self, max_records: int) -> Iterator[tuple[int, Sequence[Record], int]]:
        """Yields (partition, records, the offset after them), at most `max_records` together. That
        ends a partition's detour: librdkafka goes on from that offset. Where the broker does not
        send records, the detour ends as well, and begins again after STALL_S. Raises
        Unavailable."""
        for partition, offset in list(self._from.items()):
            if max_records <= 0:
                return
            found = self._reader.read(partition, offset, max_records)
            del self._from[partition]
            if found is None:
                continue
            records, after = found
            self._past[partition] = after
            max_records -= len(records)
            yield partition, records, after

    def begin_where_stalled(
        self, positions: Mapping[int, int], lag: Mapping[int, int], now: float
    ) -> None:
        """Begins a detour in each partition that has lag and has not moved for STALL_S."""
        for partition, position in positions.items():
            before, since = self._still.get(partition, (None, now))
            if position != before or not lag.get(partition):
                since = now
            self._still[partition] = position, since
            if now - since >= STALL_S and partition not in self._from:
                self.begin(partition, position)
                self._still.pop(partition)

    def close(self) -> None:
        """Closes the other client. Never raises."""
        self._reader.close()
