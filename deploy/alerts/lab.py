"""Installations of adaptd side by side, each with workers, topics and a producer of its own.

D = source dim, E = target dim
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event, Thread
from urllib.request import urlopen

import numpy as np
from kafka import KafkaProducer
from kafka.errors import KafkaError
from numpy.typing import NDArray

from daemon.adapters.kafka_python.topics import KafkaTopics
from daemon.config import Settings
from daemon.local.process import GuardedProcess
from daemon.local.server import Server, free_port
from daemon.local.services import Services
from daemon.local.valkey import redis_url, start_valkey
from daemon.wire.paired_event import PairedEvent, Vector, WirePair, encode_event, vector
from daemon.wire.topics import specs
from model.mappings.numpy_mlp import apply_numpy
from model.theta.meta_init import fresh_meta_init
from model.theta.meta_init_file import save_meta_init

SOURCE_DIM, TARGET_DIM, HIDDEN_DIM, STREAMS = 8, 3, 16, 12
SEND_EVERY_S = 0.25


@dataclass(frozen=True)
class Plan:
    """What differs from one installation to another."""

    name: str
    settings: Mapping[str, object] = field(default_factory=dict)
    rate: float | None = None
    """Of θ's inner steps; None for one that suits."""
    steps: int = 5
    events_per_s: int = 20
    scale: float = 1.0
    """Of the events' vectors."""
    theta_is_right: bool = False
    """Whether targets are what θ maps the sources to, but for a little noise."""
    shift: float = 0.0
    """How far a stream's targets are moved, to another place for each stream: then θ is nearly
    right, and adapting makes it so."""
    partitions: int = 2
    own_redis: bool = False
    redis_timeout_ms: int = 1_000


class Installation:
    """One installation at work."""

    def __init__(self, plan: Plan, services: Services, folder: Path, stack: ExitStack) -> None:
        self.plan, self._stack, self._folder = plan, stack, folder
        self.kafka = services.kafka_bootstrap_servers
        assert services.kafka is not None
        self.broker = services.kafka
        self.redis: Server | None = stack.enter_context(start_valkey()) if plan.own_redis else None
        self._redis_url = redis_url(self.redis) if self.redis else services.redis_url
        self.theta = folder / f"{plan.name}.safetensors"
        theta = fresh_meta_init(SOURCE_DIM, TARGET_DIM, HIDDEN_DIM, plan.steps, plan.rate)
        save_meta_init(theta, self.theta)
        self._theta = theta
        self.events_per_s = plan.events_per_s
        self.workers: list[GuardedProcess] = []
        self.targets: list[str] = []
        self.producing = True
        self.junk = False
        self._rng = np.random.default_rng(7)
        self._maps_ED = {
            stream: self._rng.standard_normal((TARGET_DIM, SOURCE_DIM)) / SOURCE_DIM**0.5
            for stream in range(STREAMS)
        }
        self.topic = self.settings.kafka_events_topic
        topics = KafkaTopics(self.settings.model_copy(update={"kafka_timeout_ms": 30_000}))
        for spec in specs(self.settings, 0):
            topics.create(spec)
        topics.close()

    @property
    def settings(self) -> Settings:
        """The settings of its workers."""
        name = self.plan.name
        return Settings.model_validate(
            {
                "kafka_bootstrap_servers": self.kafka,
                "kafka_group_id": name,
                "kafka_events_topic": f"{name}-events",
                "kafka_mappings_topic": f"{name}-mappings",
                "kafka_dead_letters_topic": f"{name}-dlq",
                "kafka_meta_inits_topic": f"{name}-meta-inits",
                "kafka_timeout_ms": 2_000,
                "kafka_session_timeout_ms": 6_000,
                "redis_url": self._redis_url,
                "redis_prefix": name,
                "redis_timeout_ms": self.plan.redis_timeout_ms,
                "topic_partitions": self.plan.partitions,
                "meta_init": self.theta,
                "device": "cpu",
                "support_size": 8,
                "query_size": 2,
                "min_support": 3,
                "publish_interval_ms": 500,
                "gate_ridge": False,
                "drift": False,
                "turn_interval_ms": 500,  # many installations share this machine
                "log_format": "json",
                "log_level": "warning",
            }
            | dict(self.plan.settings)
        )

    def environment(self, **others: object) -> dict[str, str]:
        """Returns the environment that tells a program these settings, and others."""
        told = self.settings.model_dump(exclude_unset=True)
        told |= {"redis_url": self._redis_url} | others
        kept = {k: v for k, v in os.environ.items() if not k.startswith("ADAPTD_")}
        return kept | {f"ADAPTD_{name.upper()}": str(value) for name, value in told.items()}

    def start_worker(self, target: str | None = None, **others: object) -> GuardedProcess:
        """Starts a worker, at a free port or at the address of one that is gone."""
        target = target or f"127.0.0.1:{free_port()}"
        environment = self.environment(http_port=target.rpartition(":")[2], **others)
        with (self._folder / f"{self.plan.name}.log").open("ab") as log:
            worker = GuardedProcess(
                [sys.executable, "-m", "daemon", "run"],
                grace_s=0.0,
                stdout=log,
                stderr=log,
                env={"OMP_NUM_THREADS": "1"} | environment,
            )
        self._stack.callback(worker.kill)
        self.workers.append(worker)
        if target not in self.targets:
            self.targets.append(target)
        return worker

    def stop(self) -> None:
        """Ends its workers, and sends it nothing more."""
        self.producing = False
        for worker in self.workers:
            worker.kill()

    def answers(self, target: str) -> bool:
        """Whether the worker at this address can be scraped."""
        try:
            with urlopen(f"http://{target}/metrics", timeout=1):
                return True
        except OSError:
            return False

    def run(self, *words: str) -> None:
        """Runs `adaptd WORDS` with this installation's settings. Raises CalledProcessError."""
        subprocess.run(
            [sys.executable, "-m", "daemon", *words],
            env=self.environment(),
            check=True,
            capture_output=True,
        )

    def events(self, count: int) -> Iterator[tuple[bytes, bytes]]:
        """Yields keys and values of so many events."""
        for stream in self._rng.integers(0, STREAMS, count):
            x_D = self._rng.standard_normal(SOURCE_DIM) * self.plan.scale
            y_E = self._maps_ED[stream] @ x_D
            if self.plan.theta_is_right:
                theta = self._theta
                x_1D = x_D[None].astype(np.float32)
                (o_E,) = apply_numpy(theta.mapping, x_1D, theta.activation, "none")
                moved_E = self.plan.shift * self._maps_ED[stream][:, 0]
                y_E = o_E + moved_E + 0.1 * self._rng.standard_normal(TARGET_DIM)
            pair = WirePair(_vector(x_D), _vector(y_E))
            value = b"\xc1" if self.junk else encode_event(PairedEvent([pair]))
            yield f"stream-{stream}".encode(), value


def _vector(numbers: NDArray[np.float64]) -> Vector:
    return vector(numbers.astype(np.float32))


class Sending:
    """Sends every installation's events from a thread of its own, until it is closed."""

    def __init__(self, installations: Sequence[Installation]) -> None:
        self._installations = installations
        self._stop = Event()
        self._thread = Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        kafka = self._installations[0].kafka
        producer = KafkaProducer(bootstrap_servers=kafka, acks=1, linger_ms=5, max_block_ms=500)
        while not self._stop.wait(SEND_EVERY_S):
            for each in self._installations:
                count = round(each.events_per_s * SEND_EVERY_S) if each.producing else 0
                for key, value in each.events(count):
                    try:
                        producer.send(each.topic, value, key)
                    except KafkaError:
                        break

    def close(self) -> None:
        """Stops sending."""
        self._stop.set()
        self._thread.join(5)


def wait_for(what: str, holds: Callable[[], bool], within_s: float) -> float:
    """Returns after how many seconds it holds. Raises TimeoutError."""
    start = time.monotonic()
    while not holds():
        if time.monotonic() - start > within_s:
            raise TimeoutError(f"{what}: not within {within_s:g} s")
        time.sleep(0.2)
    return time.monotonic() - start
