"""What every EvidenceLog does: records once and in order, from a time on, and anew after errors."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pytest
from kafka import KafkaAdminClient, KafkaProducer

from daemon.adapters.kafka_python.evidence import KafkaPythonEvidence
from daemon.adapters.kafka_python.topics import KafkaTopics
from daemon.adapters.memory import MemoryEvidence, MemoryRecord
from daemon.canary.port import EvidenceLog
from daemon.config import Settings
from daemon.errors import Misconfigured
from daemon.wire.topics import evidence_spec
from tests.contracts.conftest import MEMORY_AND_REAL


@dataclass
class Bench:
    """A log, and what happens to its topic."""

    log: EvidenceLog
    make: Callable[[], None]
    write: Callable[[int, bytes], None]


def memory() -> Iterator[Bench]:
    log = MemoryEvidence()
    log.missing = True

    def make() -> None:
        log.missing = False

    def write(time_ms: int, key: bytes) -> None:
        log.log.append(MemoryRecord(len(log.log), time_ms, key, b"v"))

    yield Bench(log, make, write)


def real(settings: Settings) -> Iterator[Bench]:
    topic = settings.kafka_events_topic + "-evidence"
    settings = settings.model_copy(update={"kafka_evidence_topic": topic})
    log = KafkaPythonEvidence(settings, "test")
    producer = KafkaProducer(bootstrap_servers=settings.kafka_bootstrap_servers)

    def make() -> None:
        topics = KafkaTopics(settings)
        assert topics.create(evidence_spec(settings))
        topics.close()

    def write(time_ms: int, key: bytes) -> None:
        producer.send(topic, b"v", key, timestamp_ms=time_ms).get(20)

    yield Bench(log, make, write)
    producer.close()
    log.close()
    log.close()
    with KafkaAdminClient(bootstrap_servers=settings.kafka_bootstrap_servers) as admin:
        if topic in admin.list_topics():
            admin.delete_topics([topic])


@pytest.fixture(params=MEMORY_AND_REAL)
def bench(
    request: pytest.FixtureRequest, kafka_settings: Callable[[], Settings]
) -> Iterator[Bench]:
    yield from memory() if request.param == "memory" else real(kafka_settings())


NOW = 1_000 * int(time.time()) - 60_000
"""Brokers take no time that lies ahead."""


def keys(records: Sequence[Any]) -> list[bytes | None]:
    return [record.key for record in records]


def test_a_missing_topic_is_told_and_read_once_it_is_there(bench: Bench) -> None:
    assert "does not exist" in str(bench.log.fault())
    with pytest.raises(Misconfigured, match="does not exist"):
        bench.log.read(NOW)
    bench.make()
    assert bench.log.fault() is None
    assert bench.log.read(NOW) == ([], True)
    bench.write(NOW, b"a")
    assert keys(bench.log.read(NOW).records) == [b"a"]


def test_records_come_once_and_in_order_from_a_time_on(bench: Bench) -> None:
    bench.make()
    for time_ms, key in ((NOW - 5_000, b"old"), (NOW, b"a"), (NOW + 1, b"b")):
        bench.write(time_ms, key)
    read = bench.log.read(NOW)
    assert (keys(read.records), read.begins) == ([b"a", b"b"], True)
    assert bench.log.read(NOW) == ([], False)
    bench.write(NOW + 2, b"c")
    read = bench.log.read(NOW)
    assert (keys(read.records), read.begins) == ([b"c"], False)
    read = bench.log.read(NOW + 1)
    assert (keys(read.records), read.begins) == ([b"b", b"c"], True)
    bench.log.close()
    read = bench.log.read(NOW + 1)
    assert (keys(read.records), read.begins) == ([b"b", b"c"], True)


def test_a_time_after_all_records_begins_at_the_end(bench: Bench) -> None:
    bench.make()
    bench.write(NOW, b"a")
    assert bench.log.read(NOW + 1) == ([], True)
    bench.write(NOW + 5, b"b")
    assert keys(bench.log.read(NOW + 1).records) == [b"b"]
