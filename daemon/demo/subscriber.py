"""The subscriber's process: reads both scenarios' topics and scores every event prequentially.

    python -m daemon.demo.subscriber RUN_CONFIG

It does what a user of the mappings would do, and does not trust the worker: it verifies each
mapping's content hash, and computes every score itself from the published tensors.

R = rows (events of a poll), Y = candidates (128, or all concepts of a pool), D = source dim,
E = target dim
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from typing import Any, NamedTuple
from zlib import crc32

import torch
from kafka import KafkaConsumer, TopicPartition
from numpy.typing import NDArray

from daemon.adapters.kafka_python.client import QUIET, connection_arguments
from daemon.config import Settings
from daemon.demo.plan import read_run_config
from daemon.demo.reports import (
    DeadLetterReceived,
    EventScored,
    MappingInvalid,
    MappingReceived,
    SubscriberReady,
    send_report,
)
from daemon.demo.scenarios import Scenario, ScenarioName
from daemon.demo.scores import PrequentialScorer, candidate_concepts
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


class StreamCandidates:
    """The targets among which one stream's true targets must be found, encoded once."""

    def __init__(self, scenario: Scenario, stream: str, engine: Engine) -> None:
        """Encode the stream's target of every concept in its pool."""
        self._pool, self._seed = scenario.concept_pool(stream), crc32(stream.encode())
        self._row = {concept: row for row, concept in enumerate(self._pool)}
        contents = [paired_event.raw_content(scenario.target(stream, c)) for c in self._pool]
        prepared = [engine.prepare("target", *content) for content in contents]
        self._features_YE = engine.encode("target", prepared)

    def including(self, concept: int) -> tuple[list[int], FloatArray]:
        """Returns the concept and 127 others, and their features (Y, E); always the same ones for
        the same concept."""
        concepts = candidate_concepts(concept, self._pool, self._seed)
        return concepts, self._features_YE[[self._row[c] for c in concepts]]


class GoodEvent(NamedTuple):
    """An event that could be decoded; its contents are prepared for the encoders."""

    stream: str
    offset: int
    concept: int
    source: NDArray[Any]
    target: NDArray[Any]


class ScenarioSubscriber:
    """Reads one scenario's topics and reports what it finds."""

    def __init__(self, scenario: Scenario, settings: Settings) -> None:
        theta = load_meta_init(settings.meta_init or shipped())
        self._scenario, self._settings, self._theta = scenario, settings, theta
        self._engine = Engine(theta, "cpu")
        self._limits = EventLimits(settings.max_event_bytes, settings.max_pairs_per_event)
        self._candidates = {
            s: StreamCandidates(scenario, s, self._engine) for s in scenario.streams
        }
        start = self._engine.theta_mapping()
        self._scorers = {
            s: PrequentialScorer(start, theta.activation, theta.output_activation)
            for s in scenario.streams
        }

    @property
    def topics(self) -> tuple[str, str, str]:
        """The topics of events, mappings and dead letters."""
        s = self._settings
        return s.kafka_events_topic, s.kafka_mappings_topic, s.kafka_dead_letters_topic

    def read(self, polled: Polled) -> None:
        """Report on the records of one poll.

        Mappings come first, so that each event is scored by the newest possible one. That is safe:
        the scorer uses only mappings older than the event.
        """
        events, mappings, dead_letters = (_records(topic, polled) for topic in self.topics)
        for record in mappings:
            self._read_mapping(record)
        self._read_events(events)
        for record in dead_letters:
            send_report(dead_letter_report(self._scenario.name, record))

    def _read_mapping(self, record: Any) -> None:
        try:
            mapping = self._runnable(adapted_mapping.decode_mapping(record.value))
        except ValueError as e:
            send_report(MappingInvalid(str(e)))
            return
        facts = mapping.facts
        self._scorers[facts.stream].add_mapping(mapping)
        send_report(
            MappingReceived(
                scenario=self._scenario.name,
                stream=facts.stream,
                version=facts.version,
                outcome=facts.outcome.value,
                loss_before=facts.query_loss_before,
                loss_after=_published_loss(facts),
                # the demo's events give no time of their own, so theirs is their record's
                latency_ms=record.timestamp - facts.event_time_ms,
            )
        )

    def _runnable(self, mapping: AdaptedMapping) -> AdaptedMapping:
        """Returns the mapping with full tensors in float32. Raises ValueError when a low-rank
        mapping belongs to another θ than this scenario's."""
        ours = mapping.facts.meta_init_hash == self._engine.theta.content_hash
        tensors = adapted_mapping.runnable(mapping, self._theta.mapping if ours else None)
        return AdaptedMapping(tensors, mapping.facts)

    def _read_events(self, records: Iterable[Any]) -> None:
        good = [event for record in records if (event := self._decode(record))]
        x_RD = self._engine.encode("source", [event.source for event in good])
        y_RE = self._engine.encode("target", [event.target for event in good])
        for event, x_D, y_E in zip(good, x_RD, y_RE, strict=True):
            self._score(event, x_D, y_E)

    def _decode(self, record: Any) -> GoodEvent | None:
        """Returns None for a malformed event, on which the worker must report."""
        try:
            event = paired_event.decode_event(record, record.partition, self._limits)
            (pair,) = event.pairs
            source = self._engine.prepare("source", *paired_event.raw_content(pair.source))
            target = self._engine.prepare("target", *paired_event.raw_content(pair.target))
        except (MalformedEvent, BadContent):
            return None
        return GoodEvent(event.stream, event.offset, _concept(pair.label), source, target)

    def _score(self, event: GoodEvent, x_D: FloatArray, y_E: FloatArray) -> None:
        concepts, candidates_YE = self._candidates[event.stream].including(event.concept)
        candidates_YE[0] = y_E
        score = self._scorers[event.stream].score_event(event.offset, x_D, y_E, candidates_YE)
        if score is None:
            send_report(EventScored(self._scenario.name, event.stream, 0, {}))
            return
        send_report(
            EventScored(
                scenario=self._scenario.name,
                stream=event.stream,
                support_pairs=score.support_pairs,
                hits=score.hits,
                shown=emoji.concepts()[event.concept].character,
                found=self._scenario.display_name(event.stream, concepts[score.found]),
            )
        )


def _published_loss(facts: Facts) -> float:
    """Returns the query loss of the mapping that won and was published."""
    match facts.outcome:
        case Outcome.ADAPTED:
            return facts.query_loss_after
        case Outcome.RIDGE:
            return facts.query_loss_ridge
        case _:
            return facts.query_loss_before


def dead_letter_report(scenario: ScenarioName, record: Any) -> DeadLetterReceived:
    """Returns the report on a dead letter, from the headers of its record."""
    ours = {n.removeprefix(HEADER_PREFIX): v.decode(errors="replace") for n, v in record.headers}
    return DeadLetterReceived(
        scenario=scenario,
        stream=(record.key or b"").decode(errors="replace"),
        partition=int(ours["partition"]),
        offset=int(ours["offset"]),
        reason=ours["reason"],
        detail=ours["detail"],
    )


def main() -> None:
    """Read all topics from their beginning, until killed."""
    torch.set_num_threads(1)  # the other cores are the workers'
    run = read_run_config(sys.argv[1])
    scenarios = run.plan.scenarios()
    settings = {name: run.settings_of(name) for name in scenarios}
    subscribers = [ScenarioSubscriber(each, settings[name]) for name, each in scenarios.items()]
    consumer = KafkaConsumer(
        **connection_arguments(settings["tenants"]),
        **QUIET,
        group_id=None,
        auto_offset_reset="earliest",
        fetch_max_wait_ms=50,
    )
    consumer.assign([tp for each in subscribers for tp in _partitions(consumer, each.topics)])
    send_report(SubscriberReady())
    while True:
        polled = consumer.poll(POLL_MS)
        for each in subscribers:
            each.read(polled)


def _partitions(consumer: KafkaConsumer, topics: Iterable[str]) -> Iterable[TopicPartition]:
    for topic in topics:
        for partition in consumer.partitions_for_topic(topic) or ():
            yield TopicPartition(topic, partition)


def _records(topic: str, polled: Polled) -> list[Any]:
    return [record for tp, records in polled.items() if tp.topic == topic for record in records]


@cache
def _concept_by_codepoints() -> dict[str, int]:
    return {concept.codepoints: i for i, concept in enumerate(emoji.concepts())}


def _concept(label: str | None) -> int:
    return _concept_by_codepoints()[label or ""]


if __name__ == "__main__":
    main()
