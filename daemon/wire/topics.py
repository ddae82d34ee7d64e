"""What the topics must be like, and what is wrong with those that exist. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Set
from dataclasses import dataclass

from daemon.config import Settings

BROKER_DEFAULT_BYTES = 1_048_588
"""Kafka's default of max.message.bytes."""
CONFIGS = "DESCRIBE_CONFIGS"
GROUP_RIGHT = "READ"
"""What Kafka's ACLs must allow the worker on its consumer group."""
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
    rights: frozenset[str] = frozenset()
    """What Kafka's ACLs must allow the worker on it, in Kafka's own words."""


@dataclass(frozen=True, slots=True)
class TopicInfo:
    """A topic that exists. `incarnation` changes when the topic is deleted and made anew."""

    name: str
    incarnation: str
    partitions: int
    config: Mapping[str, str]
    rights: frozenset[str] | None = None
    """What Kafka allows us on it, in Kafka's own words; None where the brokers do not say."""


def mapping_bytes(source_dim: int, hidden_dim: int, target_dim: int) -> int:
    """Returns the bytes of one mapping's tensors: of an adapted mapping or of ridge regression,
    whichever are more."""
    hidden_dim = max(hidden_dim, min(source_dim, target_dim))
    return 4 * (hidden_dim * (source_dim + 1) + target_dim * (hidden_dim + 1))


def specs(settings: Settings, mapping_size: int) -> list[TopicSpec]:
    """Returns the topics as `adaptd topics create` makes them."""
    mapping, letter = mapping_size + ENVELOPE_BYTES, settings.dead_letter_max_bytes + ENVELOPE_BYTES

    def spec(name: str, cleanup: str, largest: int, must_fit: int, *rights: str) -> TopicSpec:
        config = {
            "cleanup.policy": cleanup,
            "max.message.bytes": str(max(BROKER_DEFAULT_BYTES, largest)),
        }
        return TopicSpec(
            name,
            settings.topic_partitions,
            settings.topic_replication,
            config,
            must_fit,
            rights=frozenset(rights),
        )

    event = settings.max_event_bytes + ENVELOPE_BYTES
    made = [
        spec(settings.kafka_events_topic, "delete", event, 0, "READ"),
        spec(settings.kafka_mappings_topic, "compact", mapping, mapping, "WRITE", CONFIGS),
        spec(settings.kafka_dead_letters_topic, "delete", letter, letter, "WRITE"),
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
        rights=frozenset({"READ", CONFIGS}),
    )


EVIDENCE_RETENTION_MS = 7 * 86_400_000
"""Longer than a canary may last (`daemon.canary.operate`)."""


def evidence_spec(settings: Settings) -> TopicSpec:
    """Returns the topic of evidence. It is not compacted: the first record of a key counts."""
    return TopicSpec(
        name=settings.kafka_evidence_topic,
        partitions=1,
        replication=settings.topic_replication,
        config={"cleanup.policy": "delete", "retention.ms": str(EVIDENCE_RETENTION_MS)},
        must_fit=0,
        one_partition=True,
        rights=frozenset({"READ", "WRITE", CONFIGS}),
    )


def optional_specs(settings: Settings) -> list[TopicSpec]:
    """Returns the topics that `adaptd topics create` makes besides, and without which the daemon
    serves as well."""
    canaries = settings.follow_meta_inits and settings.canary != "off"
    return [evidence_spec(settings)] if canaries else []


def evidence_topic_fault(spec: TopicSpec, found: Mapping[str, TopicInfo]) -> str | None:
    """Returns in a line what keeps workers from using the topic of evidence."""
    return next(faults([spec], found), None)


def faults(wanted: list[TopicSpec], found: Mapping[str, TopicInfo]) -> Iterator[str]:
    """Yields one line for everything that would lose data or stop the daemon later."""
    for spec in wanted:
        topic = found.get(spec.name)
        if topic is None:
            if not spec.optional:
                yield f"topic {spec.name!r} does not exist; make it with: adaptd topics create"
            continue
        if topic.rights is not None and (missing := spec.rights - topic.rights):
            yield lacking(f"topic {spec.name!r}", missing, hidden=not topic.rights)
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


def group_faults(settings: Settings, rights: Set[str] | None) -> Iterator[str]:
    """Yields a line when the consumer group may not be joined. `rights` are those that Kafka gives
    us on it; None where the brokers do not say."""
    if rights is not None and GROUP_RIGHT not in rights:
        yield lacking(f"group {settings.kafka_group_id!r}", [GROUP_RIGHT])


def lacking(what: str, missing: Iterable[str], *, hidden: bool = False) -> str:
    """Returns the line that says which rights Kafka's ACLs do not give. `hidden`: we may not even
    see whether it exists, so that all its rights count as missing."""
    rights = " and ".join(sorted(missing))
    if hidden:
        return f"{what} is hidden from this user, who needs the right {rights} (Kafka's ACLs)"
    return f"{what}: this user lacks the right {rights} (Kafka's ACLs)"


def least_kafka_acls(settings: Settings, wanted: Iterable[TopicSpec]) -> Iterator[str]:
    """Yields a line for each right that a worker needs of Kafka."""
    for spec in wanted:
        yield f"topic {spec.name}: {', '.join(sorted(spec.rights))}"
    yield f"group {settings.kafka_group_id}: {GROUP_RIGHT}"
