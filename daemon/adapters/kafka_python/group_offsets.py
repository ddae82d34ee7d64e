"""The offsets that a consumer group has committed: reading and moving them from outside the group,
by kafka-python's admin client. One thread calls; every call waits for the broker."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress

from kafka import TopicPartition
from kafka.admin import KafkaAdminClient, OffsetSpec
from kafka.errors import KafkaError, NoError
from kafka.structs import OffsetAndMetadata

from daemon.adapters.kafka_python.client import (
    connect,
    described_topic,
    kafka_errors_translated,
    note_of,
)
from daemon.adapters.kafka_python.topics import coordinated
from daemon.config import Settings
from daemon.errors import Misconfigured, Unavailable
from daemon.turn.ports import Bounds


class GroupOffsets:
    """The offsets of the configured group in the events topic. Every method but `close` raises
    Unavailable when the broker does not answer, Misconfigured when it refuses."""

    def __init__(self, settings: Settings) -> None:
        self._group, self._topic = settings.kafka_group_id, settings.kafka_events_topic
        self._isolation_level = settings.kafka_isolation_level
        self._admin = connect(KafkaAdminClient, settings)

    def read(self) -> dict[int, Bounds]:
        """Returns the bounds of every partition, each with the end that a worker reads up to.
        Raises Misconfigured when there is no topic."""
        with kafka_errors_translated("read offsets"):
            topic = described_topic(self._admin, self._topic)
            if topic is None:
                raise Misconfigured(f"topic {self._topic!r} does not exist")
            partitions = range(len(topic["partitions"]))
            tps = [TopicPartition(self._topic, p) for p in partitions]
            first = self._admin.list_partition_offsets(dict.fromkeys(tps, OffsetSpec.EARLIEST))
            end = self._admin.list_partition_offsets(
                dict.fromkeys(tps, OffsetSpec.LATEST), self._isolation_level
            )
            asked = {self._group: tps}
            marks = coordinated(lambda: self._admin.list_group_offsets(asked)[self._group])
        found = {}
        for tp in tps:
            mark = marks.get(tp)
            known = mark is not None and mark.offset >= 0
            committed, note = (mark.offset, note_of(mark)) if known else (None, "")
            found[tp.partition] = Bounds(first[tp].offset, end[tp].offset, committed, note)
        return found

    def first_at(self, since_ms: int, partitions: Mapping[int, Bounds]) -> dict[int, int]:
        """Returns the offset of each partition's first record at or after this time (ms, UTC): its
        end offset if there is none."""
        tps = {TopicPartition(self._topic, p): since_ms for p in partitions}
        with kafka_errors_translated("look for the time"):
            found = self._admin.list_partition_offsets(tps)
        return {
            tp.partition: at.offset if at.offset >= 0 else partitions[tp.partition].end
            for tp, at in found.items()
        }

    def members(self) -> int:
        """Returns how many members the group has now."""
        with kafka_errors_translated("look for members"):
            asked = [self._group]
            described = coordinated(lambda: self._admin.describe_groups(asked)[self._group])
        return len(described["members"])

    def move(self, offsets: Mapping[int, int], note: str) -> None:
        """Commits these offsets for the group. Raises Misconfigured when Kafka refuses them, as it
        does while the group has members."""
        marks = {
            TopicPartition(self._topic, p): OffsetAndMetadata(offset, note, -1)
            for p, offset in offsets.items()
        }
        with kafka_errors_translated("move offsets"):
            answers = self._admin.alter_group_offsets(self._group, marks)
        for tp, error in answers.items():
            if error is not NoError:
                raise Misconfigured(
                    f"kafka: move offsets: partition {tp.partition}: {error.__name__}"
                )
        if answers.keys() != marks.keys():
            raise Unavailable("kafka", "move offsets: not every partition was answered")

    def close(self) -> None:
        """Closes the connection. Never raises."""
        with suppress(KafkaError, OSError):
            self._admin.close()
