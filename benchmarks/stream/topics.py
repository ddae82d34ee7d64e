"""The topics of a run: made, filled, read back, deleted."""

from collections.abc import Collection, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from typing import Any, NamedTuple

from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer, TopicPartition

from benchmarks.output import NoFigures
from benchmarks.stream.workload import Made, Workload
from daemon.adapters.kafka_python.topics import KafkaTopics
from daemon.config import Settings
from daemon.wire.adapted_mapping import HEADER_PREFIX
from daemon.wire.topics import specs

READ_BYTES = 64 * 2**20
FLUSH_S = 60.0

Offsets = dict[int, int]


class Place(NamedTuple):
    """Where an event lies."""

    partition: int
    offset: int


@contextmanager
def made_topics(settings: Settings, mapping_bytes: int, names: Collection[str]) -> Iterator[None]:
    """Makes those of the settings' topics, and deletes them afterwards.

    The broker stamps mappings when it appends them: a worker's own clock readings, taken before
    it sends, would leave out the sending."""
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


@contextmanager
def producer(servers: str) -> Iterator[KafkaProducer]:
    """Gives a producer as quick as kafka-python gets without long waits; flushes it at the end."""
    sender = KafkaProducer(
        bootstrap_servers=servers,
        metrics_enabled=False,
        acks="all",
        batch_size=256 * 1024,
        linger_ms=5,
    )
    try:
        yield sender
        sender.flush(FLUSH_S)
    finally:
        sender.close(FLUSH_S)


def prefill(settings: Settings, workload: Workload, events: int) -> None:
    """Puts the first `events` events into the topic."""
    with producer(settings.kafka_bootstrap_servers) as sender:
        for event in workload.events(0, events):
            send(sender, settings.kafka_events_topic, event)


def send(sender: KafkaProducer, topic: str, event: Made, timestamp_ms: int | None = None) -> None:
    """Hands one event to the producer, to its own partition."""
    partition, key, value = event
    sender.send(topic, value=value, key=key, partition=partition, timestamp_ms=timestamp_ms)


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
        """Closes the connection."""
        self._group_consumer.close()

    def ends(self, topic: str) -> Offsets:
        """Returns the offset after the last record, by partition."""
        found = self._group_consumer.partitions_for_topic(topic) or set()
        offsets = self._group_consumer.end_offsets([TopicPartition(topic, p) for p in found])
        return {tp.partition: offset for tp, offset in sorted(offsets.items())}

    def count(self, topic: str) -> int:
        """Returns how many records were written to the topic."""
        return sum(self.ends(topic).values())

    def everything_committed(self) -> bool:
        """Returns whether the group has committed every event that lies in the topic."""
        topic = self._settings.kafka_events_topic
        ends = self.ends(topic)
        committed = {p: self._group_consumer.committed(TopicPartition(topic, p)) for p in ends}
        return all((committed[p] or 0) == end for p, end in ends.items())

    def records(self, topic: str, since: Offsets) -> Iterator[Any]:
        """Yields the topic's records from these offsets on, or from 0; each partition's in order.

        Raises NoFigures when they cannot be read to the end."""
        ends = self.ends(topic)
        left = {TopicPartition(topic, p) for p, end in ends.items() if end > since.get(p, 0)}
        with closing(self._consumer(check_crcs=False)) as consumer:
            consumer.assign(list(left))
            for tp in left:
                consumer.seek(tp, since.get(tp.partition, 0))
            while left:
                batches = consumer.poll(FLUSH_S * 1000, 10_000)
                if not batches:
                    raise NoFigures(f"cannot read {topic} to its end")
                for records in batches.values():
                    yield from records
                left -= {tp for tp in left if consumer.position(tp) >= ends[tp.partition]}


def place_of(record: Any) -> Place:
    """Returns the newest event that a mapping reflects."""
    headers = dict(record.headers)
    partition, offset = (int(headers[HEADER_PREFIX + name]) for name in ("partition", "version"))
    return Place(partition, offset)
