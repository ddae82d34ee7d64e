"""The topic of mappings, as a consumer in no group reads it. One thread calls; every wait is
bounded."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any, NamedTuple

from kafka import KafkaAdminClient, KafkaConsumer, TopicPartition
from kafka.errors import KafkaError

from daemon.adapters.kafka_limits import FETCH_BYTES, METADATA_MAX_AGE_MS
from daemon.adapters.kafka_python.client import connect, described_topic, kafka_errors_translated
from daemon.adapters.kafka_python.groupless import close_consumer, groupless_consumer
from daemon.client.newest import MappingRecord
from daemon.config import Settings
from daemon.errors import Misconfigured

POLL_RECORDS = 1_000


class LogRange(NamedTuple):
    """What a partition holds: from offset `begin` to before `end`."""

    begin: int
    end: int


class MappingsTopic:
    """Reads every partition of the topic of mappings from where it is told to."""

    def __init__(self, settings: Settings, client_id: str) -> None:
        """Connects. Raises Unavailable, Misconfigured, Refused."""
        self._settings, self._topic = settings, settings.kafka_mappings_topic
        self._admin = connect(KafkaAdminClient, settings, client_id=f"{client_id}-topic")
        try:
            self._consumer: KafkaConsumer = groupless_consumer(
                settings,
                client_id,
                max_partition_fetch_bytes=FETCH_BYTES,
                fetch_max_bytes=FETCH_BYTES,
                metadata_max_age_ms=METADATA_MAX_AGE_MS,
            )
        except BaseException:
            self._close_admin()
            raise
        self.positions: dict[int, int] = {}
        """The offset of the next record, by partition."""

    def describe(self) -> tuple[str, Mapping[int, LogRange]]:
        """Returns the topic's id and what its partitions hold. Raises Unavailable, Refused, and
        Misconfigured where there is no such topic."""
        with kafka_errors_translated(f"read {self._topic}"):
            topic = described_topic(self._admin, self._topic)
            if topic is None:
                raise Misconfigured(f"topic {self._topic!r} does not exist")
            partitions = [
                TopicPartition(self._topic, found["partition_index"])
                for found in topic["partitions"]
            ]
            timeout_ms = self._settings.kafka_timeout_ms
            begins = self._consumer.beginning_offsets(partitions, timeout_ms)
            ends = self._consumer.end_offsets(partitions, timeout_ms)
        ranges = {tp.partition: LogRange(begins[tp], ends[tp]) for tp in partitions}
        return str(topic["topic_id"]), ranges

    def seek(self, positions: Mapping[int, int]) -> None:
        """Reads on from these offsets, of these partitions alone."""
        partitions = {TopicPartition(self._topic, p): at for p, at in positions.items()}
        if self._consumer.assignment() != set(partitions):
            self._consumer.assign(list(partitions))
        for partition, at in partitions.items():
            self._consumer.seek(partition, at)
        self.positions = dict(positions)

    def poll(self, wait_s: float) -> Iterator[MappingRecord]:
        """Yields what came within the time, in order in each partition; `positions` moves on with
        it, and over what brings no record. Raises Unavailable, Refused."""
        with kafka_errors_translated(f"read {self._topic}"):
            polled: Mapping[Any, list[Any]] = self._consumer.poll(
                int(1000 * wait_s), max_records=POLL_RECORDS
            )
        for tp, records in polled.items():
            for record in records:
                yield record
                last = getattr(record, "last_offset", None)
                self.positions[tp.partition] = (record.offset if last is None else last) + 1
        with kafka_errors_translated(f"read {self._topic}"):
            for partition in self.positions:
                at = self._consumer.position(
                    TopicPartition(self._topic, partition), self._settings.kafka_timeout_ms
                )
                self.positions[partition] = max(self.positions[partition], at or 0)

    def close(self) -> None:
        """Closes the connections. Never raises."""
        close_consumer(self._consumer)
        self._close_admin()

    def _close_admin(self) -> None:
        with suppress(KafkaError, OSError):
            self._admin.close()
