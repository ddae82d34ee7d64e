"""Reads a range of the events topic as features, and the mappings that were published of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from daemon.adapters.kafka_python.reader import read_topic
from daemon.config import Settings
from daemon.turn.decoding import Decoded, decode_record, encode_events
from daemon.turn.streams import StreamId
from daemon.turn.window import Pair
from daemon.wire.adapted_mapping import AdaptedMapping, BadMapping, decode_mapping
from daemon.wire.paired_event import EventLimits
from daemon.wire.record import Record
from model.serving.engine import Engine

ENCODED_AT_ONCE = 256


@dataclass(frozen=True, slots=True)
class OffsetSpan:
    """Offsets from `start` to before `end` of one partition, or of every one."""

    start: int = 0
    end: int | None = None
    partition: int | None = None

    def has(self, partition: int, offset: int) -> bool:
        """Returns whether a record lies in it."""
        ours = self.partition in (None, partition)
        return ours and self.start <= offset and (self.end is None or offset < self.end)


@dataclass(slots=True)
class RecordedLog:
    """The pairs of a range of the events topic."""

    pairs: dict[StreamId, list[Pair]] = field(default_factory=dict)
    """By stream, in order of offsets."""
    events: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    """Events that are dead letters, by reason."""


def read_log(settings: Settings, engine: Engine, span: OffsetSpan) -> RecordedLog:
    """Returns the pairs of the events of a range, as the engine's θ encodes them. Raises
    Unavailable, Misconfigured, Refused."""
    log = RecordedLog()
    limits = EventLimits(settings.max_event_bytes, settings.max_pairs_per_event)
    batch: list[Decoded] = []
    for partition, record in _records(settings, span):
        decoded = decode_record(partition, record, limits, engine)
        if isinstance(decoded, Decoded):
            batch.append(decoded)
        else:
            log.refused[decoded.error.reason] += 1
        if len(batch) == ENCODED_AT_ONCE:
            _keep(log, batch, engine)
            batch = []
    _keep(log, batch, engine)
    return log


def _records(settings: Settings, span: OffsetSpan) -> Iterator[tuple[int, Record]]:
    for partition, record in read_topic(settings, settings.kafka_events_topic):
        if span.has(partition, record.offset):
            yield partition, record


def _keep(log: RecordedLog, batch: Sequence[Decoded], engine: Engine) -> None:
    log.events += len(batch)
    for event, pairs in zip(batch, encode_events(batch, engine), strict=True):
        log.pairs.setdefault(event.stream, []).extend(pairs)


def read_published(settings: Settings) -> Iterator[AdaptedMapping]:
    """Yields every good mapping that the topic of mappings still holds, in the order of its
    partitions. Raises Unavailable, Misconfigured, Refused."""
    for _, record in read_topic(settings, settings.kafka_mappings_topic):
        try:
            yield decode_mapping(record.value or b"")
        except BadMapping:  # or a tombstone
            continue
