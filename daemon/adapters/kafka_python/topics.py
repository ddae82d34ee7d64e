"""Topics: creating and describing them, by kafka-python's admin client."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Any

from kafka.admin import ConfigResource, ConfigResourceType, KafkaAdminClient
from kafka.errors import KafkaError, TopicAlreadyExistsError

from daemon.adapters.kafka_python.client import connection_arguments, kafka_errors_translated
from daemon.adapters.kafka_python.mended import open_client
from daemon.config import Settings
from daemon.wire.topics import TopicInfo, TopicSpec


class KafkaTopics:
    """Creates and describes topics. Every method but `close` waits for the broker, and raises
    Unavailable when it does not answer, Misconfigured when it refuses.
    """

    def __init__(self, settings: Settings) -> None:
        with kafka_errors_translated("connect"):
            self._admin = open_client(KafkaAdminClient, **connection_arguments(settings))

    def describe(self, names: Iterable[str]) -> dict[str, TopicInfo]:
        """Returns those of the named topics that exist, by name."""
        wanted = list(names)
        with kafka_errors_translated("describe topics"):
            topics = [t for t in self._admin.describe_topics(wanted) if not t["error_code"]]
            found = [topic["name"] for topic in topics]
            resources = [ConfigResource(ConfigResourceType.TOPIC, name) for name in found]
            configs: Mapping[str, Mapping[str, Any]] = (
                self._admin.describe_configs(resources, config_filter="all")["topic"]
                if resources
                else {}
            )
        return {
            topic["name"]: TopicInfo(
                name=topic["name"],
                incarnation=str(topic["topic_id"]),
                partitions=len(topic["partitions"]),
                config={k: str(v["value"]) for k, v in configs[topic["name"]].items()},
            )
            for topic in topics
        }

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
        return True

    def close(self) -> None:
        """Closes the connection. Never raises."""
        with suppress(KafkaError, OSError):
            self._admin.close()
