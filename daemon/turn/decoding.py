"""The decode and encode steps: records -> events with prepared contents -> pairs of features.

R = rows (contents of all events), D = source dim, E = target dim

A record that cannot be used becomes a dead letter.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from numpy.typing import NDArray

from daemon.errors import MalformedEvent
from daemon.turn.ports import AdaptationEngine, Side
from daemon.turn.report import OffsetRange
from daemon.turn.streams import StreamId
from daemon.turn.window import Pair, PairId
from daemon.wire import paired_event
from daemon.wire.dead_letter import DeadLetter, dead_letter_of
from daemon.wire.paired_event import Content, Event, EventLimits, Image, Video
from daemon.wire.record import Record
from model.encoders.picture_file import check_work_together
from model.values.errors import BadContent, DeviceLost
from model.values.outside import described


class Decoded(NamedTuple):
    """One event whose contents are ready to be encoded. The i-th source belongs to the i-th
    target."""

    stream: StreamId
    offset: int
    recorded_ms: int
    time_ms: int
    sources: tuple[NDArray[Any], ...]
    targets: tuple[NDArray[Any], ...]


@dataclass(frozen=True, slots=True)
class DecodedBatches:
    """What became of the records of one poll."""

    events: list[Decoded] = field(default_factory=list)
    dead_letters: list[DeadLetter] = field(default_factory=list)
    offsets: dict[int, OffsetRange] = field(default_factory=dict)
    """The offsets decoded, by partition."""
    last: dict[int, Record] = field(default_factory=dict)
    """The last record decoded, by partition."""
    postponed: dict[int, int] = field(default_factory=dict)
    """The first offset that there was no time for, by partition."""


def decode_batches(
    batches: Mapping[int, Sequence[Record]],
    limits: EventLimits,
    engine: AdaptationEngine,
    is_late: Callable[[], bool],
) -> DecodedBatches:
    """Decodes the records of every partition, in order, until `is_late` says that the rest is to
    be postponed."""
    made = DecodedBatches()
    for partition, records in batches.items():
        last: Record | None = None
        for record in records:
            if is_late():
                made.postponed[partition] = record.offset
                break
            match decode_record(partition, record, limits, engine):
                case DeadLetter() as letter:
                    made.dead_letters.append(letter)
                case event:
                    made.events.append(event)
            last = record
        if last is not None:
            made.offsets[partition] = OffsetRange(records[0].offset, last.offset + 1)
            made.last[partition] = last
    return made


def read_ranges(
    decoded: DecodedBatches, positions: Mapping[int, int], before: Mapping[int, int]
) -> dict[int, OffsetRange]:
    """Returns the offsets that were read of each partition. Besides the records these are the
    offsets that bring none, up to the source's position; `before` says where each partition was to
    be read from. A partition with a record that is postponed was read up to that record."""
    read = dict(decoded.offsets)
    for partition, position in positions.items():
        start, end = read.get(partition, (before[partition], before[partition]))
        if position > end and partition not in decoded.postponed:
            read[partition] = OffsetRange(start, position)
    return read


def decode_record(
    partition: int, record: Record, limits: EventLimits, engine: AdaptationEngine
) -> Decoded | DeadLetter:
    """Decodes one record. An event with any bad part is bad as a whole, so that no window ever
    holds half an event."""
    try:
        return _decode(partition, record, limits, engine)
    except MalformedEvent as e:
        return dead_letter_of(record, partition, e)


def _decode(
    partition: int, record: Record, limits: EventLimits, engine: AdaptationEngine
) -> Decoded:
    event = paired_event.decode_event(record, partition, limits)
    pairs = list(enumerate(event.pairs))
    if len(pairs) > 1:
        _check_work(event)
    return Decoded(
        StreamId(partition, event.stream),
        event.offset,
        event.recorded_ms,
        event.time_ms,
        tuple([_prepare(engine, "source", i, pair.source) for i, pair in pairs]),
        tuple([_prepare(engine, "target", i, pair.target) for i, pair in pairs]),
    )


def _check_work(event: Event) -> None:
    """Raises MalformedEvent when the pictures of all pairs together take too long to decode. Each
    content by itself is checked by its encoder."""
    sides = zip(*((pair.source, pair.target) for pair in event.pairs), strict=True)
    # a side is of one modality, or refused at its first content of another
    pictured = [side for side in sides if isinstance(side[0], Image | Video)]
    contents = [content for side in pictured for content in side]
    pictures = [content.data for content in contents if isinstance(content, Image)]
    pictures += [f for content in contents if isinstance(content, Video) for f in content.frames]
    try:
        check_work_together(pictures)
    except BadContent as e:
        raise MalformedEvent(e.reason, f"all {len(event.pairs)} pairs: {e}") from e


def _prepare(engine: AdaptationEngine, side: Side, index: int, content: Content) -> NDArray[Any]:
    modality, raw = paired_event.raw_content(content)
    try:
        return engine.prepare(side, modality, raw)
    except BadContent as e:
        raise MalformedEvent(e.reason, f"{side} of pair {index}: {e}") from e
    except (DeviceLost, MemoryError):
        raise
    except Exception as e:  # a decoder that fails in a new way must not stop the partition for good
        raise MalformedEvent("decoder_failed", f"{side} of pair {index}: {described(e)}") from e


def encode_events(events: Sequence[Decoded], engine: AdaptationEngine) -> list[list[Pair]]:
    """Encodes all contents of each side in one forward pass. Returns the pairs of each event."""
    if not events:
        return []
    x_RD = engine.encode("source", [x for event in events for x in event.sources])
    y_RE = engine.encode("target", [y for event in events for y in event.targets])
    features = zip(x_RD, y_RE, strict=True)
    return [
        [
            Pair(PairId(event.offset, place), *next(features), event.time_ms)
            for place in range(len(event.sources))
        ]
        for event in events
    ]
