"""What the ports know of logs: topics by their id, windows by their log, notes beside offsets."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing

import pytest
from kafka import KafkaAdminClient, KafkaProducer

from daemon.adapters.kafka_python.group_offsets import GroupOffsets
from daemon.adapters.kafka_python.topics import KafkaTopics
from daemon.config import Settings
from daemon.errors import Superseded, Unavailable
from daemon.turn.ports import Bounds, Extent, Home, LastRead
from daemon.wire.topics import TopicSpec
from tests.contracts.conftest import NO_LIBRDKAFKA
from tests.contracts.test_event_source import Backend as Topic
from tests.contracts.test_event_source import KafkaBackend, assigned
from tests.contracts.test_event_source import backend as topic  # noqa: F401 - a fixture
from tests.contracts.test_window_store import (
    Backend,
    RedisBackend,
    appends,
    backend,  # noqa: F401 - a fixture
    offsets,
    redis_backend,  # noqa: F401 - a fixture
)


def test_a_topic_of_another_id_has_windows_of_its_own(backend: Backend) -> None:  # noqa: F811
    store = backend.open()
    assert store.use_topic("topic1", 2) == 2
    epoch = store.claim(0, 1).epoch
    store.append(0, epoch, 5, appends("s", 4))
    assert store.use_topic("topic1", 3) == 2  # of which one came later
    assert store.use_topic("topic2", 2) == 0
    claim = store.claim(0, 2)
    assert (claim.position, claim.known) == (None, False)
    assert offsets(store, "s") == []


def test_what_came_before_a_new_beginning_is_left_behind(backend: Backend) -> None:  # noqa: F811
    store = backend.open()
    epoch = store.claim(0, 1).epoch
    store.append(0, epoch, 8, appends("s", 5, 7))
    assert store.begin_anew(0, epoch) == 1
    assert offsets(store, "s") == []
    assert not store.append(0, epoch, 3, appends("s", 2)).replays
    other = backend.open()
    claim = other.claim(0, 1)
    assert (claim.generation, claim.position, claim.known) == (1, 3, True)
    assert offsets(other, "s") == [2]
    assert other.streams([0]) == {0: ["s"]}
    with pytest.raises(Superseded):
        store.begin_anew(0, epoch)
    assert other.begin_anew(0, claim.epoch) == 2


def test_the_last_read_is_remembered_beside_the_topics(backend: Backend) -> None:  # noqa: F811
    store = backend.open()
    assert store.claim(0, 1).last_read is None
    store.remember({0: LastRead("topic1", 41, 7), 1: LastRead("topic1", -1, 0)})
    store.remember({})
    store.use_topic("topic2", 2)
    assert store.claim(0, 1).last_read == ("topic1", 41, 7)


def test_homes_are_kept_by_stream(backend: Backend) -> None:  # noqa: F811
    store = backend.open()
    store.keep_homes({"a b": Home(3, 1_000), "c": Home(0, 0)})
    store.keep_homes({"c": Home(1, 5)})
    assert store.homes(["a b", "c", "unknown"]) == {"a b": Home(3, 1_000), "c": Home(1, 5)}
    assert store.homes([]) == {}


def test_homes_expire_as_windows_do(redis_backend: RedisBackend) -> None:  # noqa: F811
    redis_backend.open(ttl_s=100).keep_homes({"a": Home(0, 1)})
    (key,) = redis_backend.all_keys()
    assert 0 < redis_backend.ttl(key) <= 100


def test_the_logs_of_a_topic_and_the_notes_beside_its_offsets(topic: Topic) -> None:  # noqa: F811
    for number in range(3):
        topic.produce(1, b"k", b"%d" % number)
    source = topic.join()
    assigned(source)
    logs = source.logs([1, 0])
    assert logs.topic_id
    assert (logs.partitions, logs.extents) == (2, {0: Extent(0, 0), 1: Extent(0, 3)})
    assert source.logs([]).topic_id == logs.topic_id
    assert source.commit({0: 0, 1: 2}, {1: "a note"}).result()
    assert source.bounds([0, 1]) == {0: Bounds(0, 0, 0), 1: Bounds(0, 3, 2, "a note")}
    assert source.commit({1: 3}).result()
    assert source.bounds([1])[1].note == ""


@pytest.mark.services
def test_both_clients_write_ids_and_notes_alike_and_say_when_there_is_no_topic(
    kafka_settings: Callable[..., Settings],
) -> None:
    ids, real, notes = set(), [], []
    settings = kafka_settings()
    for client in ("kafka-python", "librdkafka"):
        backend = KafkaBackend(settings.model_copy(update={"kafka_client": client}))  # noqa: F811
        real.append(backend)
        source = backend.join()
        ids.add(source.logs([0]).topic_id)
        if client == "librdkafka":
            real[0]._members[0].close()
            assigned(source)
            assert source.commit({0: 0}, {0: "a note"}).result()
        with closing(GroupOffsets(settings)) as group:
            notes.append(group.read()[0].note)
    assert len(ids) == 1
    assert notes == ["", "a note"]
    with KafkaAdminClient(bootstrap_servers=settings.kafka_bootstrap_servers) as admin:
        admin.delete_topics([settings.kafka_events_topic])
    for backend in real:
        with pytest.raises(Unavailable, match="does not exist"):
            backend._members[0].logs([])
        backend.close()


@pytest.mark.services
@NO_LIBRDKAFKA
def test_the_end_of_a_group_is_the_one_that_workers_read_up_to(
    kafka_settings: Callable[..., Settings],
) -> None:
    """Whoever moves the group to the end must not skip a transaction that is open."""
    from confluent_kafka import Producer

    settings = kafka_settings()
    name, kafka = settings.kafka_events_topic, settings.kafka_bootstrap_servers
    with closing(KafkaTopics(settings)) as topics:
        topics.create(TopicSpec(name, 1, 1, {}, 0))
    with closing(KafkaProducer(bootstrap_servers=kafka)) as producer:
        for _ in range(3):
            producer.send(name, b"v", b"k").get(10)
    transaction = Producer({"bootstrap.servers": kafka, "transactional.id": name})
    transaction.init_transactions(20)
    transaction.begin_transaction()
    for _ in range(2):
        transaction.produce(name, b"v", b"k")
    transaction.flush(20)
    for level, end in (("read_committed", 3), ("read_uncommitted", 5)):
        chosen = settings.model_copy(update={"kafka_isolation_level": level})
        with closing(GroupOffsets(chosen)) as group:
            assert group.read()[0].end == end
    transaction.abort_transaction(20)
