"""Topics: creating and describing them, by kafka-python's admin client."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any, TypeVar

from kafka.admin import ConfigResource, ConfigResourceType, KafkaAdminClient
from kafka.errors import (
    CoordinatorNotAvailableError,
    GroupAuthorizationFailedError,
    KafkaError,
    NotCoordinatorError,
    TopicAlreadyExistsError,
    TopicAuthorizationFailedError,
)

from daemon.adapters.kafka_python.client import (
    connect,
    described_topic,
    kafka_errors_translated,
)
from daemon.config import Settings
from daemon.wire.topics import TopicInfo, TopicSpec

T = TypeVar("T")

COORDINATOR_TIMEOUT_S = 10.0
NOT_AUTHORIZED = TopicAuthorizationFailedError.errno


def coordinated(ask: Callable[[], T]) -> T:
    """Returns what a group's coordinator answers. Waits for a cluster's first one: a new cluster
    makes it when it is first asked."""
    give_up_at = time.monotonic() + COORDINATOR_TIMEOUT_S
    while True:
        try:
            return ask()
        except (CoordinatorNotAvailableError, NotCoordinatorError):
            if time.monotonic() > give_up_at:
                raise
            time.sleep(0.2)


class KafkaTopics:
    """Creates and describes topics. Every method but `close` waits for the broker, and raises
    Unavailable when it does not answer, Misconfigured when it refuses.
    """

    def __init__(self, settings: Settings) -> None:
        self._admin = connect(KafkaAdminClient, settings)

    def describe(self, names: Iterable[str]) -> dict[str, TopicInfo]:
        """Returns those of the named topics that exist, by name. One that we may not even see
        counts as existing, without rights. Without the right to see its configuration, a topic has
        none."""
        wanted = list(names)
        with kafka_errors_translated("describe topics"):
            described = self._admin.describe_topics(wanted)
            topics = [topic for topic in described if not topic["error_code"]]
            configs = self._configs([topic["name"] for topic in topics])
        hidden = (t["name"] for t in described if t["error_code"] == NOT_AUTHORIZED)
        found = {
            topic["name"]: TopicInfo(
                name=topic["name"],
                incarnation=str(topic["topic_id"]),
                partitions=len(topic["partitions"]),
                config={k: str(v["value"]) for k, v in configs.get(topic["name"], {}).items()},
                rights=_rights(topic.get("authorized_operations")),
            )
            for topic in topics
        }
        return found | {name: TopicInfo(name, "", 0, {}, frozenset()) for name in hidden}

    def _configs(self, names: Sequence[str]) -> Mapping[str, Mapping[str, Any]]:
        """Returns what we may see of the topics' configurations, by topic."""
        if not names:
            return {}
        resources = [ConfigResource(ConfigResourceType.TOPIC, name) for name in names]
        found: Mapping[str, Mapping[str, Any]]
        found = self._admin.describe_configs(resources, config_filter="all")["topic"]
        return found

    def group_rights(self, group: str) -> frozenset[str] | None:
        """Returns what Kafka allows us on a consumer group; None where the brokers do not say."""
        with kafka_errors_translated(f"describe group {group}"):
            try:
                described = coordinated(lambda: self._admin.describe_groups([group])[group])
            except GroupAuthorizationFailedError:
                return frozenset()
        if GroupAuthorizationFailedError.__name__ in str(described["error"]):
            return frozenset()
        return _rights(described.get("authorized_operations"))

    def create(self, spec: TopicSpec) -> bool:
        """Creates one topic and waits until it can be used. Returns False if it exists already."""
        options = {
            "num_partitions": spec.partitions,
            "replication_factor": spec.replication,
            "configs": dict(spec.config),
        }
        with kafka_errors_translated(f"create topic {spec.name}"):
            try:
                self._admin.create_topics({spec.name: options}, wait_for_metadata=True)
            except TopicAlreadyExistsError:
                return False
            except TopicAuthorizationFailedError:  # whoever may only use it need not make it
                if described_topic(self._admin, spec.name) is None:
                    raise
                return False
        return True

    def close(self) -> None:
        """Closes the connection. Never raises."""
        with suppress(KafkaError, OSError):
            self._admin.close()


def _rights(operations: Sequence[str] | None) -> frozenset[str] | None:
    """Returns the rights of a description; brokers that do not tell them leave them empty, though
    whoever may see a topic or a group has one right at least."""
    return frozenset(operations) if operations else None
