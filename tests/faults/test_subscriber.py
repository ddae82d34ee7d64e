"""examples/serve.py, a program made of what docs/sdk.md says, always serves the newest good
mapping: through a worker's kill -9, a compaction, garbage in the topic, and its own ends, good and
bad."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from kafka import KafkaAdminClient, KafkaProducer
from kafka.admin import ConfigResource, ConfigResourceType

from tests.faults.conftest import Install
from tests.faults.lab import SOURCE_DIM, Installation, Spring

SERVE = Path(__file__).parents[2] / "examples" / "serve.py"
STREAMS = [f"stream-{i}" for i in range(6)]
X = np.linspace(-1, 1, SOURCE_DIM).tolist()
SOON_S = 40.0


class Program:
    """A running examples/serve.py; no answer of it may be older than the one before."""

    def __init__(self, process: subprocess.Popen[str], seen: dict[str, tuple[int, int]]) -> None:
        self.process, self._seen = process, seen

    def ask(self, stream: str) -> dict[str, Any]:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps({"stream": stream, "x": X}) + "\n")
        self.process.stdin.flush()
        answer: dict[str, Any] = json.loads(self.process.stdout.readline())
        order = (answer["epoch"], answer["version"])
        assert order >= self._seen.get(stream, order), f"{stream}: went back to {order}"
        self._seen[stream] = order
        return answer

    def wait_for(self, hashes: dict[str, str]) -> None:
        """Until every stream is served by the mapping of this content hash."""
        give_up_at = time.monotonic() + SOON_S
        while (served := {s: self.ask(s)["hash"] for s in hashes}) != hashes:
            assert time.monotonic() < give_up_at, f"{served}, not {hashes}"
            time.sleep(0.05)

    def end(self) -> None:
        """Lets it end by itself, as its input does."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        assert self.process.wait(20) == 0


def test_it_serves_the_newest_good_mapping_whatever_happens(
    install: Install, theta: Path, tmp_path: Path
) -> None:
    lab, spring = install(2), Spring()
    seen: dict[str, tuple[int, int]] = {}

    @contextmanager
    def program() -> Iterator[Program]:
        with subprocess.Popen(
            [sys.executable, str(SERVE)],
            cwd=tmp_path,
            env=lab.environment | {"PYTHONPATH": str(SERVE.parents[1])},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        ) as process:
            yield Program(process, seen)
            process.kill()

    def newest() -> dict[str, str]:
        """What the truth says, computed from the events alone."""
        return {stream: shown.content_hash for stream, shown in lab.truth.mappings(theta).items()}

    def feed(events: int) -> None:
        lab.send([spring.event(stream) for _ in range(events) for stream in STREAMS])

    feed(6)
    with lab.worker() as worker:
        lab.wait_until_done()
        with program() as first:
            first.wait_for(newest())
            feed(1)
            worker.process.kill()  # kill -9, in the middle of it
            feed(2)
            assert set(first.ask(STREAMS[0])) == {"y", "served_by", "epoch", "version", "hash"}
            lab.remove_dead_members()
            with lab.worker():
                lab.wait_until_done()
                first.wait_for(newest())
                spoil(lab)
                feed(1)
                lab.wait_until_done()
                first.wait_for(newest())
                first.end()  # its snapshot is written
                feed(1)
                lab.wait_until_done()
                compact(lab)
                with program() as second:
                    second.wait_for(newest())
                    feed(1)
                    lab.wait_until_done()
                    second.wait_for(newest())
                    second.process.kill()  # its snapshot is the first one's
                feed(1)
                lab.wait_until_done()
                with program() as third:
                    third.wait_for(newest())
                    third.end()


def spoil(lab: Installation) -> None:
    """Writes behind the newest mappings whatever could be in the way: an older one of a worker that
    was fenced, garbage, a mapping cut short, one of another stream, a key that is no text."""
    topic = lab.settings.kafka_mappings_topic
    records = lab.records(topic)
    with closing(KafkaProducer(bootstrap_servers=lab.kafka)) as producer:
        for record in records[: len(STREAMS)]:
            for key, value in [
                (record.key, record.value),
                (record.key, b"garbage"),
                (record.key, record.value[:-9]),
                (b"\xff", record.value),
                (b"another stream", record.value),
            ]:
                producer.send(topic, value, key, partition=record.partition)
        producer.flush(20)


def compact(lab: Installation) -> None:
    """Has Kafka compact the topic of mappings, and waits until it did."""
    topic = lab.settings.kafka_mappings_topic
    config = {"segment.ms": "100", "min.cleanable.dirty.ratio": "0.0", "max.compaction.lag.ms": "1"}
    before = len(lab.records(topic))
    with closing(KafkaAdminClient(bootstrap_servers=lab.kafka)) as admin:
        admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, topic, config)])
    eventually(lambda: roll(lab, topic) and len(lab.records(topic)) < before)


def roll(lab: Installation, topic: str) -> bool:
    """Begins a new segment of each partition: the newest one is never compacted."""
    with closing(KafkaProducer(bootstrap_servers=lab.kafka)) as producer:
        for partition in range(lab.partitions):
            producer.send(topic, b"no mapping", b"roller", partition=partition)
        producer.flush(20)
    time.sleep(0.3)
    return True


def eventually(holds: Callable[[], bool]) -> None:
    give_up_at = time.monotonic() + SOON_S
    while not holds():
        assert time.monotonic() < give_up_at
