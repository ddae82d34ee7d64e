"""A subscriber and a publisher on a real Kafka."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer, TopicPartition
from prometheus_client.parser import text_string_to_metric_families

from daemon.client import conformance
from daemon.client.aio import AsyncMappingSubscriber
from daemon.client.publisher import PairPublisher
from daemon.client.subscriber import MappingSubscriber, NoMapping
from daemon.config import Settings
from daemon.local.services import Services
from model.theta.meta_init import MetaInit, fresh_meta_init
from model.theta.meta_init_file import meta_init_to_bytes, save_meta_init
from tests.client.conftest import THETA, Make, Record

pytestmark = pytest.mark.services
X = [0.5] * conformance.D
SOON_S = 20.0


class Topic:
    """The topic of mappings of one test, and what the test writes to it."""

    def __init__(self, services: Services, name: Callable[[str], str]) -> None:
        self.settings = Settings(
            kafka_bootstrap_servers=services.kafka_bootstrap_servers,
            kafka_mappings_topic=name("mappings"),
            kafka_events_topic=name("events"),
            kafka_meta_inits_topic=name("meta-inits"),
            kafka_timeout_ms=3_000,
        )
        self.name = self.settings.kafka_mappings_topic
        self._kafka = services.kafka_bootstrap_servers
        self.make()

    def make(self, cleanup: str = "compact") -> None:
        config = {"cleanup.policy": cleanup}
        options = {"num_partitions": 2, "replication_factor": 1, "configs": config}
        with KafkaAdminClient(bootstrap_servers=self._kafka) as admin:
            admin.create_topics({self.name: options}, wait_for_metadata=True)

    def make_anew(self, cleanup: str = "compact") -> None:
        with KafkaAdminClient(bootstrap_servers=self._kafka) as admin:
            admin.delete_topics([self.name])
        eventually(lambda: self.name not in self.topics())
        self.make(cleanup)

    def topics(self) -> list[str]:
        with KafkaAdminClient(bootstrap_servers=self._kafka) as admin:
            return list(admin.list_topics())

    def write(self, *records: Record) -> None:
        with closing(KafkaProducer(bootstrap_servers=self._kafka)) as producer:
            sent = [producer.send(self.name, r.value, r.key, partition=0) for r in records]
            for each in sent:
                each.get(10)

    def publish_theta(self, theta: MetaInit, *, activate: bool) -> None:
        from daemon.adapters.kafka_python.meta_inits import KafkaPythonMetaInits
        from daemon.thetas.operate import activate_theta, publish_theta

        with closing(KafkaPythonMetaInits(self.settings, "test")) as thetas:
            publish_theta(thetas, theta, meta_init_to_bytes(theta))
            if activate:
                activate_theta(thetas, theta.version, by="test", now_ms=0)

    def subscriber(self, **options: Any) -> MappingSubscriber:
        return MappingSubscriber(self.settings, **options)


@pytest.fixture
def topic(services: Services, topic_names: Callable[[str], str]) -> Topic:
    return Topic(services, topic_names)


def eventually(holds: Callable[[], object]) -> None:
    give_up_at = time.monotonic() + SOON_S
    while not holds():
        assert time.monotonic() < give_up_at, "it did not become so"
        time.sleep(0.02)


def version(mappings: MappingSubscriber, stream: str = "s") -> int | None:
    mapping = mappings.get(stream)
    return None if mapping is None else mapping.facts.version


def series(mappings: MappingSubscriber) -> dict[str, float]:
    """Every sample of its metrics, by name and labels."""
    families = text_string_to_metric_families(mappings.metrics.render().decode())
    samples = [sample for family in families for sample in family.samples]
    return {f"{s.name}{sorted(s.labels.items())}": s.value for s in samples}


def test_it_follows_the_topic_and_says_what_it_passes_over(
    topic: Topic, whole_record: Make
) -> None:
    topic.make_anew("delete")  # one that is compacted takes no record without a key
    topic.write(
        whole_record("s", version=5),
        whole_record("t", version=6),
        Record(None, b"no key"),
        Record(b"s", b"garbage"),
        whole_record("s", version=4),
        whole_record("s", epoch=6, version=9),
    )
    with topic.subscriber(streams=["s", "never"]) as mappings:
        assert isinstance(mappings.status().detail, str)
        mappings.wait_until_current(SOON_S)
        assert mappings.streams() == ["s"]
        prediction = mappings.predict("s", X)
        assert (prediction.served_by, prediction.is_fallback) == ("adapted", False)
        assert prediction.values.shape == (conformance.E,)
        changes = mappings.changes(timeout_s=SOON_S)
        topic.write(whole_record("s", version=20, window_since=8))
        change = next(changes)
        assert (change.stream, change.gap, version(mappings)) == ("s", True, 20)
        topic.write(Record(b"s", None))
        assert next(changes).mapping is None
        with pytest.raises(NoMapping, match="'s' has no mapping here, and no θ is known"):
            mappings.predict("s", X)
        assert mappings.age_s("s") is None
        status = mappings.status()
        counts = {"no_key": 1, "not_a_mapping": 1, "older": 1, "fenced": 1}
        assert status.passed_over == counts
        assert status.connected
        assert status.current
        told = series(mappings)
        assert told["adaptd_client_passed_over_total[('reason', 'fenced')]"] == 1
        assert told["adaptd_client_gaps_total[('kind', 'window')]"] == 1
        assert told["adaptd_client_swap_seconds_count[]"] == 1
        assert told["adaptd_client_predictions_total[('served_by', 'adapted')]"] == 1
    assert list(changes) == []


def test_an_unknown_stream_is_served_by_the_active_theta(
    topic: Topic, factored_record: Make, tmp_path: Path
) -> None:
    topic.write(factored_record("s", version=7))
    other = fresh_meta_init(conformance.D, conformance.E, conformance.H, seed=4)
    save_meta_init(other, tmp_path / "theta")
    with topic.subscriber(thetas=[tmp_path / "theta"]) as mappings:
        mappings.wait_until_current(SOON_S)
        prediction = mappings.predict("unknown", X)
        assert prediction.is_fallback
        assert prediction.meta_init == other.version
        assert mappings.get("s") is None  # its θ is not known yet
        topic.publish_theta(THETA, activate=True)
        eventually(lambda: version(mappings) == 7)
        assert mappings.predict("s", X).served_by == "adapted"
        eventually(lambda: mappings.predict("unknown", X).meta_init == THETA.version)
        wanted = conformance.expected(THETA.mapping, np.array([X], np.float32), "gelu", "none")
        np.testing.assert_allclose(mappings.predict("unknown", X).values, wanted[0], atol=1e-5)


def test_it_goes_on_from_a_snapshot(
    topic: Topic, whole_record: Make, factored_record: Make, tmp_path: Path
) -> None:
    file = tmp_path / "snapshot"
    topic.publish_theta(THETA, activate=True)
    topic.write(*(whole_record(f"s{i}", version=i) for i in range(5)), factored_record("f"))
    with topic.subscriber(snapshot=file) as mappings:
        mappings.wait_until_current(SOON_S)
        eventually(lambda: version(mappings, "f") == 90)
    written_s = series(mappings)["adaptd_client_snapshot_timestamp_seconds[]"]
    assert abs(time.time() - written_s) < SOON_S
    topic.write(whole_record("s1", version=100), Record(b"s2", None))
    with topic.subscriber(snapshot=file) as mappings:
        assert version(mappings, "s0") == 0  # before anything was read
        assert version(mappings, "f") == 90
        mappings.wait_until_current(SOON_S)
        assert version(mappings, "s1") == 100
        assert sorted(mappings.streams()) == ["f", "s0", "s1", "s3", "s4"]
        assert not mappings.status().passed_over  # nothing was read twice
        assert mappings.predict("unknown", X).meta_init == THETA.version


@pytest.mark.parametrize(
    "why", ["damaged", "cut short", "too old", "other streams", "another topic"]
)
def test_a_snapshot_that_does_not_fit_is_read_over(
    topic: Topic,
    whole_record: Make,
    tmp_path: Path,
    why: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    file = tmp_path / "snapshot"
    topic.write(*(whole_record(f"s{i}", version=10 * i) for i in range(3)))
    with topic.subscriber(snapshot=file) as mappings:
        mappings.wait_until_current(SOON_S)
    data = bytearray(file.read_bytes())
    options: dict[str, Any] = {}
    if why == "damaged":
        data[len(data) // 2] ^= 1
    elif why == "cut short":
        del data[-40:]
    elif why == "too old":
        monkeypatch.setattr("daemon.client.follower.SNAPSHOT_GOOD_FOR_MS", -1)
    elif why == "other streams":
        options = {"streams": "s"}
    if why == "another topic":
        topic.make_anew()
    file.write_bytes(bytes(data))
    topic.write(Record(b"s0", None), whole_record("s1", version=99), whole_record("s9"))
    with topic.subscriber(snapshot=file, **options) as mappings:
        mappings.wait_until_current(SOON_S)
        here = {"s1", "s9"} if why == "another topic" else {"s1", "s2", "s9"}
        assert set(mappings.streams()) == here
        assert version(mappings, "s1") == 99
    with topic.subscriber(snapshot=file, **options) as mappings:
        assert set(mappings.streams()) == here


def test_a_topic_that_is_made_anew_is_read_again_while_all_is_served(
    topic: Topic, whole_record: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("daemon.client.follower.COMPARE_EVERY_S", 0.3)
    topic.write(*(whole_record(f"s{i}") for i in range(8)))
    with topic.subscriber() as mappings:
        mappings.wait_until_current(SOON_S)
        topic.make_anew()
        assert len(mappings.streams()) == 8
        topic.write(whole_record("s1", epoch=8, version=0), whole_record("new"))
        eventually(lambda: set(mappings.streams()) == {"s1", "new"})
        assert version(mappings, "s1") == 0
        assert mappings.status().gaps["log"] >= 1


def test_a_topic_that_is_not_there_yet_is_waited_for(
    services: Services, topic_names: Callable[[str], str], whole_record: Make
) -> None:
    settings = Settings(
        kafka_bootstrap_servers=services.kafka_bootstrap_servers,
        kafka_mappings_topic=topic_names("later"),
        kafka_meta_inits_topic=topic_names("meta-inits"),
    )
    with MappingSubscriber(settings) as mappings:
        with pytest.raises(TimeoutError, match=r"not current after 1 s: topic .* does not exist"):
            mappings.wait_until_current(1)
        topic = Topic(
            services, lambda suffix: topic_names("later" if suffix == "mappings" else suffix)
        )
        topic.write(whole_record("s"))
        mappings.wait_until_current(SOON_S)
        assert mappings.streams() == ["s"]


NOBODY = """
from daemon.client.subscriber import MappingSubscriber
from daemon.config import Settings
with MappingSubscriber(Settings(kafka_bootstrap_servers="127.0.0.1:1", kafka_timeout_ms=500)) as m:
    try:
        m.wait_until_current(2)
    except TimeoutError as e:
        print(e)
    print(m.status().connected)
    print(m.metrics.render().decode())
"""


def test_where_no_broker_answers_it_says_so_and_closes() -> None:
    """In a process of its own: kafka-python leaves the sockets of refused connections behind."""
    done = subprocess.run(
        [sys.executable, "-c", NOBODY], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.startswith("not current after 2 s: kafka: connect: ")
    assert "\nFalse\n" in done.stdout
    assert 'adaptd_client_failures_total{what="Unavailable"}' in done.stdout


def test_asyncio_programs_await_changes(topic: Topic, whole_record: Make) -> None:
    async def use() -> list[tuple[str, int]]:
        found = []
        async with AsyncMappingSubscriber(topic.subscriber(streams="s")) as mappings:
            await mappings.wait_until_current(SOON_S)
            changes = mappings.changes()
            await asyncio.to_thread(topic.write, whole_record("s1", version=3))
            async with asyncio.timeout(SOON_S):
                change = await anext(changes)
                assert change.mapping is not None
                found.append((change.stream, change.mapping.facts.version))
                await asyncio.to_thread(topic.write, whole_record("s2", version=4))
                change = await anext(changes)
                assert change.mapping is not None
                found.append((change.stream, change.mapping.facts.version))
            assert mappings.predict("s1", X).values.shape == (conformance.E,)
            assert mappings.status().streams == 2
            ending = asyncio.ensure_future(anext(changes, None))
        async with asyncio.timeout(SOON_S):
            assert await ending is None
        return found

    assert asyncio.run(use()) == [("s1", 3), ("s2", 4)]


@pytest.fixture
def events(topic: Topic, services: Services) -> Iterator[KafkaConsumer]:
    """A consumer of a topic of events of seven partitions."""
    kafka, name = services.kafka_bootstrap_servers, topic.settings.kafka_events_topic
    with KafkaAdminClient(bootstrap_servers=kafka) as admin:
        options = {"num_partitions": 7, "replication_factor": 1}
        admin.create_topics({name: options}, wait_for_metadata=True)
    consumer = KafkaConsumer(bootstrap_servers=kafka, auto_offset_reset="earliest")
    consumer.assign([TopicPartition(name, p) for p in range(7)])
    yield consumer
    consumer.close(autocommit=False)


def test_pairs_come_to_where_every_producer_puts_their_stream(
    topic: Topic, events: KafkaConsumer
) -> None:
    from kafka.partitioner.default import murmur2

    from daemon.wire.paired_event import EventLimits, decode_event, raw_content

    streams = [f"stream-{i}" for i in range(12)]
    with PairPublisher(topic.settings) as pairs:
        for stream in streams:
            pairs.send(stream, X, np.ones(2), label="a label", time_ms=1_767_225_600_000)
        pairs.send_event("many", [(X, [1.0], None), ("a text", b"\x89PNG", "another")])
    assert pairs.acknowledged == len(streams) + 1
    found: list[Any] = []
    give_up_at = time.monotonic() + SOON_S
    while len(found) < len(streams) + 1:
        assert time.monotonic() < give_up_at
        found += [r for records in events.poll(200).values() for r in records]
    by_key = {record.key.decode(): record for record in found}
    for stream in streams:
        record = by_key[stream]
        assert record.partition == (murmur2(stream.encode()) & 0x7FFFFFFF) % 7
        event = decode_event(record, record.partition, EventLimits(10_000, 4))
        assert event.time_ms == 1_767_225_600_000
        (pair,) = event.pairs
        assert pair.label == "a label"
        np.testing.assert_array_equal(raw_content(pair.source)[1], np.array(X))
    assert len(decode_event(by_key["many"], 0, EventLimits(10_000, 4)).pairs) == 2
