"""What every Outbox does: it returns when all is acknowledged, and says so when it is not."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Protocol

import pytest
from kafka import KafkaConsumer, TopicPartition

from daemon.adapters.kafka_python.reader import read_topic
from daemon.adapters.kafka_python.topics import KafkaTopics
from daemon.adapters.memory import MemoryOutbox
from daemon.config import Settings
from daemon.errors import Unavailable
from daemon.turn.ports import Outbox
from daemon.wire.record import Message
from daemon.wire.topics import TopicSpec
from daemon.worker.wiring import kafka_clients
from tests.contracts.conftest import CLIENTS, NO_LIBRDKAFKA

MAX_BYTES = 20_000

Sent = tuple[bytes | None, bytes | None, tuple[tuple[str, bytes | None], ...]]


class Backend(Protocol):
    """One topic of one partition that takes records up to MAX_BYTES."""

    topic: str

    def open(self) -> Outbox: ...
    def sent(self) -> list[Sent]: ...


class MemoryBackend:
    topic = "mappings"

    def __init__(self) -> None:
        self._outbox = MemoryOutbox(MAX_BYTES)

    def open(self) -> Outbox:
        return self._outbox

    def sent(self) -> list[Sent]:
        return [(m.key, m.value, m.headers) for m in self._outbox.sent]


class KafkaBackend:
    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self.topic = settings.kafka_mappings_topic
        topics = KafkaTopics(settings)
        topics.create(TopicSpec(self.topic, 1, 1, {"max.message.bytes": str(MAX_BYTES)}, 0))
        topics.close()

    def open(self) -> Outbox:
        _, open_outbox = kafka_clients(self._settings)
        return open_outbox(self._settings, "test")

    def sent(self) -> list[Sent]:
        consumer = KafkaConsumer(bootstrap_servers=self._settings.kafka_bootstrap_servers)
        partition = TopicPartition(self.topic, 0)
        consumer.assign([partition])
        consumer.seek_to_beginning(partition)
        end, read = consumer.end_offsets([partition])[partition], list[Sent]()
        while consumer.position(partition) < end:
            for records in consumer.poll(500).values():
                read += [(r.key, r.value, tuple(r.headers)) for r in records]
        consumer.close()
        return read


@pytest.fixture(params=["memory", *CLIENTS])
def backend(request: pytest.FixtureRequest, kafka_settings: Callable[..., Settings]) -> Backend:
    if request.param == "memory":
        return MemoryBackend()
    return KafkaBackend(kafka_settings(request.param))


@pytest.fixture
def outbox(backend: Backend) -> Iterator[Outbox]:
    made = backend.open()
    yield made
    made.close()


def test_what_was_sent_is_there_as_it_was_and_in_order(backend: Backend, outbox: Outbox) -> None:
    messages = [
        Message(backend.topic, b"k", b"1", (("a", b"x"), ("a", b"\xff"))),
        Message(backend.topic, None, b"", ()),
        *(Message(backend.topic, b"k", b"%d" % number, ()) for number in range(200)),
    ]
    outbox.send(messages)
    assert backend.sent() == [(m.key, m.value, m.headers) for m in messages]


def test_nulls_and_nothings_stay_apart(backend: Backend, outbox: Outbox) -> None:
    headers = (("none", None), ("empty", b""), ("none", b"x"))
    messages = [
        Message(backend.topic, b"k", None, headers),
        Message(backend.topic, b"", b"", headers),
        Message(backend.topic, None, None, ()),
    ]
    outbox.send(messages)
    assert backend.sent() == [(m.key, m.value, m.headers) for m in messages]


def test_sending_nothing_is_nothing(backend: Backend, outbox: Outbox) -> None:
    outbox.send([])
    assert backend.sent() == []


def test_what_the_topic_cannot_take_is_unavailable_and_the_next_turn_can_send(
    backend: Backend, outbox: Outbox
) -> None:
    with pytest.raises(Unavailable) as refusal:
        outbox.send([Message(backend.topic, b"k", bytes(2 * MAX_BYTES), ())])
    assert refusal.value.service == "kafka"
    outbox.send([Message(backend.topic, b"k", b"good", ())])
    assert [value for _, value, _ in backend.sent()] == [b"good"]


def test_close_can_be_called_twice(outbox: Outbox) -> None:
    outbox.close()
    outbox.close()


@pytest.mark.services
@NO_LIBRDKAFKA
def test_a_key_goes_to_the_same_partition_with_either_client(
    kafka_settings: Callable[..., Settings],
) -> None:
    """Otherwise a change of the client would leave two mappings of a stream in the topic."""
    topic = kafka_settings().kafka_mappings_topic
    topics = KafkaTopics(kafka_settings())
    topics.create(TopicSpec(topic, 8, 1, {}, 0))
    topics.close()
    keys = [b"%d" % number for number in range(40)] + ["ключ".encode(), b""]
    for client in ("kafka-python", "librdkafka"):
        outbox = kafka_clients(kafka_settings(client))[1](kafka_settings(client), "test")
        outbox.send([Message(topic, key, client.encode(), ()) for key in keys])
        outbox.close()
    places: dict[bytes, set[int]] = {}
    for partition, record in read_topic(kafka_settings(), topic):
        places.setdefault(record.key or b"", set()).add(partition)
    assert {key: len(found) for key, found in places.items()} == dict.fromkeys(keys, 1)
