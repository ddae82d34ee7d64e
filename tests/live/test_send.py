"""`adaptd send` on a real Kafka: a worker learns from what was sent, and refuses none of it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import uuid
from pathlib import Path

import numpy as np
import pytest
from kafka import KafkaConsumer, KafkaProducer, TopicPartition

from daemon.local.process import GuardedProcess
from daemon.local.services import Services
from model.theta.meta_init import fresh_meta_init
from model.theta.meta_init_file import save_meta_init

PAIRS, BAD = 24, 3
WITHIN_S = 60.0


@pytest.fixture
def environment(services: Services, tmp_path: Path) -> dict[str, str]:
    prefix = f"send-{uuid.uuid4().hex[:8]}"
    theta = tmp_path / "theta.safetensors"
    save_meta_init(fresh_meta_init(8, 3, hidden_dim=8), theta)
    clean = {k: v for k, v in os.environ.items() if not k.startswith("ADAPTD_")}
    return clean | {
        "ADAPTD_KAFKA_BOOTSTRAP_SERVERS": services.kafka_bootstrap_servers,
        "ADAPTD_REDIS_URL": services.redis_url,
        "ADAPTD_REDIS_PREFIX": prefix,
        "ADAPTD_KAFKA_GROUP_ID": prefix,
        "ADAPTD_KAFKA_EVENTS_TOPIC": f"{prefix}-events",
        "ADAPTD_KAFKA_MAPPINGS_TOPIC": f"{prefix}-mappings",
        "ADAPTD_KAFKA_DEAD_LETTERS_TOPIC": f"{prefix}-dlq",
        "ADAPTD_KAFKA_META_INITS_TOPIC": f"{prefix}-meta-inits",
        "ADAPTD_META_INIT": str(theta),
        "ADAPTD_HTTP_PORT": "0",
        "OMP_NUM_THREADS": "1",
    }


def adaptd(environment: dict[str, str], *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "daemon", *words],
        env=environment,
        capture_output=True,
        text=True,
        timeout=WITHIN_S,
        check=False,
    )


def file_of_pairs(folder: Path) -> Path:
    rng = np.random.default_rng(0)
    lines = []
    for i in range(PAIRS):
        x = rng.normal(size=8).round(3)
        pair = {"source": x.tolist(), "target": (2 * x[:3]).tolist()}
        lines.append({"stream": f"camera-{i % 2}"} | pair)
    bad = [{"stream": "camera-0", "source": [1, 2], "target": [1, 2, 3]}] * BAD
    path = folder / "pairs.jsonl"
    path.write_text("".join(f"{json.dumps(line)}\n" for line in [*bad, *lines]))
    return path


@pytest.mark.services
def test_a_worker_learns_from_what_was_sent(environment: dict[str, str], tmp_path: Path) -> None:
    path = file_of_pairs(tmp_path)
    early = adaptd(environment, "send", str(path))
    assert early.returncode == 2
    assert "run adaptd topics create" in early.stderr
    assert adaptd(environment, "topics", "create").returncode == 0
    done = adaptd(environment, "send", str(path))
    assert done.returncode == 1, done.stderr
    topic = environment["ADAPTD_KAFKA_EVENTS_TOPIC"]
    told = f"{PAIRS} pairs of 2 streams sent to {topic}; left out: {BAD} wrong_dimension\n"
    assert done.stdout.endswith(told)
    assert f"{path}: line 1: source of pair 0: " in done.stderr
    with (
        (tmp_path / "log").open("wb") as log,
        GuardedProcess(
            [sys.executable, "-m", "daemon", "run"], env=environment, stderr=log
        ) as worker,
    ):
        versions = mappings_of(environment, {b"camera-0", b"camera-1"})
        assert worker.poll() is None
    assert versions == {b"camera-0", b"camera-1"}, (tmp_path / "log").read_text()
    assert end_of(environment, environment["ADAPTD_KAFKA_DEAD_LETTERS_TOPIC"]) == 0
    assert end_of(environment, topic) == PAIRS


@pytest.mark.services
def test_the_partition_is_that_of_kafka_pythons_default(
    environment: dict[str, str], tmp_path: Path
) -> None:
    adaptd(environment, "topics", "create")
    adaptd(environment, "send", str(file_of_pairs(tmp_path)))
    topic = environment["ADAPTD_KAFKA_EVENTS_TOPIC"]
    producer = KafkaProducer(bootstrap_servers=environment["ADAPTD_KAFKA_BOOTSTRAP_SERVERS"])
    keys = {b"camera-0", b"camera-1"}
    expected = {key: producer.send(topic, key=key, value=b"").get(30).partition for key in keys}
    producer.close()
    consumer = consumer_of(environment, topic)
    found: dict[bytes, set[int]] = {}
    deadline = time.monotonic() + WITHIN_S
    while sum(consumer.position(p) for p in consumer.assignment()) < PAIRS + len(keys):
        assert time.monotonic() < deadline
        for place, records in consumer.poll(timeout_ms=200).items():
            for record in records:
                found.setdefault(record.key, set()).add(place.partition)
    consumer.close()
    assert found == {key: {partition} for key, partition in expected.items()}


def consumer_of(environment: dict[str, str], topic: str) -> KafkaConsumer:
    consumer = KafkaConsumer(bootstrap_servers=environment["ADAPTD_KAFKA_BOOTSTRAP_SERVERS"])
    places = [TopicPartition(topic, p) for p in consumer.partitions_for_topic(topic)]
    consumer.assign(places)
    consumer.seek_to_beginning(*places)
    return consumer


def mappings_of(environment: dict[str, str], wanted: set[bytes]) -> set[bytes]:
    """Returns the streams that a mapping of their own came for, once it came for all wanted."""
    consumer = consumer_of(environment, environment["ADAPTD_KAFKA_MAPPINGS_TOPIC"])
    found: set[bytes] = set()
    deadline = time.monotonic() + WITHIN_S
    while found != wanted and time.monotonic() < deadline:
        for records in consumer.poll(timeout_ms=200).values():
            found |= {record.key for record in records if record.value is not None}
    consumer.close()
    return found


def end_of(environment: dict[str, str], topic: str) -> int:
    consumer = consumer_of(environment, topic)
    ends = consumer.end_offsets(list(consumer.assignment()))
    consumer.close()
    return sum(ends.values())
