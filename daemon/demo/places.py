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
from daemon.adapters.kafka_client import connection
from daemon.adapters.kafka_topics import KafkaTopics
from daemon.config import PREFIX, Settings
from daemon.errors import Misconfigured
from daemon.local.services import local_services
from daemon.topics import mapping_bytes, specs
from model.meta_init import MetaInit

SETTINGS = {
    "SUPPORT_SIZE": "64",
    "QUERY_SIZE": "4",
    "PUBLISH_INTERVAL_MS": "200",
    "MAX_WAIT_MS": "20",
    "TORCH_THREADS": "1",  # a turn is a few small products; the other cores are Kafka's
    "HTTP_PORT": "0",
    "LOG_FORMAT": "json",
}
"""What differs from the daemon's defaults: larger windows, and mappings as fresh as they can be."""

ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
"""Five processes with as many threads as cores each would wait for one another's."""


@dataclass(frozen=True, slots=True)
class Place:
    """Services, and the environment that leads every process of the demo to them."""

    description: str
    environment: Mapping[str, str]

    @property
    def settings(self) -> Settings:
        """As every process of the demo reads them."""
        return config.load(None, self.environment)


@contextmanager
def place(
    kafka: str | None, redis: str | None, meta_init: Path | None, note: Callable[[str], None]
) -> Iterator[Place]:
    """For the length of the block. What was started ends with it, what was made is deleted.

    Raises Misconfigured, ServicesUnavailable.
    """
    if bool(kafka) != bool(redis):
        raise Misconfigured("--kafka and --redis go together: give both, or neither")
    own = dict(SETTINGS) | ({} if meta_init is None else {"META_INIT": str(meta_init.absolute())})
    with ExitStack() as stack:
        if kafka and redis:
            found = Place(f"given: Kafka at {kafka}", _environment(kafka, redis, own | _names()))
            stack.callback(_clean_up, found.settings)
        else:
            note("starting Kafka and Valkey ...")
            local = stack.enter_context(local_services(note))
            found = Place(
                local.description,
                _environment(local.kafka_bootstrap_servers, local.redis_url, own),
            )
        yield found


def make_topics(settings: Settings, theta: MetaInit) -> None:
    """The three topics. Raises Unavailable."""
    size = mapping_bytes(theta.source_dim, theta.hidden_dim, theta.target_dim)
    topics = KafkaTopics(settings)
    try:
        for spec in specs(settings, size):
            topics.create(spec)
    finally:
        topics.close()


def _environment(kafka: str, redis: str, own: Mapping[str, str]) -> dict[str, str]:
    """The caller's, without its ADAPTD_* settings: those are for a daemon, not for the demo's."""
    others = {k: v for k, v in os.environ.items() if not k.upper().startswith(PREFIX)}
    ours = {"KAFKA_BOOTSTRAP_SERVERS": kafka, "REDIS_URL": redis, **own}
    return others | ONE_THREAD | {PREFIX + name: value for name, value in ours.items()}


def _names() -> dict[str, str]:
    """Names that no other run and no other daemon uses."""
    run = f"adaptd-demo-{uuid.uuid4().hex[:8]}"
    return {
        "KAFKA_GROUP_ID": run,
        "KAFKA_EVENTS_TOPIC": f"{run}-paired-events",
        "KAFKA_MAPPINGS_TOPIC": f"{run}-adapted-mappings",
        "KAFKA_DEAD_LETTERS_TOPIC": f"{run}-paired-events-dlq",
        "REDIS_PREFIX": run,
    }


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
