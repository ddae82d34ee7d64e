"""Reads a stretch of a partition in no group, for a client that cannot get past a record there.

Theory of operation: `read` is called on the loop's thread and blocks for twice `kafka_timeout_ms`
at most. The consumer is opened by the first call and kept, for where one batch cannot be read there
are often more; an error throws it away, and the next call opens another.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from kafka import TopicPartition

from daemon.adapters.kafka_limits import FETCH_WAIT_MS
from daemon.adapters.kafka_python.client import kafka_errors_translated
from daemon.adapters.kafka_python.groupless import close_consumer, groupless_consumer
from daemon.adapters.kafka_python.offsets import positions
from daemon.adapters.kafka_python.unsent import Unsent
from daemon.config import Settings
from daemon.errors import Misconfigured, Unavailable
from daemon.wire.record import Record


class KafkaPythonReader:
    """Reads the events topic at any place."""

    def __init__(self, settings: Settings, client_id: str) -> None:
        self._settings = settings
        self._client_id = client_id
        self._consumer: Any = None
        self._unsent: Unsent

    def read(
        self, partition: int, offset: int, max_records: int
    ) -> tuple[Sequence[Record], int] | None:
        """Returns records from an offset on, what cannot be parsed as RawRecords with a fault, and
        the offset to read from next; None where the broker does not send them. Raises Unavailable
        when nothing comes."""
        try:
            with kafka_errors_translated("read aside"):
                return self._read(partition, offset, max_records)
        except (Unavailable, Misconfigured):
            self.close()
            raise

    def _read(
        self, partition: int, offset: int, max_records: int
    ) -> tuple[Sequence[Record], int] | None:
        if self._consumer is None:
            self._consumer = groupless_consumer(self._settings, self._client_id)
            self._unsent = Unsent(self._consumer)
        tp = TopicPartition(self._settings.kafka_events_topic, partition)
        self._consumer.assign([tp])
        self._consumer.seek(tp, offset)
        self._unsent.resume(at_once=True)
        timeout_ms = self._settings.kafka_timeout_ms
        give_up_at = time.monotonic() + timeout_ms / 1000
        while time.monotonic() < give_up_at:
            records = self._consumer.poll(FETCH_WAIT_MS, max_records).get(tp, ())
            position = positions(self._consumer).get(partition, offset)
            if records or position > offset:
                return records, position
            if tp in self._unsent:
                return None
        where = f"partition {partition}, offset {offset}"
        raise Unavailable("kafka", f"read aside: {where}: nothing came in {timeout_ms} ms")

    def close(self) -> None:
        """Closes the connection, if there is one. Never raises."""
        consumer, self._consumer = self._consumer, None
        close_consumer(consumer)
