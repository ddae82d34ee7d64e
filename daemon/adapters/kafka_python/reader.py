"""Reading what a topic holds now, by kafka-python and without a consumer group: for `adaptd record`
and for tests. One thread calls; every wait is bounded."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing

from kafka import KafkaAdminClient, KafkaConsumer, TopicPartition

from daemon.adapters.kafka_python.client import connect, described_topic, kafka_errors_translated
from daemon.adapters.kafka_python.groupless import close_consumer, groupless_consumer
from daemon.config import Settings
from daemon.errors import Misconfigured, Unavailable
from daemon.wire.record import Record

POLL_MS = 500
MAX_RECORDS = 500
SILENCE_S = 60.0


def read_topic(
    settings: Settings,
    topic: str,
    since_ms: int | None = None,
    on_extent: Callable[[int], None] = lambda offsets: None,
) -> Iterator[tuple[int, Record]]:
    """Yields (partition, record), by offset within a partition: from the topic's beginning, or from
    the first record at or after `since_ms` (ms, UTC), to its end as it was at the start. Records
    that retention removes before they are read are left out. `on_extent` is told, at the start, how
    many offsets there are: no fewer than records.

    Raises Unavailable when the broker does not answer or sends nothing for SILENCE_S, Misconfigured
    when the topic does not exist, and Refused when this user may not read it.
    """
    consumer = groupless_consumer(settings, "adaptd-reader")
    try:
        with kafka_errors_translated(f"read {topic}"):
            _require_topic(settings, topic)
            starts, ends = _assign(consumer, topic, since_ms)
        on_extent(sum(end - starts[tp] for tp, end in ends.items()))
        yield from _until(consumer, topic, ends)
    finally:
        close_consumer(consumer)


def _require_topic(settings: Settings, topic: str) -> None:
    with closing(connect(KafkaAdminClient, settings)) as admin:
        if described_topic(admin, topic) is None:
            raise Misconfigured(f"topic {topic!r} does not exist; adaptd topics create makes it")


def _assign(
    consumer: KafkaConsumer, topic: str, since_ms: int | None
) -> tuple[dict[TopicPartition, int], dict[TopicPartition, int]]:
    """Assigns the topic's partitions and seeks; returns all starts, and the end of each partition
    that is to be read."""
    partitions = [TopicPartition(topic, p) for p in consumer.partitions_for_topic(topic) or ()]
    consumer.assign(partitions)
    ends = consumer.end_offsets(partitions)
    starts = consumer.beginning_offsets(partitions)
    if since_ms is not None:
        found = consumer.offsets_for_times(dict.fromkeys(partitions, since_ms))
        starts = {tp: ends[tp] if at is None else at.offset for tp, at in found.items()}
    for tp, start in starts.items():
        consumer.seek(tp, start)
    return starts, {tp: end for tp, end in ends.items() if starts[tp] < end}


def _until(
    consumer: KafkaConsumer, topic: str, ends: Mapping[TopicPartition, int]
) -> Iterator[tuple[int, Record]]:
    left, silent_since = dict(ends), time.monotonic()
    before: dict[TopicPartition, int] = {}
    while left:
        with kafka_errors_translated(f"read {topic}"):
            polled = consumer.poll(POLL_MS, max_records=MAX_RECORDS)
            at = {tp: consumer.position(tp) for tp in left}
        left = {tp: end for tp, end in left.items() if at[tp] < end}
        moved, before = at != before, at  # also over what brings no record
        if polled or moved:
            silent_since = time.monotonic()
        elif time.monotonic() - silent_since > SILENCE_S:
            raise Unavailable("kafka", f"read {topic}: no records for {SILENCE_S:g} s")
        for tp, records in polled.items():
            end = ends.get(tp, 0)
            yield from ((tp.partition, record) for record in records if record.offset < end)
