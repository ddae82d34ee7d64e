"""A benchmark's topics: made, filled, read back, deleted."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer, TopicPartition

from benchmarks.worker.errors import BenchFailed
from benchmarks.worker.freshness import Mapped, Place, Sent
from benchmarks.worker.workload import Made, Workload
from daemon.adapters.kafka_python.topics import KafkaTopics
from daemon.config import Settings
from daemon.wire.adapted_mapping import HEADER_PREFIX
from daemon.wire.topics import specs

READ_BYTES = 64 * 2**20
FLUSH_S = 60.0

Offsets = dict[int, int]


@contextmanager
def made_topics(settings: Settings, mapping_bytes: int, names: Collection[str]) -> Iterator[None]:
    """Those of the settings' topics, deleted afterwards.

    The broker stamps mappings when it appends them: a worker's own clock readings, taken before
    it sends, would leave out the sending.
    """
    topics = KafkaTopics(settings)
    made = [spec for spec in specs(settings, mapping_bytes) if spec.name in names]
    try:
        for spec in made:
            config = {**spec.config, "file.delete.delay.ms": "1000"}
            if spec.name == settings.kafka_mappings_topic:
                config["message.timestamp.type"] = "LogAppendTime"
            topics.create(replace(spec, config=config))
        yield
    finally:
        topics.close()
        with KafkaAdminClient(bootstrap_servers=settings.kafka_bootstrap_servers) as admin:
            admin.delete_topics([spec.name for spec in made])


def producer(servers: str) -> KafkaProducer:
    """As quick as kafka-python gets without waiting long."""
    return KafkaProducer(
        bootstrap_servers=servers,
        metrics_enabled=False,
        acks="all",
        batch_size=256 * 1024,
        linger_ms=5,
    )


def prefill(settings: Settings, workload: Workload, events: int) -> None:
    """Put the first `events` events into the topic."""
    sender = producer(settings.kafka_bootstrap_servers)
    try:
        for event in workload.events(0, events):
            send(sender, settings.kafka_events_topic, event)
        sender.flush(FLUSH_S)
    finally:
        sender.close(FLUSH_S)


def send(sender: KafkaProducer, topic: str, event: Made, timestamp_ms: int | None = None) -> Any:
    """Hand one event over; a future."""
    return sender.send(
        topic,
        value=event.value,
        key=event.key,
        partition=event.partition,
        timestamp_ms=timestamp_ms,
    )


class Reader:
    """Looks at a run's topics and its group from outside."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._group_consumer = self._consumer(group_id=settings.kafka_group_id)

    def _consumer(self, **more: Any) -> KafkaConsumer:
        return KafkaConsumer(
            bootstrap_servers=self._settings.kafka_bootstrap_servers,
            metrics_enabled=False,
            enable_auto_commit=False,
            fetch_max_bytes=READ_BYTES,
            max_partition_fetch_bytes=READ_BYTES,
            **more,
        )

    def close(self) -> None:
        """Let go of the connection."""
        self._group_consumer.close()

    def ends(self, topic: str) -> Offsets:
        """The offset after the last record, by partition."""
        offsets = self._group_consumer.end_offsets(self._partitions(topic))
        return {tp.partition: offset for tp, offset in offsets.items()}

    def count(self, topic: str) -> int:
        """Records that were written to it."""
        return sum(self.ends(topic).values())

    def everything_committed(self) -> bool:
        """Whether the group has committed every event that lies in the topic."""
        topic = self._settings.kafka_events_topic
        ends = self.ends(topic)
        committed = {p: self._group_consumer.committed(TopicPartition(topic, p)) for p in ends}
        return all((committed[p] or 0) == end for p, end in ends.items())

    def sent(self, since: Offsets) -> dict[Place, Sent]:
        """The events from these offsets on."""
        return {
            Place(record.partition, record.offset): Sent(record.key.decode(), record.timestamp)
            for record in self._records(self._settings.kafka_events_topic, since)
        }

    def mapped(self) -> list[Mapped]:
        """All records of the mappings topic, each stream's in order."""
        return [_mapped(r) for r in self._records(self._settings.kafka_mappings_topic, {})]

    def newest_mappings(self, per_partition: int) -> list[Any]:
        """The records at the mappings topic's end."""
        topic = self._settings.kafka_mappings_topic
        since = {p: max(0, end - per_partition) for p, end in self.ends(topic).items()}
        return list(self._records(topic, since))

    def _records(self, topic: str, since: Offsets) -> Iterator[Any]:
        consumer = self._consumer(check_crcs=False)
        try:
            ends = self.ends(topic)
            left = {p for p, end in ends.items() if end > since.get(p, 0)}
            consumer.assign([TopicPartition(topic, p) for p in left])
            for p in left:
                consumer.seek(TopicPartition(topic, p), since.get(p, 0))
            while left:
                batches = consumer.poll(FLUSH_S * 1000, 10_000)
                if not batches:
                    raise BenchFailed(f"cannot read {topic} to its end")
                for records in batches.values():
                    yield from records
                left -= {p for p in left if consumer.position(TopicPartition(topic, p)) >= ends[p]}
        finally:
            consumer.close()

    def _partitions(self, topic: str) -> list[TopicPartition]:
        found = self._group_consumer.partitions_for_topic(topic) or set()
        return [TopicPartition(topic, p) for p in sorted(found)]


def place_of(record: Any) -> Place:
    """The newest event that a mapping reflects."""
    headers = dict(record.headers)
    partition = int(headers[HEADER_PREFIX + "partition"])
    return Place(partition, int(headers[HEADER_PREFIX + "version"]))


def _mapped(record: Any) -> Mapped:
    return Mapped(record.key.decode(), place_of(record), record.timestamp)
