"""A worker on a log that is damaged on the broker's disk: it goes past, and so does the next."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from kafka import KafkaAdminClient, KafkaProducer, TopicPartition

from daemon.local.services import Services
from tests.contracts import damage as damages
from tests.contracts.conftest import CLIENTS
from tests.faults.lab import Installation, Raw, Spring, assert_windows, eventually

BOUND_S = 20.0
"""For a worker to start, to join and to be past."""


@pytest.fixture(params=CLIENTS)
def lab(
    request: pytest.FixtureRequest, private_services: Services, theta: Path, tmp_path: Path
) -> Iterator[Installation]:
    kafka, redis_url = private_services.kafka_bootstrap_servers, private_services.redis_url
    made = Installation(kafka, redis_url, theta, tmp_path, {"kafka_client": request.param}, 4)
    yield made
    made.close()


def letters(lab: Installation) -> list[dict[str, str]]:
    """The dead letters' own headers, in the order of their places."""
    found = [
        {name[7:]: value.decode() for name, value in letter.headers if name.startswith("adaptd-")}
        for letter in lab.records(lab.settings.kafka_dead_letters_topic)
    ]
    return sorted(found, key=lambda ours: (ours["partition"], int(ours["offset"])))


def test_a_damaged_batch_is_a_dead_letter_and_all_else_counts(
    lab: Installation, private_services: Services
) -> None:
    assert private_services.kafka is not None
    spring, topic = Spring(), lab.settings.kafka_events_topic
    for _ in range(10):
        lab.send([spring.event(f"stream-{i}") for i in range(6)])
    place, last = lost_batch(lab)
    lab.send([spring.event(f"stream-{i}") for i in range(6)])
    file = damages.segment(private_services.kafka.folder, topic, place[0])
    numbers = damages.batches(file.read_bytes())
    log = file.read_bytes()
    number = next(
        n for n, (b, _) in enumerate(numbers) if int.from_bytes(log[b : b + 8], "big") == place[1]
    )
    damaged = damages.damage(file, number, damages.flipped_bit, right_checksum=False)
    with lab.worker() as worker:
        worker.wait_until_ready(4)
        lab.wait_until_done(BOUND_S)
        worker.stop()
    (letter,) = letters(lab)
    assert (letter["reason"], letter["value-is"]) == ("unreadable", "batch")
    assert (int(letter["partition"]), int(letter["offset"])) == place
    assert int(letter["last-offset"]) == last
    (record,) = lab.records(lab.settings.kafka_dead_letters_topic)
    assert record.value == damaged
    assert_windows(lab.windows(), lab.truth)
    lab.send([spring.event("stream-0")])
    with lab.worker() as worker:  # a restart meets it no more
        lab.wait_until_done(BOUND_S)
        worker.stop()
    assert len(letters(lab)) == 1


def lost_batch(lab: Installation) -> tuple[tuple[int, int], int]:
    """One batch of three bad events: they are in no window, whether they can be read or not."""
    producer = KafkaProducer(bootstrap_servers=lab.kafka, linger_ms=500)
    sent = [
        producer.send(lab.settings.kafka_events_topic, b"bad", b"stream-0", partition=0)
        for _ in range(3)
    ]
    producer.flush()
    offsets = [future.get(10).offset for future in sent]
    producer.close()
    return (0, offsets[0]), offsets[-1]


def test_a_worker_goes_on_while_its_log_is_cut_off_and_marked(lab: Installation) -> None:
    """Retention deletes what was read; the commit, the lag and a new worker stand at the end."""
    lab.send([Spring().event(f"stream-{i}") for i in range(6)])
    with lab.worker() as worker:
        lab.wait_until_done(BOUND_S)
        ends = lab.ends()
        with KafkaAdminClient(bootstrap_servers=lab.kafka) as admin:
            topic = lab.settings.kafka_events_topic
            admin.delete_records({TopicPartition(topic, p): end for p, end in ends.items()})
        eventually(lambda: set(worker.status()["lag"].values()) == {0}, 20, worker.tail)
        worker.stop()


def test_a_header_name_that_is_not_utf8_is_a_dead_letter(lab: Installation) -> None:
    class NotUtf8(str):
        def encode(self, *_: object) -> bytes:
            return b"\xff\xfe"

    spring = Spring()
    lab.send([spring.event("stream-0")])
    bad = [Raw(b"stream-0", b"value", ((NotUtf8("n"), b"x"), ("tenant", b"y")))]
    places = lab.send(bad)
    lab.send([spring.event("stream-0")])
    with lab.worker() as worker:
        lab.wait_until_done(BOUND_S)
        worker.stop()
    (letter,) = lab.records(lab.settings.kafka_dead_letters_topic)
    ours = dict(letter.headers)
    assert (letter.key, letter.value) == (b"stream-0", b"value")
    assert letter.headers[:2] == [("\\xff\\xfe", b"x"), ("tenant", b"y")]
    assert ours["adaptd-reason"] == b"unreadable"
    assert (int(ours["adaptd-partition"]), int(ours["adaptd-offset"])) == places[0]
    assert_windows(lab.windows(), lab.truth)


def test_a_partition_that_the_broker_cannot_read_stops_no_other(
    lab: Installation, private_services: Services
) -> None:
    """The broker knows of records whose file is empty: it refuses to send them, each time."""
    assert private_services.kafka is not None
    spring, topic = Spring(), lab.settings.kafka_events_topic
    lab.send([spring.event(f"stream-{i}") for i in range(24)])
    os.truncate(damages.segment(private_services.kafka.folder, topic, 0), 0)

    def others_are_done() -> bool:
        return lab.committed() == {p: end for p, end in lab.ends().items() if p != 0}

    with lab.worker() as worker:
        worker.wait_until_ready(4)
        eventually(others_are_done, BOUND_S, worker.tail)
        readable = [stream for partition, stream in lab.truth.entries if partition != 0]
        lab.send([spring.event(stream) for stream in readable])
        eventually(others_are_done, BOUND_S, worker.tail)
        assert worker.status()["lag"]["0"] == lab.ends()[0]
        assert not [line for line in worker.lines() if line["event"] == "unavailable"]
        worker.stop()
