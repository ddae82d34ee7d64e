"""Which topic has the events topic's name, and how far its logs reach, by kafka-python's admin
client.

The consumer cannot say it: it does not tell a topic's id, and its end offsets are those of the
isolation level that it reads with. One thread calls; every call waits for the broker.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from kafka import TopicPartition
from kafka.admin import KafkaAdminClient, OffsetSpec
from kafka.errors import KafkaError

from daemon.adapters.kafka_python.client import (
    connect,
    described_topic,
    kafka_errors_translated,
)
from daemon.config import Settings
from daemon.errors import Unavailable
from daemon.turn.ports import Extent, TopicLogs


class KafkaPythonLogs:
    """Answers `EventSource.logs` for one topic. Connects when it is first asked, and anew after a
    call that failed, so that brokers are found which have other addresses by now."""

    def __init__(self, settings: Settings, client_id: str) -> None:
        self._settings, self._client_id = settings, client_id
        self._topic = settings.kafka_events_topic
        self._admin: Any = None

    def ask(self, partitions: Sequence[int]) -> TopicLogs:
        """See EventSource.logs."""
        try:
            with kafka_errors_translated("ask for the events topic"):
                return self._ask([TopicPartition(self._topic, p) for p in partitions])
        except Exception:
            self.close()
            raise

    def _ask(self, tps: Sequence[TopicPartition]) -> TopicLogs:
        if self._admin is None:
            self._admin = connect(KafkaAdminClient, self._settings, client_id=self._client_id)
        topic = described_topic(self._admin, self._topic)
        if topic is None:
            raise Unavailable("kafka", f"topic {self._topic!r} does not exist")
        first = self._offsets(tps, OffsetSpec.EARLIEST)
        end = self._offsets(tps, OffsetSpec.LATEST)
        extents = {tp.partition: Extent(first[tp], end[tp]) for tp in tps}
        return TopicLogs(str(topic["topic_id"]), len(topic["partitions"]), extents)

    def _offsets(
        self, tps: Sequence[TopicPartition], which: OffsetSpec
    ) -> dict[TopicPartition, int]:
        if not tps:
            return {}
        timeout_ms = self._settings.kafka_timeout_ms
        found = self._admin.list_partition_offsets(dict.fromkeys(tps, which), timeout_ms=timeout_ms)
        return {tp: at.offset for tp, at in found.items()}

    def close(self) -> None:
        """Closes the connection. Never raises."""
        admin, self._admin = self._admin, None
        if admin is not None:
            with suppress(KafkaError, OSError):
                admin.close()
