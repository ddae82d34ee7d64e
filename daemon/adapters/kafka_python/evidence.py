"""The topic of evidence by kafka-python.

Theory of operation: the reader is a consumer in no group, on one partition, opened by the first
`read` and thrown away by the first error. It asks for the topic's id each time: where that is
another one, or the log ends before what was read, it begins anew. All calls block, and come from
the thread of whoever follows canaries, never from the loop's.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from kafka import KafkaAdminClient, TopicPartition
from kafka.errors import KafkaError

from daemon.adapters.kafka_python.client import (
    connect,
    described_topic,
    kafka_errors_translated,
)
from daemon.adapters.kafka_python.groupless import close_consumer, groupless_consumer
from daemon.adapters.kafka_python.topics import KafkaTopics
from daemon.canary.port import EvidenceRead
from daemon.config import Settings
from daemon.errors import Misconfigured, Unavailable
from daemon.wire.record import Record
from daemon.wire.topics import evidence_spec, evidence_topic_fault

POLL_MS = 500
MAX_RECORDS = 5_000
PATIENCE_S = 20.0
"""How long nothing may come while the topic's end is not reached."""


class KafkaPythonEvidence:
    """The EvidenceLog port on a KafkaConsumer. Connects when first asked."""

    def __init__(self, settings: Settings, client_id: str) -> None:
        self._settings, self._client_id = settings, client_id
        self._tp = TopicPartition(settings.kafka_evidence_topic, 0)
        self._consumer: Any = None
        self._admin: Any = None
        self._read_of: tuple[str, int] | None = None
        """The topic's id, and since when it is read."""
        self._next = 0

    def fault(self) -> str | None:
        """See EvidenceLog."""
        topics = KafkaTopics(self._settings)
        try:
            found = topics.describe([self._tp.topic])
        finally:
            topics.close()
        return evidence_topic_fault(evidence_spec(self._settings), found)

    def read(self, since_ms: int) -> EvidenceRead:
        """See EvidenceLog."""
        with self._reading() as consumer:
            topic = described_topic(self._admin, self._tp.topic)
            if topic is None:
                raise Misconfigured(f"topic {self._tp.topic!r} does not exist")
            consumer.assign([self._tp])
            timeout_ms = self._settings.kafka_timeout_ms
            end = consumer.end_offsets([self._tp], timeout_ms)[self._tp]
            read_of = (str(topic["topic_id"]), since_ms)
            begins = self._read_of != read_of or end < self._next
            if begins:
                found = consumer.offsets_for_times({self._tp: max(0, since_ms)})[self._tp]
                self._next = end if found is None else found.offset
            records = list(self._records(consumer, self._next, end))
            self._read_of, self._next = read_of, end
        return EvidenceRead(records, begins)

    def _records(self, consumer: Any, start: int, end: int) -> Iterator[Record]:
        consumer.seek(self._tp, start)
        silent_since = time.monotonic()
        while consumer.position(self._tp, self._settings.kafka_timeout_ms) < end:
            batch = consumer.poll(POLL_MS, max_records=MAX_RECORDS).get(self._tp, [])
            yield from (record for record in batch if record.offset < end)
            if batch:
                silent_since = time.monotonic()
            elif time.monotonic() - silent_since > PATIENCE_S:
                raise Unavailable("kafka", f"no evidence came for {PATIENCE_S:g} s")

    @contextmanager
    def _reading(self) -> Iterator[Any]:
        try:
            with kafka_errors_translated("read the evidence"):
                if self._consumer is None:
                    self._admin = connect(
                        KafkaAdminClient, self._settings, client_id=f"{self._client_id}-topic"
                    )
                    self._consumer = groupless_consumer(self._settings, self._client_id)
                yield self._consumer
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """See EvidenceLog."""
        self._read_of = None
        admin, self._admin = self._admin, None
        if admin is not None:
            with suppress(KafkaError, OSError):
                admin.close()
        consumer, self._consumer = self._consumer, None
        close_consumer(consumer)
