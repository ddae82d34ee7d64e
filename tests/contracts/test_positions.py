"""Where a source stands and how much is left, also where the log has what brings no record; and
which transactions it reads."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from typing import Any

import pytest
from kafka import KafkaAdminClient, KafkaProducer, TopicPartition

from daemon.adapters.kafka_python.reader import read_topic
from daemon.adapters.kafka_python.topics import KafkaTopics
from daemon.config import Settings
from daemon.turn.ports import Bounds, EventSource
from daemon.wire.topics import TopicSpec
from daemon.worker.wiring import kafka_clients
from tests.contracts.conftest import CLIENTS, NO_LIBRDKAFKA

PATIENCE_S = 40.0


@dataclass
class Log:
    """A topic of one partition, written to by hand, and one reader in a group of its own."""

    settings: Settings
    config: dict[str, str] = field(default_factory=dict)
    opened: ExitStack = field(default_factory=ExitStack)

    def __post_init__(self) -> None:
        self.tp = TopicPartition(self.settings.kafka_events_topic, 0)
        with closing(KafkaTopics(self.settings)) as topics:
            topics.create(TopicSpec(self.tp.topic, 1, 1, self.config, 0))

    def produce(self, *values: bytes, key: bytes = b"k") -> None:
        """Each in a batch of its own."""
        kafka = self.settings.kafka_bootstrap_servers
        with closing(KafkaProducer(bootstrap_servers=kafka)) as producer:
            for value in values:
                producer.send(self.tp.topic, value, key, partition=0).get(10)

    def begin(self, *values: bytes) -> Any:
        """An open transaction with these values. Returns its producer."""
        from confluent_kafka import Producer

        producer = Producer(
            {
                "bootstrap.servers": self.settings.kafka_bootstrap_servers,
                "transactional.id": f"{self.tp.topic}-{time.monotonic_ns()}",
            }
        )
        producer.init_transactions(20)
        producer.begin_transaction()
        for value in values:
            producer.produce(self.tp.topic, value, b"k", partition=0)
        producer.flush(20)
        return producer

    def commit(self, *values: bytes) -> None:
        self.begin(*values).commit_transaction(20)

    def abort(self, *values: bytes) -> None:
        self.begin(*values).abort_transaction(20)

    def delete_before(self, offset: int) -> None:
        with KafkaAdminClient(bootstrap_servers=self.settings.kafka_bootstrap_servers) as admin:
            admin.delete_records({self.tp: offset})

    def join(self, start: int) -> Reader:
        source = kafka_clients(self.settings)[0](self.settings, "member")
        self.opened.callback(source.close)
        until = time.monotonic() + PATIENCE_S
        while 0 not in source.poll(0.1, 100).assigned:
            assert time.monotonic() < until
        source.bounds([0])
        source.seek(0, start)
        return Reader(source, start)


@dataclass
class Reader:
    source: EventSource
    position: int
    values: list[bytes] = field(default_factory=list)

    def until(self, position: int, lag: int = 0) -> list[bytes]:
        """Polls until it stands there and has so much left. Returns the values since the last
        call."""
        until = time.monotonic() + PATIENCE_S
        found: list[bytes] = []
        while (self.position, self.source.lag().get(0)) != (position, lag):
            assert time.monotonic() < until, (self.position, self.source.lag(), found)
            polled = self.source.poll(0.1, 100)
            found += [record.value or b"" for record in polled.records.get(0, [])]
            self.position = polled.positions.get(0, self.position)
        return found


Open = Callable[..., Log]


@pytest.fixture
def open_log(kafka_settings: Callable[..., Settings]) -> Iterator[Open]:
    with ExitStack() as opened:

        def make(client: str, config: dict[str, str] | None = None, **chosen: str) -> Log:
            settings = kafka_settings(client).model_copy(update=chosen)
            return Log(settings, config or {}, opened)

        yield make


BOTH = pytest.mark.parametrize("client", CLIENTS)


@NO_LIBRDKAFKA
@BOTH
def test_markers_are_passed(open_log: Open, client: str) -> None:
    log = open_log(client)
    log.commit(b"a", b"b")
    reader = log.join(0)
    assert reader.until(3) == [b"a", b"b"]
    log.commit(b"c")
    assert reader.until(5) == [b"c"]
    assert reader.source.commit({0: 5}).result()
    assert reader.source.bounds([0])[0] == Bounds(0, 5, 5)


@NO_LIBRDKAFKA
@BOTH
def test_aborted_transactions_are_passed_and_not_read(open_log: Open, client: str) -> None:
    log = open_log(client)
    log.produce(b"a")
    log.abort(b"x", b"y")
    log.commit(b"b")
    reader = log.join(0)
    assert reader.until(6) == [b"a", b"b"]
    log.abort(b"z")
    assert reader.until(8) == []
    for start in range(8):
        reader.source.seek(0, start)
        reader.position = start
        wanted = [value for value, at in ((b"a", 0), (b"b", 4)) if at >= start]
        assert reader.until(8) == wanted


@NO_LIBRDKAFKA
@BOTH
def test_an_open_transaction_holds_back_what_lies_behind_it_only(
    open_log: Open, client: str
) -> None:
    log = open_log(client)
    log.produce(b"a")
    transaction = log.begin(b"x")
    log.produce(b"b")
    reader = log.join(0)
    assert reader.until(1) == [b"a"]
    assert reader.source.bounds([0])[0].end == 1
    transaction.commit_transaction(20)
    assert reader.until(4) == [b"x", b"b"]
    transaction = log.begin(b"y")
    log.produce(b"c")
    transaction.abort_transaction(20)
    assert reader.until(7) == [b"c"]


@NO_LIBRDKAFKA
@BOTH
def test_read_uncommitted_reads_them_all(open_log: Open, client: str) -> None:
    log = open_log(client, kafka_isolation_level="read_uncommitted")
    log.abort(b"x")
    log.commit(b"y")
    transaction = log.begin(b"z")
    reader = log.join(0)
    assert reader.until(5) == [b"x", b"y", b"z"]
    transaction.abort_transaction(20)
    assert reader.until(6) == []


@BOTH
def test_what_was_deleted_is_passed(open_log: Open, client: str) -> None:
    log = open_log(client)
    log.produce(*[b"%d" % number for number in range(6)])
    log.delete_before(4)
    reader = log.join(1)
    assert reader.until(6) == [b"4", b"5"]
    log.produce(b"6")
    assert reader.until(7) == [b"6"]
    log.delete_before(7)
    reader.source.seek(0, 2)
    assert reader.until(7) == []


@BOTH
def test_gaps_of_compaction_are_passed(open_log: Open, client: str) -> None:
    compacting = {
        "cleanup.policy": "compact",
        "segment.ms": "100",
        "min.cleanable.dirty.ratio": "0.0",
    }
    log = open_log(client, compacting)
    log.produce(*[b"old-%d" % number for number in range(5)], key=b"a")
    log.produce(b"b", key=b"b")
    log.produce(b"new", key=b"a")
    time.sleep(0.3)
    log.produce(b"c", key=b"c")  # begins a segment: what lies before is compacted
    reader = log.join(0)
    until = time.monotonic() + PATIENCE_S
    while True:
        reader.source.seek(0, 0)
        reader.position = 0
        found = reader.until(8)
        if len(found) == 3:
            break
        assert time.monotonic() < until
        time.sleep(0.5)
    assert found == [b"b", b"new", b"c"]
    reader.source.seek(0, 2)
    reader.position = 2
    assert reader.until(8) == [b"b", b"new", b"c"]


@BOTH
def test_the_lag_is_exact_while_much_is_left(open_log: Open, client: str) -> None:
    log = open_log(client)
    kafka = log.settings.kafka_bootstrap_servers
    with closing(KafkaProducer(bootstrap_servers=kafka, linger_ms=5)) as producer:
        for _ in range(20_000):
            producer.send(log.tp.topic, bytes(200), partition=0)
    reader = log.join(0)
    read = 0
    while read < 20_000:
        polled = reader.source.poll(0.1, 1_000)
        read += len(polled.records.get(0, []))
        assert reader.source.lag() == {0: 20_000 - read}


@pytest.mark.services
@NO_LIBRDKAFKA
@pytest.mark.parametrize(
    ("level", "values"),
    [("read_committed", [b"a", b"b"]), ("read_uncommitted", [b"a", b"x", b"b", b"z"])],
)
def test_a_recording_reads_the_same_transactions(
    open_log: Open, level: str, values: list[bytes]
) -> None:
    log = open_log("kafka-python", kafka_isolation_level=level)
    log.produce(b"a")
    log.abort(b"x")
    log.commit(b"b")
    transaction = log.begin(b"z")
    read = [record.value for _, record in read_topic(log.settings, log.tp.topic)]
    assert read == values
    transaction.abort_transaction(20)


@pytest.mark.services
def test_a_recording_loses_only_what_retention_takes_from_under_it(open_log: Open) -> None:
    """The records are deleted beyond what was fetched ahead, which is some MB."""
    log = open_log("kafka-python")
    values = [bytes([number]) * 500_000 for number in range(30)]
    log.produce(*values)
    recording = read_topic(log.settings, log.tp.topic)
    read = [next(recording)[1].offset]
    log.delete_before(25)
    read += [record.offset for _, record in recording]
    assert read[-5:] == [25, 26, 27, 28, 29]
    assert read == sorted(set(read))
