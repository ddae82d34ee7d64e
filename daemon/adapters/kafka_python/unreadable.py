"""Records that kafka-python cannot parse come as RawRecords with a fault, and stop nothing.

Symptom without this: after one record with a header name that is not UTF-8, or one batch that fails
its checksum or cannot be decompressed, `poll` never returns. The generator that parses a
partition's batches has ended by its exception, and `fetched_records` asks it for ever; heartbeats
go on, so no other worker takes over, and a restart meets the same record. Seen in 3.0.12.

Theory of operation: a fetcher makes one `PartitionRecords` for what it has fetched of a partition,
and that class is an attribute, so a consumer can be given another. This one hands kafka-python's
parser one batch after another. Where that raises, `read_batch` reads the rest of this one batch,
and the parser goes on with the next. All on the thread that polls; nothing is fetched twice.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from itertools import chain
from typing import Any

from kafka import KafkaConsumer
from kafka.consumer.fetcher import Fetcher
from kafka.errors import CorruptRecordError
from kafka.record import MemoryRecords
from kafka.record.default_records import DefaultRecordBatch
from kafka.record.util import calc_crc32c

from daemon.adapters.kafka_python.decompress import decompressed
from daemon.wire.record import RawRecord
from daemon.wire.record_batch import (
    Batch,
    codec_of,
    is_control,
    last_offset,
    producer_id,
    read_batch,
    split_batches,
)

FORMAT = 2
"""Of batches: what Kafka has written since 0.11. Older ones are kafka-python's to read."""


def read_past_what_is_unreadable(consumer: KafkaConsumer) -> None:
    """Has a consumer's polls return RawRecords for what it cannot parse. To be called before the
    first poll."""
    consumer._fetcher.PartitionRecords = _PatientRecords


class _Batches:
    """Batches for kafka-python's parser, one at a time; `last` is the one that it has now."""

    def __init__(self, data: bytes) -> None:
        batches = split_batches(data)
        if len(data) and not batches:  # the broker has lost count, and knows no way past it either
            raise CorruptRecordError("no batch can be told apart")
        self._batches = iter(batches)
        self.last: Batch | None = None

    def next_batch(self) -> Any:
        self.last = next(self._batches, None)
        if self.last is None:
            return None
        if codec_of(self.last) and self.last.data[16] == FORMAT:
            return _CompressedBatch(self.last.data)
        return MemoryRecords(self.last.data).next_batch()


class _CompressedBatch(DefaultRecordBatch):  # type: ignore[misc]  # kafka-python has no types
    """A batch of which no more is decompressed than there is memory for."""

    _buffer: Any
    _pos: int
    _decompressed: bool

    def _maybe_uncompress(self) -> None:
        if not self._decompressed:
            payload = bytes(memoryview(self._buffer)[self._pos :])
            self._buffer = bytearray(decompressed(self.compression_type, payload))
            self._pos = 0
            self._decompressed = True


class _PatientRecords(Fetcher.PartitionRecords):  # type: ignore[misc]  # kafka-python has no types
    next_fetch_offset: int

    def _unpack_records(self, tp: Any, records: Any, *deserializers: Any) -> Iterator[Any]:
        self._batches = _Batches(records._buffer)
        self._parse = partial(super()._unpack_records, tp, self._batches, *deserializers)
        parsed: Iterator[Any] = self._parse()
        return parsed

    def take(self, n: int | None = None) -> list[Any]:
        """Returns the next `n` records, as kafka-python does, but goes on where that raises."""
        while True:
            try:
                taken: list[Any] = super().take(n)
            except Exception:  # whatever a parser and four codecs have
                if self._batches.last is None:
                    raise
                self.record_iterator = chain(self._rest_of(self._batches.last), self._parse())
            else:
                return taken

    def _rest_of(self, batch: Batch) -> Iterator[RawRecord]:
        """Yields the records of a batch that the parser has not yielded before it raised."""
        if is_control(batch):  # without its marker, what its producer sends next would be dropped
            self.aborted_producer_ids.discard(producer_id(batch))
        for record in read_batch(batch, self.next_fetch_offset, decompressed, calc_crc32c):
            last = record.offset if record.last_offset is None else record.last_offset
            self.next_fetch_offset = last + 1
            yield record
        after = last_offset(batch, calc_crc32c) + 1
        self.next_fetch_offset = max(self.next_fetch_offset, after)
