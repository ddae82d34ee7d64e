"""A topic made anew, a log restored from an older copy, partitions added: offsets that look alike
and mean other records. Nothing new is taken for a replay."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from kafka import KafkaAdminClient

from daemon.local.services import Services
from tests.contracts.conftest import CLIENTS
from tests.faults.lab import Entry, Installation, Pairs, Spring, Truth, Worker, eventually

STREAMS = [f"s{number}" for number in range(6)]


@pytest.fixture
def lab(
    request: pytest.FixtureRequest, private_services: Services, theta: Path, tmp_path: Path
) -> Iterator[Installation]:
    kafka, redis_url = private_services.kafka_bootstrap_servers, private_services.redis_url
    overrides = {"kafka_client": request.param}
    made = Installation(kafka, redis_url, theta, tmp_path, overrides, partitions=2)
    yield made
    made.close()


def events(spring: Spring, count: int) -> list[Pairs]:
    return [spring.event(STREAMS[number % len(STREAMS)]) for number in range(count)]


def remake(lab: Installation) -> None:
    topic = lab.settings.kafka_events_topic
    lab.stop_producing()
    with KafkaAdminClient(bootstrap_servers=lab.kafka) as admin:
        admin.delete_topics([topic])
        eventually(lambda: topic not in admin.list_topics())
        # the name is free again a moment after it is no longer listed
        eventually(lambda: made_again(admin, lab, topic))
    lab.truth = Truth()


def made_again(admin: Any, lab: Installation, topic: str) -> bool:
    try:
        lab.make_topic(topic)
    except Exception:
        return topic in admin.list_topics()
    return True


def windows_of(lab: Installation, topic_id: str, generation: int = 0) -> dict[Any, list[Entry]]:
    """The windows of one log, as they lie in Redis."""
    mark, found = f"~{generation}:w:" if generation else ":w:", {}
    with redis.Redis.from_url(lab.redis_url) as client:
        for key in client.scan_iter(match=f"{lab.name}:*:w:*", count=1000):
            name = key.decode()
            if topic_id in name and mark in name and ("~" in name) == bool(generation):
                partition = int(name.partition("}")[0].rpartition(":")[2])
                entries = [
                    Entry(i.decode(), f[b"x"], f[b"y"], int(f[b"t"])) for i, f in client.xrange(key)
                ]
                found[partition, name.rpartition(":w:")[2]] = entries
    return found


def topic_id(lab: Installation) -> str:
    with KafkaAdminClient(bootstrap_servers=lab.kafka) as admin:
        (topic,) = admin.describe_topics([lab.settings.kafka_events_topic])
        return str(topic["topic_id"])


def metric(worker: Worker, name: str) -> float:
    lines = worker.get("/metrics")[1].splitlines()
    return sum(float(line.split()[-1]) for line in lines if line.startswith(f"adaptd_{name}"))


def told(worker: Worker, name: str) -> list[dict[str, Any]]:
    return [line for line in worker.lines() if line["event"] == name]


@pytest.mark.parametrize("lab", CLIENTS, indirect=True)
@pytest.mark.parametrize("reset", ["earliest", "latest"])
@pytest.mark.parametrize("running", [True, False])
def test_a_topic_made_anew_is_learned_from_its_first_record(
    lab: Installation, reset: str, running: bool
) -> None:
    spring = Spring(1)
    with lab.worker(kafka_offset_reset=reset) as worker:
        worker.wait_until_ready(2)
        lab.send(events(spring, 48))
        lab.wait_until_done()
        before = topic_id(lab)
        if running:
            remake(lab)
            lab.send(events(spring, 24))
            assert_learned(lab, worker, before, lab.truth)
            return
    remake(lab)
    lab.send(events(spring, 24))
    with lab.worker(kafka_offset_reset=reset) as worker:
        assert_learned(lab, worker, before, lab.truth)


def assert_learned(lab: Installation, worker: Worker, before: str, truth: Truth) -> None:
    now = topic_id(lab)
    assert now != before
    eventually(lambda: windows_of(lab, now) == truth.windows(), 60, worker.tail)
    lab.wait_until_done()
    eventually(lambda: metric(worker, "logs_replaced_total") == 2, 20, worker.tail)
    lines = told(worker, "log_replaced")
    assert sorted(line["partition"] for line in lines) == [0, 1]
    assert {(l["how"], l["topic_id_before"], l["topic_id"]) for l in lines} == {
        ("made_anew", before, now)
    }
    assert worker.get("/readyz")[0] == 200


@pytest.mark.parametrize("lab", CLIENTS, indirect=True)
@pytest.mark.parametrize("later", [12, 60], ids=["ends_before", "ends_after"])
@pytest.mark.parametrize("running", [True, False])
def test_a_log_restored_from_an_older_copy_loses_nothing_new(
    lab: Installation, private_services: Services, running: bool, later: int
) -> None:
    """`later`: how many events come after the restore; 36 were lost by it."""
    kafka, spring = private_services.kafka, Spring(2)
    assert kafka is not None
    data, copy = kafka.folder / "data", kafka.folder / "copy"
    with lab.worker() as worker:
        worker.wait_until_ready(2)
        lab.send(events(spring, 24))
        lab.wait_until_done()
        kept = Truth(entries={place: list(e) for place, e in lab.truth.entries.items()})
        lab.stop_producing()
        kafka.stop()
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(data, copy)
        kafka.start()
        lab.send(events(spring, 36))
        lab.wait_until_done()
        lab.stop_producing()
        if not running:
            worker.stop()
        kafka.stop()
        shutil.rmtree(data)
        shutil.copytree(copy, data)
        kafka.start()
        lab.truth = kept
        lab.send(events(spring, later))
        if running:
            assert_restored(lab, worker)
            return
    with lab.worker() as worker:
        assert_restored(lab, worker)


def assert_restored(lab: Installation, worker: Worker) -> None:
    now = topic_id(lab)
    eventually(
        lambda: windows_of(lab, now, 1) == lab.truth.windows(),
        90,
        lambda: f"{worker.tail()}",
    )
    lab.wait_until_done()
    assert {line["how"] for line in told(worker, "log_replaced")} <= {"shorter", "different"}
    assert metric(worker, "logs_replaced_total") == 2
