"""A daemon at work: a real `adaptd run` on real services, fed with real events."""

from __future__ import annotations

import os
import sys
import time
import urllib.request
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from daemon.local.process import GuardedProcess
from daemon.local.server import free_port
from daemon.local.services import Services

STREAMS, EVENTS_PER_STREAM = 6, 40
SOURCE_DIM, TARGET_DIM = 16, 8
MALFORMED = 3


@dataclass(frozen=True)
class DaemonAtWork:
    """Where it reads, writes and answers. Every event was read when a test gets this."""

    kafka_bootstrap_servers: str
    events_topic: str
    mappings_topic: str
    dead_letters_topic: str
    url: str
    log: Path
    process: GuardedProcess
    environment: dict[str, str]
    """The settings that it has, as variables."""

    def get(self, path: str) -> str:
        with urllib.request.urlopen(self.url + path, timeout=5) as answer:
            return str(answer.read().decode())


@pytest.fixture(scope="session")
def daemon_at_work(
    services: Services, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[DaemonAtWork]:
    from daemon.adapters.kafka_python.topics import KafkaTopics
    from daemon.config import Settings
    from daemon.wire.topics import specs

    folder = tmp_path_factory.mktemp("daemon")
    prefix = f"live-{uuid.uuid4().hex[:8]}"
    port = free_port()
    environment = {
        "ADAPTD_KAFKA_BOOTSTRAP_SERVERS": services.kafka_bootstrap_servers,
        "ADAPTD_REDIS_URL": services.redis_url,
        "ADAPTD_REDIS_PREFIX": prefix,
        "ADAPTD_KAFKA_GROUP_ID": prefix,
        "ADAPTD_KAFKA_EVENTS_TOPIC": f"{prefix}-events",
        "ADAPTD_KAFKA_MAPPINGS_TOPIC": f"{prefix}-mappings",
        "ADAPTD_KAFKA_DEAD_LETTERS_TOPIC": f"{prefix}-dlq",
        "ADAPTD_KAFKA_META_INITS_TOPIC": f"{prefix}-meta-inits",
        "ADAPTD_TOPIC_PARTITIONS": "2",
        "ADAPTD_PUBLISH_INTERVAL_MS": "100",
        "ADAPTD_META_INIT": str(_theta(folder)),
        "ADAPTD_HTTP_PORT": str(port),
        "ADAPTD_LOG_FORMAT": "json",
        "ADAPTD_LOG_LEVEL": "debug",
    }
    settings = Settings(
        kafka_bootstrap_servers=services.kafka_bootstrap_servers,
        kafka_events_topic=f"{prefix}-events",
        kafka_mappings_topic=f"{prefix}-mappings",
        kafka_dead_letters_topic=f"{prefix}-dlq",
        kafka_meta_inits_topic=f"{prefix}-meta-inits",
        topic_partitions=2,
    )
    topics = KafkaTopics(settings)
    for spec in specs(settings, 0):
        topics.create(spec)
    topics.close()
    _produce(settings)
    log = folder / "log.jsonl"
    with (
        log.open("wb") as out,
        GuardedProcess(
            [sys.executable, "-m", "daemon", "run"],
            env=_clean_environment() | environment,
            stderr=out,
        ) as process,
    ):
        at_work = DaemonAtWork(
            kafka_bootstrap_servers=services.kafka_bootstrap_servers,
            events_topic=settings.kafka_events_topic,
            mappings_topic=settings.kafka_mappings_topic,
            dead_letters_topic=settings.kafka_dead_letters_topic,
            url=f"http://127.0.0.1:{port}",
            log=log,
            process=process,
            environment=environment,
        )
        _wait_until_settled(at_work)
        yield at_work


def _theta(folder: Path) -> Path:
    from model.theta.meta_init import fresh_meta_init
    from model.theta.meta_init_file import save_meta_init

    path = folder / "theta.safetensors"
    save_meta_init(fresh_meta_init(SOURCE_DIM, TARGET_DIM, hidden_dim=16), path)
    return path


def _clean_environment() -> dict[str, str]:
    return {k: v for k, v in os.environ.items() if not k.startswith("ADAPTD_")}


def _produce(settings: object) -> None:
    from daemon.adapters.kafka_python.outbox import KafkaPythonOutbox
    from daemon.config import Settings
    from daemon.wire import paired_event
    from daemon.wire.record import Message

    assert isinstance(settings, Settings)
    rng = np.random.default_rng(7)
    spaces = rng.standard_normal((STREAMS, TARGET_DIM, SOURCE_DIM)).astype(np.float32) / 4
    messages = []
    for event in range(STREAMS * EVENTS_PER_STREAM):
        stream = event % STREAMS
        x = rng.standard_normal(SOURCE_DIM).astype(np.float32)
        pair = paired_event.WirePair(
            paired_event.vector(x), paired_event.vector(spaces[stream] @ x)
        )
        value = paired_event.encode_event(paired_event.PairedEvent([pair]))
        topic = settings.kafka_events_topic
        messages.append(Message(topic, f"stream-{stream}".encode(), value, ()))
    messages += [Message(topic, b"stream-0", b"\xc1 not MessagePack", ())] * MALFORMED
    outbox = KafkaPythonOutbox(settings, "test-producer")
    outbox.send(messages)
    outbox.close()


def _wait_until_settled(at_work: DaemonAtWork) -> None:
    """Every event read, and no mapping owed any more."""
    deadline = time.monotonic() + 60
    wanted = f'adaptd_events_total{{outcome="accepted"}} {STREAMS * EVENTS_PER_STREAM}.0'
    idle = ('adaptd_streams{state="changed"} 0.0', 'adaptd_streams{state="deferred"} 0.0')
    while time.monotonic() < deadline:
        assert at_work.process.poll() is None, at_work.log.read_text()
        try:
            scrape = at_work.get("/metrics")
        except OSError:
            scrape = ""
        if all(line in scrape for line in (wanted, *idle)):
            return
        time.sleep(0.2)
    raise TimeoutError(f"the daemon did not read everything in 60 s:\n{at_work.log.read_text()}")
