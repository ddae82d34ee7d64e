"""Which topic has the events topic's name, and how far its logs reach, by librdkafka's admin
client.

The consumer cannot say it: it does not tell a topic's id, and asks one partition after the other.
One thread calls; every call waits for the broker, for `kafka_timeout_ms` at most for each of its
three requests, which are sent at once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from typing import Any
from uuid import UUID

from confluent_kafka import (
    IsolationLevel,
    KafkaError,
    KafkaException,
    TopicCollection,
    TopicPartition,
    Uuid,
)
from confluent_kafka.admin import AdminClient, OffsetSpec  # type: ignore[attr-defined]  # its stubs

from daemon.adapters.librdkafka.client import connection_properties, librdkafka_errors_translated
from daemon.config import Settings
from daemon.errors import Unavailable
from daemon.turn.ports import Extent, TopicLogs


class LibrdkafkaLogs:
    """Answers `EventSource.logs` for one topic. Connects when it is first asked, and anew after a
    call that failed: librdkafka believes no leader whose epoch is smaller than one it has seen."""

    def __init__(self, settings: Settings, client_id: str) -> None:
        self._properties = connection_properties(settings, client_id)
        self._topic = settings.kafka_events_topic
        self._timeout_s = settings.kafka_timeout_ms / 1000
        self._admin: AdminClient | None = None

    def ask(self, partitions: Sequence[int]) -> TopicLogs:
        """See EventSource.logs."""
        try:
            return self._ask(partitions)
        except Exception:
            self.close()
            raise

    def _ask(self, partitions: Sequence[int]) -> TopicLogs:
        with librdkafka_errors_translated("ask for the events topic"):
            if self._admin is None:
                self._admin = AdminClient(self._properties)
            name, within = self._topic, self._timeout_s
            described = self._admin.describe_topics(TopicCollection([name]), request_timeout=within)
            first = self._offsets(partitions, OffsetSpec.earliest())  # type: ignore[no-untyped-call]
            end = self._offsets(partitions, OffsetSpec.latest())  # type: ignore[no-untyped-call]
            topic = self._described(described[name])
            begins, ends = self._results(first), self._results(end)
        extents = {p: Extent(begins[p], ends[p]) for p in partitions}
        return TopicLogs(_in_hex(topic.topic_id), len(topic.partitions), extents)

    def _described(self, asked: Future[Any]) -> Any:
        try:
            return asked.result(self._timeout_s + 1)
        except KafkaException as e:
            if e.args[0].code() != KafkaError.UNKNOWN_TOPIC_OR_PART:
                raise
            raise Unavailable("kafka", f"topic {self._topic!r} does not exist") from e

    def _offsets(
        self, partitions: Sequence[int], which: OffsetSpec
    ) -> Mapping[TopicPartition, Future[Any]]:
        if not partitions or self._admin is None:
            return {}
        return self._admin.list_offsets(
            {TopicPartition(self._topic, p): which for p in partitions},
            isolation_level=IsolationLevel.READ_UNCOMMITTED,
            request_timeout=self._timeout_s,
        )

    def _results(self, asked: Mapping[TopicPartition, Future[Any]]) -> dict[int, int]:
        return {tp.partition: f.result(self._timeout_s + 1).offset for tp, f in asked.items()}

    def close(self) -> None:
        """Forgets the connection, which librdkafka then closes. Never raises."""
        self._admin = None


def _in_hex(topic_id: Uuid) -> str:
    """Returns the id as kafka-python writes it: workers with either client share what is kept."""
    high = topic_id.get_most_significant_bits()  # type: ignore[attr-defined]  # its stubs are older
    low = topic_id.get_least_significant_bits()  # type: ignore[attr-defined]
    return str(UUID(int=(high % 2**64) << 64 | low % 2**64))
