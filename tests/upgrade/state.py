"""What a version of adaptd left in Kafka and Redis, as a file: recorded once, restored in tests.

Redis is kept as commands, which every Redis and Valkey reads. Kafka's topics are kept record by
record. Restoring makes new topics, so the id of the events topic, which Redis' keys and the notes
of commits name, is replaced by that of the new one, as after a move to another Kafka.
"""

from __future__ import annotations

from pathlib import Path

import msgspec
import redis
from kafka import KafkaAdminClient, KafkaProducer, TopicPartition
from kafka.structs import OffsetAndMetadata

from daemon.adapters.kafka_python.topics import coordinated
from tests.faults.lab import Entry, Installation

TOPICS = ("events", "mappings", "dead_letters", "meta_inits")


class KeptRecord(msgspec.Struct, frozen=True, array_like=True):
    """A record of one of TOPICS, in the order in which its partition has it."""

    topic: str
    partition: int
    key: bytes | None
    value: bytes | None
    headers: list[tuple[str, bytes]]
    timestamp_ms: int


class State(msgspec.Struct, frozen=True):
    """All that one version wrote, and what the events alone say must be in the windows."""

    adaptd: str
    """The version that wrote it."""
    name: str
    partitions: int
    topic_id: str
    theta: bytes
    records: list[KeptRecord]
    commands: list[list[bytes]]
    offsets: dict[int, tuple[int, str]]
    """What the group has committed in each partition, and the note beside it."""
    entries: list[tuple[int, str, str, bytes, bytes, int]]
    """The pairs of all good events: partition, stream, entry id, x, y, time (ms)."""


def read_state(path: Path) -> State:
    return msgspec.msgpack.decode(path.read_bytes(), type=State)


def write_state(path: Path, state: State) -> None:
    path.write_bytes(msgspec.msgpack.encode(state))


# ---- recording


def recorded(lab: Installation, adaptd: str) -> State:
    """Returns what an installation, whose workers have stopped, holds now."""
    places = lab.truth.entries.items()
    return State(
        adaptd=adaptd,
        name=lab.name,
        partitions=lab.partitions,
        topic_id=events_topic_id(lab),
        theta=lab.theta.read_bytes(),
        records=[record for topic in TOPICS for record in _records(lab, topic)],
        commands=_commands(lab),
        offsets=_offsets(lab),
        entries=[(p, stream, *entry) for (p, stream), entries in places for entry in entries],
    )


def topic_name(lab: Installation, topic: str) -> str:
    return str(getattr(lab.settings, f"kafka_{topic}_topic"))


def events_topic_id(lab: Installation) -> str:
    with KafkaAdminClient(bootstrap_servers=lab.kafka) as admin:
        (topic,) = admin.describe_topics([topic_name(lab, "events")])
        return str(topic["topic_id"])


def _records(lab: Installation, topic: str) -> list[KeptRecord]:
    return [
        KeptRecord(topic, r.partition, r.key, r.value, list(r.headers), r.timestamp)
        for r in lab.records(topic_name(lab, topic))
    ]


def _commands(lab: Installation) -> list[list[bytes]]:
    """Returns the commands that make every key again."""
    commands: list[list[bytes]] = []
    with redis.Redis.from_url(lab.redis_url) as client:
        for key in sorted(client.scan_iter(match=f"{lab.name}:*", count=1000)):
            if client.type(key) == b"stream":
                for entry_id, fields in client.xrange(key):
                    words = [word for field in fields.items() for word in field]
                    commands.append([b"XADD", key, entry_id, *words])
            else:
                commands.append([b"SET", key, client.get(key)])
            if (left_ms := client.pttl(key)) > 0:
                commands.append([b"PEXPIRE", key, b"%d" % left_ms])
    return commands


def _offsets(lab: Installation) -> dict[int, tuple[int, str]]:
    with KafkaAdminClient(bootstrap_servers=lab.kafka) as admin:
        marks = admin.list_group_offsets(lab.name)[lab.name]
    return {tp.partition: (mark.offset, mark.metadata) for tp, mark in marks.items()}


# ---- restoring


def restore(state: State, lab: Installation) -> None:
    """Puts everything into an installation of the same name, whose topics are empty."""
    ours = events_topic_id(lab)
    assert len(ours) == len(state.topic_id)
    _produce(state, lab)
    before, after = state.topic_id.encode(), ours.encode()
    with redis.Redis.from_url(lab.redis_url) as client:
        for command in state.commands:
            client.execute_command(*(word.replace(before, after) for word in command))
    topic = topic_name(lab, "events")
    marks = {
        TopicPartition(topic, p): OffsetAndMetadata(at, note.replace(state.topic_id, ours), -1)
        for p, (at, note) in state.offsets.items()
    }
    with KafkaAdminClient(bootstrap_servers=lab.kafka) as admin:
        coordinated(lambda: admin.alter_group_offsets(lab.name, marks))
    for partition, stream, entry_id, x, y, time_ms in state.entries:
        entries = lab.truth.entries.setdefault((partition, stream), [])
        entries.append(Entry(entry_id, x, y, time_ms))


def _produce(state: State, lab: Installation) -> None:
    producer = KafkaProducer(bootstrap_servers=lab.kafka, acks="all")
    for r in state.records:
        name = topic_name(lab, r.topic)
        producer.send(name, r.value, r.key, r.headers, r.partition, r.timestamp_ms)
    producer.flush()
    producer.close()
