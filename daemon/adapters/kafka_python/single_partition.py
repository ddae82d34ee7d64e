"""A topic of one partition, read in no group: the part that the topics of θs and of evidence share.

Theory of operation: the clients are opened by the first use and thrown away by the first error, so
that the next use begins anew. Whoever reads asks for the topic's id and its end each time: where
the id is another one, or the end lies before what was read, the log is not the one from before. All
calls block, and come from one thread.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from kafka import KafkaAdminClient, TopicPartition
from kafka.errors import KafkaError

from daemon.adapters.kafka_python.client import connect, described_topic, kafka_errors_translated
from daemon.adapters.kafka_python.groupless import close_consumer, groupless_consumer
from daemon.config import Settings
from daemon.errors import Unavailable
from daemon.wire.record import RawRecord

POLL_MS = 500
PATIENCE_S = 20.0
"""How long nothing may come while the end is not reached: a θ may be large."""


class SinglePartition:
    """Partition 0 of a topic. Its methods may be called within `opened`."""

    def __init__(self, settings: Settings, client_id: str, topic: str, **arguments: Any) -> None:
        """`arguments` are KafkaConsumer's."""
        self._settings, self._client_id, self._arguments = settings, client_id, arguments
        self._tp = TopicPartition(topic, 0)
        self._consumer: Any = None
        self._admin: Any = None

    @contextmanager
    def opened(self, doing: str) -> Iterator[None]:
        """Opens the clients where they are not, and closes them after every error within the block.
        Raises Unavailable, Misconfigured and Refused, which name what was being done."""
        try:
            with kafka_errors_translated(doing):
                if self._admin is None:
                    admin_id = f"{self._client_id}-topic"
                    self._admin = connect(KafkaAdminClient, self._settings, client_id=admin_id)
                if self._consumer is None:
                    self._consumer = groupless_consumer(
                        self._settings, self._client_id, **self._arguments
                    )
                self._consumer.assign([self._tp])
                yield
        except BaseException:
            self.close()
            raise

    def topic_id(self) -> str | None:
        """Returns the topic's id; None where there is no such topic."""
        topic = described_topic(self._admin, self._tp.topic)
        return None if topic is None else str(topic["topic_id"])

    def end(self) -> int:
        """Returns the offset after the last record."""
        ends = self._consumer.end_offsets([self._tp], self._settings.kafka_timeout_ms)
        end: int = ends[self._tp]
        return end

    def first_since(self, since_ms: int) -> int | None:
        """Returns the offset of the first record at or after this time (ms, UTC), if there is
        one."""
        found = self._consumer.offsets_for_times({self._tp: max(0, since_ms)})[self._tp]
        return None if found is None else found.offset

    def records(self, start: int, end: int, at_once: int) -> Iterator[Any]:
        """Yields the records from offset `start` to before `end`, `at_once` of them taken from the
        client together; compaction may have left gaps, and what cannot be parsed is passed over.

        Raises Unavailable when none comes for PATIENCE_S.
        """
        self._consumer.seek(self._tp, start)
        silent_since = time.monotonic()
        while self._consumer.position(self._tp, self._settings.kafka_timeout_ms) < end:
            batch = self._consumer.poll(POLL_MS, max_records=at_once).get(self._tp, [])
            yield from (record for record in batch if record.offset < end and _is_whole(record))
            if batch:
                silent_since = time.monotonic()
            elif time.monotonic() - silent_since > PATIENCE_S:
                raise Unavailable("kafka", f"{self._tp.topic} sent nothing for {PATIENCE_S:g} s")

    def close(self) -> None:
        """Closes the clients. Never raises."""
        admin, self._admin = self._admin, None
        if admin is not None:
            with suppress(KafkaError, OSError):
                admin.close()
        consumer, self._consumer = self._consumer, None
        close_consumer(consumer)


def _is_whole(record: object) -> bool:
    return not isinstance(record, RawRecord) or record.fault is None
