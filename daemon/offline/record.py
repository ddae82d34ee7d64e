"""Records the events topic, or the newest part of it, to an events file."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from daemon.adapters.kafka_python.reader import read_topic
from daemon.config import Settings
from daemon.errors import MalformedEvent, Misconfigured
from daemon.offline.events_file import RecordedEvent, event_writer
from daemon.wire import paired_event
from daemon.wire.paired_event import EventLimits


@dataclass(slots=True)
class Recorded:
    """What a recording holds, and what was left out."""

    expected: int = 0
    """How many events there are to record at most."""
    events: int = 0
    streams: set[str] = field(default_factory=set)
    malformed: Counter[str] = field(default_factory=Counter)
    """Malformed events by reason; a daemon has put them into the dead-letter topic."""


def record_topic(
    settings: Settings,
    out: Path,
    limit: int | None,
    since_ms: int | None,
    progress: Callable[[Recorded], None],
) -> Recorded:
    """Write the events that the topic holds now, partition by partition in order of offsets.

    `limit` is the most events, `since_ms` the earliest record time (ms, UTC); `progress` is called
    every 1,000 events. The file appears under its name when it is whole. Raises Unavailable when
    Kafka does not answer, Misconfigured when the file cannot be written or the topic is not there.
    """
    part = out.with_name(out.name + ".part")
    found = Recorded()
    try:
        with part.open("wb") as file:
            write = event_writer(out, file)
            for event in _events(settings, since_ms, found):
                write(event)
                found.events += 1
                found.streams.add(event.stream)
                if found.events % 1000 == 0:
                    progress(found)
                if found.events == limit:
                    break
            file.flush()
            os.fsync(file.fileno())
        part.replace(out)
    except OSError as e:
        raise Misconfigured(f"{out}: cannot be written: {e.strerror or e}") from e
    finally:
        part.unlink(missing_ok=True)
    return found


def _events(settings: Settings, since_ms: int | None, found: Recorded) -> Iterator[RecordedEvent]:
    limits = EventLimits(settings.max_event_bytes, settings.max_pairs_per_event)

    def expect(offsets: int) -> None:
        found.expected = offsets

    topic = settings.kafka_events_topic
    for partition, kafka_record in read_topic(settings, topic, since_ms, expect):
        try:
            event = paired_event.decode_event(kafka_record, partition, limits)
        except MalformedEvent as e:
            found.malformed[e.reason] += 1
            continue
        yield RecordedEvent(
            stream=event.stream,
            pairs=list(event.pairs),
            id=event.id,
            time_ms=event.time_ms,
            partition=partition,
            offset=event.offset,
        )
