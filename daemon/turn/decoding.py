"""The steps from bytes to features: records -> events whose contents are ready to be encoded, and
dead letters; events -> pairs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from numpy.typing import NDArray

from daemon.errors import MalformedEvent
from daemon.turn.ports import AdaptationEngine, Side
from daemon.turn.streams import StreamId
from daemon.turn.window import Pair, PairId
from daemon.wire import paired_event
from daemon.wire.dead_letter import DeadLetter
from daemon.wire.paired_event import Content, EventLimits
from daemon.wire.record import Record
from model.values.errors import BadContent


class Decoded(NamedTuple):
    """One good event: the i-th source belongs to the i-th target."""

    stream: StreamId
    offset: int
    recorded_ms: int
    time_ms: int
    sources: tuple[NDArray[Any], ...]
    targets: tuple[NDArray[Any], ...]


def decode_record(
    partition: int, record: Record, limits: EventLimits, engine: AdaptationEngine
) -> Decoded | DeadLetter:
    """An event with any bad part is bad as a whole: half an event is in no window."""
    try:
        return _decode(partition, record, limits, engine)
    except MalformedEvent as e:
        return DeadLetter(record, partition, e)


def _decode(
    partition: int, record: Record, limits: EventLimits, engine: AdaptationEngine
) -> Decoded:
    event = paired_event.decode_event(record, partition, limits)
    pairs = list(enumerate(event.pairs))
    return Decoded(
        StreamId(partition, event.stream),
        event.offset,
        event.recorded_ms,
        event.time_ms,
        tuple([_prepare(engine, "source", i, pair.source) for i, pair in pairs]),
        tuple([_prepare(engine, "target", i, pair.target) for i, pair in pairs]),
    )


def _prepare(engine: AdaptationEngine, side: Side, index: int, content: Content) -> NDArray[Any]:
    modality, raw = paired_event.raw_content(content)
    try:
        return engine.prepare(side, modality, raw)
    except BadContent as e:
        raise MalformedEvent(e.reason, f"{side} of pair {index}: {e}") from e


def encode_events(events: Sequence[Decoded], engine: AdaptationEngine) -> list[list[Pair]]:
    """Each event's pairs, all contents of a side in one forward pass."""
    if not events:
        return []
    x_ND = engine.encode("source", [x for event in events for x in event.sources])
    y_NE = engine.encode("target", [y for event in events for y in event.targets])
    features = zip(x_ND, y_NE, strict=True)
    return [
        [
            Pair(PairId(event.offset, place), *next(features), event.time_ms)
            for place in range(len(event.sources))
        ]
        for event in events
    ]
