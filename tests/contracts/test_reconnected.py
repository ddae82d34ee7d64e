"""A source says that a broker was away before it gives records that came after that."""

from __future__ import annotations

import gc
import time
import uuid
from collections.abc import Iterator

import pytest
from kafka import KafkaAdminClient, KafkaProducer

from daemon.config import Settings
from daemon.local.services import Services
from daemon.turn.ports import EventSource, Polled
from daemon.worker.wiring import kafka_clients
from tests.contracts.conftest import CLIENTS

pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
"""kafka-python leaves a socket behind for each refused connection."""
PATIENCE_S = 30.0


@pytest.fixture(params=CLIENTS)
def settings(request: pytest.FixtureRequest, private_services: Services) -> Settings:
    name, kafka = f"t{uuid.uuid4().hex[:12]}", private_services.kafka_bootstrap_servers
    with KafkaAdminClient(bootstrap_servers=kafka) as admin:
        admin.create_topics({name: {"num_partitions": 1, "replication_factor": 1}})
    return Settings(
        kafka_client=request.param,
        kafka_bootstrap_servers=kafka,
        kafka_events_topic=name,
        kafka_group_id=name,
    )


@pytest.fixture
def source(settings: Settings) -> Iterator[EventSource]:
    joined = kafka_clients(settings)[0](settings, "member")
    until = time.monotonic() + PATIENCE_S
    while 0 not in joined.poll(0.1, 10).assigned:
        assert time.monotonic() < until
    joined.seek(0, 0)
    yield joined
    joined.close()
    del joined
    gc.collect()  # here, where what it complains of is ignored


def produce(settings: Settings, value: bytes) -> None:
    producer = KafkaProducer(bootstrap_servers=settings.kafka_bootstrap_servers)
    producer.send(settings.kafka_events_topic, value=value, partition=0).get(PATIENCE_S)
    producer.close()


def polls_until_a_record(source: EventSource) -> list[Polled]:
    polls: list[Polled] = []
    until = time.monotonic() + PATIENCE_S
    while not polls or not polls[-1].records:
        assert time.monotonic() < until, polls
        polls.append(source.poll(0.1, 10))
    return polls


def test_a_broker_that_was_restarted_between_two_polls_is_told(
    settings: Settings, source: EventSource, private_services: Services
) -> None:
    assert private_services.kafka is not None
    produce(settings, b"before")
    assert not any(polled.reconnected for polled in polls_until_a_record(source))
    for _ in range(20):
        assert not source.poll(0.05, 10).reconnected, "nothing has happened"
    private_services.kafka.stop()
    private_services.kafka.start()
    produce(settings, b"after")
    polls = polls_until_a_record(source)
    assert [r.value for r in polls[-1].records[0]] == [b"after"]
    assert any(polled.reconnected == {0} for polled in polls)
