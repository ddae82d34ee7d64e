"""The subscriber's process: reads all three topics and judges every event prequentially.

    python -m daemon.demo.subscriber           (ADAPTD_* settings as for the daemon)

It is what a user of the mappings would write, and it trusts none of them: `adapted_mapping.decode`
verifies each content hash, and every score is computed here from the published tensors.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cache
from typing import Any, NamedTuple

import numpy as np
import torch
from kafka import KafkaConsumer, TopicPartition
from numpy.typing import NDArray

from daemon import config
from daemon.adapters.kafka_client import QUIET, connection
from daemon.config import Settings
from daemon.demo.news import DeadLettered, Listening, Mapped, Refused, Scored, tell
from daemon.demo.plan import VENDOR, tenant, vectors
from daemon.demo.score import Follower, candidate_concepts
from daemon.errors import MalformedEvent
from daemon.wire import adapted_mapping, paired_event
from daemon.wire.dead_letter import HEADER_PREFIX
from daemon.wire.paired_event import EventLimits
from model.data import emoji
from model.engine import Engine
from model.episode import FloatArray
from model.errors import BadContent
from model.meta_init import load, shipped

POLL_MS = 200


class Received(NamedTuple):
    """One good event."""

    tenant: str
    offset: int
    concept: int
    picture: NDArray[Any]
    y_E: FloatArray


class Subscriber:
    """All tenants, as the topics show them."""

    def __init__(self, settings: Settings) -> None:
        theta = load(settings.meta_init or shipped())
        self._engine = Engine(theta, "cpu")
        self._theta, self._activation = theta.mapping, theta.activation
        self._limits = EventLimits(settings.max_event_bytes, settings.max_pairs_per_event)
        self._followers: dict[str, Follower] = {}

    def take_events(self, records: Sequence[Any]) -> None:
        """Judge the good ones; the malformed ones are the daemon's to report."""
        good = [event for record in records if (event := self._read(record))]
        x_ND = self._engine.encode("source", [event.picture for event in good])
        for event, x_D in zip(good, x_ND, strict=True):
            self._judge(event, x_D)

    def take_mapping(self, record: Any) -> None:
        """Verify it, then use it for the events to come."""
        try:
            mapping = adapted_mapping.decode(record.value)
        except ValueError as e:
            tell(Refused(str(e)))
            return
        facts = mapping.facts
        self._follower(facts.stream).take_mapping(mapping)
        tell(
            Mapped(
                tenant=facts.stream,
                version=facts.version,
                outcome=facts.outcome.value,
                loss_before=facts.query_loss_before,
                loss_after=facts.query_loss_after,
                # our events name no time of their own, so theirs is their record's
                latency_ms=record.timestamp - facts.event_time_ms,
            )
        )

    def _read(self, record: Any) -> Received | None:
        try:
            event = paired_event.decode(record, record.partition, self._limits)
            (pair,) = event.pairs
            picture = self._engine.prepare("source", *paired_event.raw_content(pair.source))
            vector = self._engine.prepare("target", *paired_event.raw_content(pair.target))
        except (MalformedEvent, BadContent):
            return None
        y_E = np.asarray(vector, np.float32)
        return Received(event.stream, event.offset, _concept(pair.label), picture, y_E)

    def _judge(self, event: Received, x_D: FloatArray) -> None:
        concepts = candidate_concepts(event.concept, _pool(), tenant(event.tenant).seed)
        candidates_CE = vectors(event.tenant)[concepts]
        candidates_CE[0] = event.y_E
        follower = self._follower(event.tenant)
        score = follower.judge(event.offset, x_D, event.y_E, candidates_CE)
        tell(
            Scored(event.tenant, 0, {})
            if score is None
            else Scored(event.tenant, score.support_pairs, score.hits)
        )

    def _follower(self, name: str) -> Follower:
        return self._followers.setdefault(name, Follower(self._theta, self._activation))


def dead_letter(record: Any) -> DeadLettered:
    """What the dead letter's headers say."""
    ours = {n.removeprefix(HEADER_PREFIX): v.decode(errors="replace") for n, v in record.headers}
    return DeadLettered(
        tenant=(record.key or b"").decode(errors="replace"),
        partition=int(ours["partition"]),
        offset=int(ours["offset"]),
        reason=ours["reason"],
        detail=ours["detail"],
    )


def follow(consumer: KafkaConsumer, subscriber: Subscriber, settings: Settings) -> None:
    """For ever. Of what one poll brought, mappings come first: none can have seen an event of a
    larger offset, and the newer the mapping, the more it says about the daemon."""
    while True:
        polled = consumer.poll(POLL_MS)
        for record in _of(settings.kafka_mappings_topic, polled):
            subscriber.take_mapping(record)
        subscriber.take_events(list(_of(settings.kafka_events_topic, polled)))
        for record in _of(settings.kafka_dead_letters_topic, polled):
            tell(dead_letter(record))


def main() -> None:
    """Read from the beginning, as a compacted topic is meant to be read."""
    torch.set_num_threads(1)  # the cores are the daemon's
    settings = config.load(None)
    subscriber = Subscriber(settings)
    consumer = KafkaConsumer(
        **connection(settings),
        **QUIET,
        group_id=None,
        auto_offset_reset="earliest",
        fetch_max_wait_ms=50,
    )
    consumer.assign(list(_partitions(consumer, settings)))
    tell(Listening())
    follow(consumer, subscriber, settings)


def _partitions(consumer: KafkaConsumer, settings: Settings) -> Iterable[TopicPartition]:
    for topic in (
        settings.kafka_events_topic,
        settings.kafka_mappings_topic,
        settings.kafka_dead_letters_topic,
    ):
        for partition in consumer.partitions_for_topic(topic) or ():
            yield TopicPartition(topic, partition)


def _of(topic: str, polled: dict[TopicPartition, list[Any]]) -> Iterable[Any]:
    return (record for tp, records in polled.items() if tp.topic == topic for record in records)


@cache
def _concept_index() -> dict[str, int]:
    return {concept.codepoints: i for i, concept in enumerate(emoji.concepts())}


def _concept(label: str | None) -> int:
    return _concept_index()[label or ""]


@cache
def _pool() -> tuple[int, ...]:
    return tuple(int(i) for i in emoji.drawn_by(VENDOR, "train"))


if __name__ == "__main__":
    main()
