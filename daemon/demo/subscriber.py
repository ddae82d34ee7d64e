"""The subscriber's process: reads each part's topics and judges every event prequentially.

    python -m daemon.demo.subscriber SCRIPT

It is what a user of the mappings would write, and it trusts none of them: `adapted_mapping.decode`
verifies each content hash, and every score is computed here from the published tensors.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from typing import Any, NamedTuple

import torch
from kafka import KafkaConsumer, TopicPartition
from numpy.typing import NDArray

from daemon.adapters.kafka_python.client import QUIET, connection
from daemon.config import Settings
from daemon.demo.candidates import Candidates
from daemon.demo.news import DeadLettered, Listening, Mapped, Refused, Scored, tell
from daemon.demo.part import Part, PartName
from daemon.demo.score import Follower
from daemon.demo.script import read_script
from daemon.errors import MalformedEvent
from daemon.wire import adapted_mapping, paired_event
from daemon.wire.adapted_mapping import AdaptedMapping, Facts
from daemon.wire.dead_letter import HEADER_PREFIX
from daemon.wire.paired_event import EventLimits
from model.emoji import drawings as emoji
from model.serving.engine import Engine
from model.theta.meta_init_file import load_meta_init, shipped
from model.values.arrays import FloatArray
from model.values.errors import BadContent
from model.values.gate import Outcome

POLL_MS = 200

Polled = Mapping[TopicPartition, Sequence[Any]]


class Received(NamedTuple):
    """One good event; both contents as the encoders take them."""

    stream: str
    offset: int
    concept: int
    source: NDArray[Any]
    target: NDArray[Any]


class Subscriber:
    """All streams of one part, as its topics show them."""

    def __init__(self, part: Part, settings: Settings) -> None:
        theta = load_meta_init(settings.meta_init or shipped())
        self._part, self._settings, self._theta = part, settings, theta
        self._engine = Engine(theta, "cpu")
        self._limits = EventLimits(settings.max_event_bytes, settings.max_pairs_per_event)
        self._candidates = {s: Candidates(part, s, self._engine) for s in part.streams}
        start = self._engine.theta_mapping()
        self._followers = {
            s: Follower(start, theta.activation, theta.output_activation) for s in part.streams
        }

    @property
    def topics(self) -> tuple[str, str, str]:
        """Of events, mappings and dead letters."""
        of = self._settings
        return of.kafka_events_topic, of.kafka_mappings_topic, of.kafka_dead_letters_topic

    def take(self, polled: Polled) -> None:
        """Of what one poll brought, mappings come first: none can have seen an event of a larger
        offset, and the newer the mapping, the more it says about the daemon."""
        events, mappings, dead_letters = (_of(topic, polled) for topic in self.topics)
        for record in mappings:
            self._take_mapping(record)
        self._take_events(events)
        for record in dead_letters:
            tell(dead_letter(self._part.name, record))

    def _take_events(self, records: Iterable[Any]) -> None:
        """Judge the good ones; the malformed ones are the daemon's to report."""
        good = [event for record in records if (event := self._read(record))]
        x_ND = self._engine.encode("source", [event.source for event in good])
        y_NE = self._engine.encode("target", [event.target for event in good])
        for event, x_D, y_E in zip(good, x_ND, y_NE, strict=True):
            self._judge(event, x_D, y_E)

    def _take_mapping(self, record: Any) -> None:
        """Verify it, then use it for the events to come."""
        try:
            mapping = self._runnable(adapted_mapping.decode_mapping(record.value))
        except ValueError as e:
            tell(Refused(str(e)))
            return
        facts = mapping.facts
        self._followers[facts.stream].take_mapping(mapping)
        tell(
            Mapped(
                part=self._part.name,
                stream=facts.stream,
                version=facts.version,
                outcome=facts.outcome.value,
                loss_before=facts.query_loss_before,
                loss_after=_loss(facts),
                # our events name no time of their own, so theirs is their record's
                latency_ms=record.timestamp - facts.event_time_ms,
            )
        )

    def _runnable(self, mapping: AdaptedMapping) -> AdaptedMapping:
        """Whole and in float32. Raises ValueError where that takes another θ than ours."""
        ours = mapping.facts.meta_init_hash == self._engine.theta.content_hash
        tensors = adapted_mapping.runnable(mapping, self._theta.mapping if ours else None)
        return AdaptedMapping(tensors, mapping.facts)

    def _read(self, record: Any) -> Received | None:
        try:
            event = paired_event.decode_event(record, record.partition, self._limits)
            (pair,) = event.pairs
            source = self._engine.prepare("source", *paired_event.raw_content(pair.source))
            target = self._engine.prepare("target", *paired_event.raw_content(pair.target))
        except (MalformedEvent, BadContent):
            return None
        return Received(event.stream, event.offset, _concept(pair.label), source, target)

    def _judge(self, event: Received, x_D: FloatArray, y_E: FloatArray) -> None:
        concepts, candidates_CE = self._candidates[event.stream].among(event.concept)
        candidates_CE[0] = y_E
        score = self._followers[event.stream].judge(event.offset, x_D, y_E, candidates_CE)
        if score is None:
            tell(Scored(self._part.name, event.stream, 0, {}))
            return
        tell(
            Scored(
                part=self._part.name,
                stream=event.stream,
                support_pairs=score.support_pairs,
                hits=score.hits,
                shown=emoji.concepts()[event.concept].character,
                found=self._part.called(event.stream, concepts[score.found]),
            )
        )


def _loss(facts: Facts) -> float:
    """On the query, of what was published."""
    match facts.outcome:
        case Outcome.ADAPTED:
            return facts.query_loss_after
        case Outcome.RIDGE:
            return facts.query_loss_ridge
        case _:
            return facts.query_loss_before


def dead_letter(part: PartName, record: Any) -> DeadLettered:
    """What the dead letter's headers say."""
    ours = {n.removeprefix(HEADER_PREFIX): v.decode(errors="replace") for n, v in record.headers}
    return DeadLettered(
        part=part,
        stream=(record.key or b"").decode(errors="replace"),
        partition=int(ours["partition"]),
        offset=int(ours["offset"]),
        reason=ours["reason"],
        detail=ours["detail"],
    )


def main() -> None:
    """Read from the beginning, as a compacted topic is meant to be read; for ever."""
    torch.set_num_threads(1)  # the cores are the daemon's
    script = read_script(sys.argv[1])
    parts = script.plan.parts()
    settings = {name: script.settings_of(name) for name in parts}
    subscribers = [Subscriber(part, settings[name]) for name, part in parts.items()]
    consumer = KafkaConsumer(
        **connection(settings["tenants"]),
        **QUIET,
        group_id=None,
        auto_offset_reset="earliest",
        fetch_max_wait_ms=50,
    )
    consumer.assign([tp for each in subscribers for tp in _partitions(consumer, each.topics)])
    tell(Listening())
    while True:
        polled = consumer.poll(POLL_MS)
        for each in subscribers:
            each.take(polled)


def _partitions(consumer: KafkaConsumer, topics: Iterable[str]) -> Iterable[TopicPartition]:
    for topic in topics:
        for partition in consumer.partitions_for_topic(topic) or ():
            yield TopicPartition(topic, partition)


def _of(topic: str, polled: Polled) -> list[Any]:
    return [record for tp, records in polled.items() if tp.topic == topic for record in records]


@cache
def _concept_index() -> dict[str, int]:
    return {concept.codepoints: i for i, concept in enumerate(emoji.concepts())}


def _concept(label: str | None) -> int:
    return _concept_index()[label or ""]


if __name__ == "__main__":
    main()
