"""Records that once ended every worker, on a real Kafka: the worker serves on, the next one starts,
and a later record mends it."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from kafka import KafkaProducer

from daemon.adapters.kafka_python.mended import WholeMessages, send_whole
from daemon.wire.record import Message
from model.theta.meta_init_file import meta_init_to_bytes
from tests.faults.conftest import Install
from tests.faults.lab import Installation, assert_windows, eventually
from tests.faults.swapping import (
    Operator,
    events,
    metric,
    refused,
    theta_of,
    wait_until_it_begins,
    wait_until_served,
)

NESTED = "[" * 5_000 + "]" * 5_000


def poisoned(data: bytes) -> list[bytes]:
    """Files that are nearly the θ of these bytes."""
    size = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + size])

    def with_metadata(metadata: Any) -> bytes:
        text = json.dumps(header | {"__metadata__": metadata}).encode()
        return len(text).to_bytes(8, "little") + text + data[8 + size :]

    facts = header["__metadata__"]
    return [
        with_metadata(None),
        with_metadata(facts | {"adaptd.facts": NESTED}),
        with_metadata(facts | {"adaptd.facts": f'{{"learner": {NESTED[4_500:5_500]}}}'}),
    ]


def test_poison_in_the_meta_inits_topic_ends_no_worker(install: Install) -> None:
    lab = install(1)
    operator = Operator(lab)
    good, poisonous = theta_of("good"), theta_of("poisonous", 2)
    lab.send(events(4))
    operator.serve(good)
    with lab.worker() as worker:
        worker.wait_until_ready()
        wait_until_served(lab, worker, "good")
        operator.serve(poisonous)
        wait_until_it_begins(worker, "poisonous")
        for value in poisoned(meta_init_to_bytes(poisonous)):
            operator.write("poisonous", value)
        operator.write("@active", f'{{"x": {NESTED}}}'.encode())
        eventually(lambda: refused(worker) == "unreadable", 20, worker.tail)
        operator.write("@newer", b"of a later version")
        assert worker.status()["meta_init"] == "poisonous"  # the sound one, from before
        worker.stop()
    with lab.worker() as worker:  # begins among the poison
        worker.wait_until_ready()
        eventually(lambda: refused(worker) == "unreadable", 20, worker.tail)
        assert "@newer" not in operator.says("list")
        operator.write("@active", None)
        eventually(lambda: worker.status()["meta_init_refused"] is None, 20, worker.tail)
        operator.write("poisonous", None)
        operator.serve(good)
        wait_until_served(lab, worker, "good")
        worker.stop()


def send(lab: Installation, *messages: tuple[bytes | None, bytes | None, Any]) -> None:
    """Sends what kafka-python itself would not."""
    producer = KafkaProducer(bootstrap_servers=lab.kafka, value_serializer=WholeMessages())
    topic = lab.settings.kafka_events_topic
    for key, value, headers in messages:
        send_whole(producer, Message(topic, key, value, tuple(headers))).get(20)
    producer.close()


@pytest.mark.parametrize("client", ["kafka-python", "librdkafka"])
def test_nulls_come_back_as_nulls_and_a_loop_comes_to_rest(install: Install, client: str) -> None:
    lab = install(1, kafka_client=client)
    letters = lab.settings.kafka_dead_letters_topic
    headers = (("null", None), ("empty", b""))
    with lab.worker() as worker:
        worker.wait_until_ready()
        send(lab, (None, None, ()), (b"k", None, headers), (b"k", b"", headers))
        for number in range(4):  # whatever copies the one topic into the other
            eventually(lambda: len(lab.records(letters)) == 3 * min(number + 1, 3), 20, worker.tail)  # noqa: B023
            newest = lab.records(letters)[-3:]
            if number < 3:
                send(lab, *((r.key, r.value, r.headers) for r in newest))
        lab.wait_until_done()
        counted = worker.get("/metrics")[1]
        worker.stop()
    found = lab.records(letters)
    assert len(found) == 9
    for first in (0, 3, 6):
        none, null, empty = found[first : first + 3]
        assert (none.key, none.value) == (None, None)
        assert (null.key, null.value, null.headers[:2]) == (b"k", None, list(headers))
        assert (empty.key, empty.value, empty.headers[:2]) == (b"k", b"", list(headers))
    assert [dict(r.headers).get("adaptd-attempts") for r in found[::3]] == [None, b"2", b"3"]
    assert 'adaptd_dead_letters_total{reason="repeated_dead_letter"} 3.0' in counted


@contextmanager
def stderr_of_kind(kind: str) -> Iterator[int]:
    """A descriptor to log to: of a reader that is gone, of one that sleeps, of a full disk."""
    if kind == "full":
        with open("/dev/full", "w") as full:
            yield full.fileno()
        return
    reading, writing = os.pipe()
    if kind == "gone":
        os.close(reading)
    yield writing
    os.close(writing)
    if kind == "asleep":
        os.close(reading)


@pytest.mark.parametrize("kind", ["gone", "asleep", "full"])
def test_a_log_that_nobody_reads_stops_nothing(install: Install, kind: str) -> None:
    lab = install(1)
    with stderr_of_kind(kind) as stderr, lab.worker(stderr=stderr, log_level="debug") as worker:
        worker.wait_until_ready()
        for seed in range(4):
            lab.send(events(40, seed=seed))  # some 100 kB of lines
            lab.wait_until_done()
        eventually(lambda: metric(worker, "adaptd_log_lines_lost_total") > 0, 20)
        assert worker.get("/livez")[0] == 200
        worker.stop()
    assert_windows(lab.windows(), lab.truth)
