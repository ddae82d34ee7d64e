"""What the topics must be like, and what is wrong with those that exist. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from daemon.config import Settings

BROKER_DEFAULT_BYTES = 1_048_588
"""Kafka's default of max.message.bytes."""
ENVELOPE_BYTES = 16_384
"""Room for a record's key, headers and metadata beside its tensors or its raw value."""


@dataclass(frozen=True, slots=True)
class TopicSpec:
    """What a topic is to be like."""

    name: str
    partitions: int
    replication: int
    config: Mapping[str, str]
    must_fit: int
    """The largest record, in bytes, that adaptd may write to it; 0 if adaptd only reads it."""
    optional: bool = False
    """Whether the daemon works without it."""
    one_partition: bool = False
    """Whether records of different keys must stay in order."""


@dataclass(frozen=True, slots=True)
class TopicInfo:
    """A topic that exists. `incarnation` changes when the topic is deleted and made anew."""

    name: str
    incarnation: str
    partitions: int
    config: Mapping[str, str]


def mapping_bytes(source_dim: int, hidden_dim: int, target_dim: int) -> int:
    """Returns the bytes of one mapping's tensors: of an adapted mapping or of ridge regression,
    whichever are more."""
    hidden_dim = max(hidden_dim, min(source_dim, target_dim))
    return 4 * (hidden_dim * (source_dim + 1) + target_dim * (hidden_dim + 1))


def specs(settings: Settings, mapping_size: int) -> list[TopicSpec]:
    """Returns the topics as `adaptd topics create` makes them."""
    mapping, letter = mapping_size + ENVELOPE_BYTES, settings.dead_letter_max_bytes + ENVELOPE_BYTES

    def spec(name: str, cleanup: str, largest: int, must_fit: int) -> TopicSpec:
        config = {
            "cleanup.policy": cleanup,
            "max.message.bytes": str(max(BROKER_DEFAULT_BYTES, largest)),
        }
        return TopicSpec(
            name, settings.topic_partitions, settings.topic_replication, config, must_fit
        )

    event = settings.max_event_bytes + ENVELOPE_BYTES
    made = [
        spec(settings.kafka_events_topic, "delete", event, 0),
        spec(settings.kafka_mappings_topic, "compact", mapping, mapping),
        spec(settings.kafka_dead_letters_topic, "delete", letter, letter),
    ]
    return [*made, meta_inits_spec(settings)] if settings.follow_meta_inits else made


def meta_inits_spec(settings: Settings) -> TopicSpec:
    """Returns the topic of θs. It sets its own `max.message.bytes`, which overrides the broker's
    `message.max.bytes`."""
    largest = settings.meta_init_max_bytes + ENVELOPE_BYTES
    return TopicSpec(
        name=settings.kafka_meta_inits_topic,
        partitions=1,
        replication=settings.topic_replication,
        config={"cleanup.policy": "compact", "max.message.bytes": str(largest)},
        must_fit=0,
        optional=True,
        one_partition=True,
    )


def faults(wanted: list[TopicSpec], found: Mapping[str, TopicInfo]) -> Iterator[str]:
    """Yields one line for everything that would lose data or stop the daemon later."""
    for spec in wanted:
        topic = found.get(spec.name)
        if topic is None:
            if not spec.optional:
                yield f"topic {spec.name!r} does not exist; make it with: adaptd topics create"
            continue
        if spec.one_partition and topic.partitions != 1:
            yield f"topic {spec.name!r} has {topic.partitions} partitions; it must have one"
        cleanup = topic.config.get("cleanup.policy", "")
        if spec.config["cleanup.policy"] == "compact" and "compact" not in cleanup:
            yield f"topic {spec.name!r} has cleanup.policy {cleanup!r}; it must be 'compact'"
        if spec.config["cleanup.policy"] == "delete" and "compact" in cleanup:
            yield f"topic {spec.name!r} is compacted, which would lose events; use 'delete'"
        largest = int(topic.config.get("max.message.bytes", "0"))
        if spec.must_fit and largest and largest < spec.must_fit:
            yield f"topic {spec.name!r} takes records of {largest} bytes, not {spec.must_fit}"
