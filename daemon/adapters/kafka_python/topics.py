"""Topics: making them, and looking at them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from kafka.admin import ConfigResource, ConfigResourceType, KafkaAdminClient
from kafka.errors import TopicAlreadyExistsError

from daemon.adapters.kafka_python.client import connection_arguments, kafka_errors_translated
from daemon.config import Settings
from daemon.wire.topics import TopicInfo, TopicSpec


class KafkaTopics:
    """The admin side of the cluster. Raises Unavailable throughout."""

    def __init__(self, settings: Settings) -> None:
        with kafka_errors_translated("connect"):
            self._admin = KafkaAdminClient(**connection_arguments(settings))

    def describe(self, names: Iterable[str]) -> dict[str, TopicInfo]:
        """Those of the topics that exist."""
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
        """Make one topic; False if it is there already."""
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
        """Let go of the connection."""
        self._admin.close()
