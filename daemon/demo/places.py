"""Where the demo runs: services of its own, or given ones with names of its own in them."""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from kafka import KafkaAdminClient
from kafka.errors import KafkaError
from redis import Redis, RedisError

from daemon import config
from daemon.adapters.kafka_python.client import connection
from daemon.adapters.kafka_python.topics import KafkaTopics
from daemon.config import PREFIX, Settings
from daemon.demo.part import PARTS, PartName
from daemon.demo.plan import Plan
from daemon.demo.script import Script
from daemon.errors import Misconfigured
from daemon.local.services import local_services
from daemon.wire.topics import mapping_bytes, specs
from model.theta.meta_init import MetaInit

SETTINGS = {
    "SUPPORT_SIZE": "64",
    "QUERY_SIZE": "4",
    "PUBLISH_INTERVAL_MS": "200",
    "MAX_WAIT_MS": "20",
    "TORCH_THREADS": "1",  # a turn is a few small products; the other cores are Kafka's
    "HTTP_PORT": "0",
    "LOG_FORMAT": "json",
    "FOLLOW_META_INITS": "false",  # what is active on given services is not the demo's
}
"""What differs from the daemon's defaults: larger windows, and mappings as fresh as they can be."""

ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
"""Six processes with as many threads as cores each would wait for one another's."""


@dataclass(frozen=True, slots=True)
class Place:
    """Services, and the environments that lead the demo's processes to them."""

    description: str
    environment: Mapping[str, str]
    """Every process's."""
    own: Mapping[PartName, Mapping[str, str]]
    """What each part's processes have besides: topics, a group, a Redis prefix, a θ."""

    def environment_of(self, part: PartName) -> dict[str, str]:
        """Of the part's worker."""
        return {**self.environment, **self.own[part]}

    def settings_of(self, part: PartName) -> Settings:
        """As the part's worker reads them."""
        return config.load_settings(None, self.environment_of(part))

    def script(self, plan: Plan) -> Script:
        """For a process that serves all parts."""
        return Script(plan, {part: dict(own) for part, own in self.own.items()})


@contextmanager
def place(
    kafka: str | None,
    redis: str | None,
    thetas: Mapping[PartName, Path],
    note: Callable[[str], None],
) -> Iterator[Place]:
    """For the length of the block. What was started ends with it, what was made is deleted.

    Raises Misconfigured, ServicesUnavailable.
    """
    if bool(kafka) != bool(redis):
        raise Misconfigured("--kafka and --redis go together: give both, or neither")
    run = f"adaptd-demo-{uuid.uuid4().hex[:8]}"
    own = {part: _own(f"{run}-{part}", thetas[part]) for part in PARTS}
    with ExitStack() as stack:
        if kafka and redis:
            found = Place(f"given: Kafka at {kafka}", _environment(kafka, redis), own)
            for part in PARTS:
                stack.callback(_clean_up, found.settings_of(part))
        else:
            note("starting Kafka and Valkey ...")
            local = stack.enter_context(local_services(note))
            environment = _environment(local.kafka_bootstrap_servers, local.redis_url)
            found = Place(local.description, environment, own)
        yield found


def make_topics(settings: Settings, theta: MetaInit) -> None:
    """One part's three topics. Raises Unavailable."""
    size = mapping_bytes(theta.source_dim, theta.hidden_dim, theta.target_dim)
    topics = KafkaTopics(settings)
    try:
        for spec in specs(settings, size):
            topics.create(spec)
    finally:
        topics.close()


def _environment(kafka: str, redis: str) -> dict[str, str]:
    """The caller's, without its ADAPTD_* settings: those are for a daemon, not for the demo's."""
    others = {k: v for k, v in os.environ.items() if not k.upper().startswith(PREFIX)}
    ours = {"KAFKA_BOOTSTRAP_SERVERS": kafka, "REDIS_URL": redis, **SETTINGS}
    return others | ONE_THREAD | _variables(ours)


def _own(name: str, theta: Path) -> dict[str, str]:
    """Names that no other part, no other run and no other daemon uses."""
    return _variables(
        {
            "KAFKA_GROUP_ID": name,
            "KAFKA_EVENTS_TOPIC": f"{name}-paired-events",
            "KAFKA_MAPPINGS_TOPIC": f"{name}-adapted-mappings",
            "KAFKA_DEAD_LETTERS_TOPIC": f"{name}-paired-events-dlq",
            "REDIS_PREFIX": name,
            "META_INIT": str(theta),
        }
    )


def _variables(settings: Mapping[str, str]) -> dict[str, str]:
    return {PREFIX + name: value for name, value in settings.items()}


def _clean_up(settings: Settings) -> None:
    """Delete from given services what the demo made there; best effort, for they may be gone."""
    with suppress(KafkaError, OSError), KafkaAdminClient(**connection(settings)) as admin:
        ours = [t for t in admin.list_topics() if t.startswith(f"{settings.kafka_group_id}-")]
        if ours:
            admin.delete_topics(ours)
        admin.delete_groups([settings.kafka_group_id])
    with suppress(RedisError), Redis.from_url(settings.redis_url.get_secret_value()) as client:
        for key in client.scan_iter(match=f"{settings.redis_prefix}*", count=1000):
            client.delete(key)
