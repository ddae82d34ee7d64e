"""A topic made anew, a log restored from an older copy, partitions added: offsets that look alike
and mean other records. Nothing new is taken for a replay."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import redis
from kafka import KafkaAdminClient, KafkaProducer, TopicPartition
from kafka.structs import OffsetAndMetadata

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
    # librdkafka writes a line of its own when a producer's brokers have other sequence numbers
    lines = [line for line in worker.log.read_text().splitlines() if line.startswith("{")]
    return [line for line in map(json.loads, lines) if line["event"] == name]


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
        worker.tail,
    )
    lab.wait_until_done()
    assert {line["how"] for line in told(worker, "log_replaced")} <= {"shorter", "different"}
    eventually(lambda: metric(worker, "logs_replaced_total") == 2, 20, worker.tail)


# ---- partitions that are added, and streams in two of them


def send_to(lab: Installation, partition: int, sent: list[Pairs]) -> None:
    """To a partition of the test's choice, as no good producer would."""
    with closing(KafkaProducer(bootstrap_servers=lab.kafka)) as producer:
        for event in sent:
            raw = event.raw()
            topic = lab.settings.kafka_events_topic
            to = producer.send(topic, raw.value, raw.key, partition=partition)
            lab.truth.saw(event, partition, to.get(20).offset)


@pytest.mark.parametrize("lab", CLIENTS, indirect=True)
def test_partitions_that_are_added_are_read_from_their_first_record_within_seconds(
    lab: Installation,
) -> None:
    spring = Spring(3)
    with lab.worker(kafka_offset_reset="latest") as worker:
        worker.wait_until_ready(2)
        lab.send(events(spring, 12))
        lab.wait_until_done()
        with KafkaAdminClient(bootstrap_servers=lab.kafka) as admin:
            admin.create_partitions({lab.settings.kafka_events_topic: 3})
        send_to(lab, 2, events(spring, 12))
        lab.partitions = 3
        assert lab.wait_until_done(30) < 20
        assert windows_of(lab, topic_id(lab)) == lab.truth.windows()
        # all six streams are in a second partition now
        eventually(lambda: metric(worker, "streams_moved_total") == 6, 20, worker.tail)
        lines = told(worker, "stream_in_two_partitions")
        assert {line["now"] for line in lines} == {2}
        assert {line["stream"] for line in lines} < set(STREAMS)
    with lab.worker() as worker:  # another one finds them where they are
        worker.wait_until_ready(3)
        send_to(lab, 2, events(spring, 6))
        lab.wait_until_done()
        assert metric(worker, "streams_moved_total") == 0
        send_to(lab, 0, [spring.event(STREAMS[0])])
        lab.wait_until_done()
        eventually(lambda: metric(worker, "streams_moved_total") == 1, 20, worker.tail)


# ---- offsets that an operator moves


def move(lab: Installation, *arguments: str) -> tuple[int, str]:
    ended = subprocess.run(
        [sys.executable, "-m", "daemon", "offsets", *arguments],
        env=lab.environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return ended.returncode, ended.stdout + ended.stderr


@pytest.mark.parametrize("lab", CLIENTS, indirect=True)
def test_offsets_that_an_operator_moves_are_honoured(lab: Installation) -> None:
    spring = Spring(4)
    with lab.worker() as worker:
        worker.wait_until_ready(2)
        send_to(lab, 0, events(spring, 30))
        lab.wait_until_done()
        code, said = move(lab, "move", "--to", "latest", "--yes")
        assert code == 2
        assert "1 members" in said
        worker.stop()
    send_to(lab, 1, events(spring, 30))
    before = windows_of(lab, topic_id(lab))
    for bad in ("31", "-1", "soon", "2026-01-01T00:00:00"):
        code, said = move(lab, "move", "--to", bad, "--partition", "1", "--yes")
        assert (code, said.count("\n")) == (2, 1), said
    code, said = move(lab, "move", "--to", "+18", "--partition", "1", "--yes")
    assert code == 0, said
    assert "0 -> 18, skips 18 events; windows keep what they hold" in said
    code, said = move(lab, "show")
    assert code == 0
    assert "an operator" in said
    with lab.worker() as worker:
        worker.wait_until_ready(2)
        lab.wait_until_done()
        found = windows_of(lab, topic_id(lab))
        assert {place: w for place, w in found.items() if place[0] == 0} == before
        offsets = sorted(int(e.id.split("-")[0]) - 1 for p, w in found.items() if p[0] for e in w)
        assert offsets == list(range(18, 30))
        worker.stop()  # or the group keeps it as a member for a while, and nobody may move offsets
    assert "adaptd" in move(lab, "show")[1]
    # by another tool, and back: nothing counts twice
    with KafkaAdminClient(bootstrap_servers=lab.kafka) as admin:
        tp = TopicPartition(lab.settings.kafka_events_topic, 0)
        admin.alter_group_offsets(lab.name, {tp: OffsetAndMetadata(3, "", -1)})
    with lab.worker() as worker:
        worker.wait_until_ready(2)
        lab.wait_until_done()
        assert windows_of(lab, topic_id(lab)) == found
        eventually(lambda: metric(worker, 'pairs_total{outcome="replayed"}') == 27, 20, worker.tail)
        assert metric(worker, 'pairs_total{outcome="new"}') == 0
        (line,) = told(worker, "offset_moved_by_operator")
        assert (line["partition"], line["read_up_to"], line["to"]) == (0, 30, 3)


@pytest.mark.parametrize("lab", CLIENTS, indirect=True)
def test_events_that_retention_removed_before_they_were_read_are_counted(lab: Installation) -> None:
    spring = Spring(5)
    with lab.worker() as worker:
        worker.wait_until_ready(2)
        send_to(lab, 0, events(spring, 10))
        lab.wait_until_done()
    send_to(lab, 0, events(spring, 20))
    with KafkaAdminClient(bootstrap_servers=lab.kafka) as admin:
        admin.delete_records({TopicPartition(lab.settings.kafka_events_topic, 0): 17})
    with lab.worker() as worker:
        worker.wait_until_ready(2)
        lab.wait_until_done()
        eventually(lambda: metric(worker, "records_gone_total") == 7, 20, worker.tail)
        (line,) = told(worker, "records_gone")
        assert (line["partition"], line["offsets"]) == (0, [10, 17])
