"""Sends the pairs of a file to the events topic: only those that a worker would accept."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

from daemon.errors import AdaptdError, Unavailable
from daemon.offline.pairs_file import Entry
from daemon.turn.decoding import decode_record
from daemon.turn.ports import AdaptationEngine, Outbox
from daemon.wire.dead_letter import DeadLetter
from daemon.wire.paired_event import CONTENT_TYPE, MSGPACK, EventLimits, encode_event
from daemon.wire.record import Message, RawRecord
from model.values.outside import described

BATCH_EVENTS = 500
BATCH_BYTES = 8 * 2**20
ERRORS_SHOWN = 5


@dataclass(slots=True)
class SendReport:
    """What has been sent so far, and what was left out."""

    pairs: int = 0
    streams: set[str] = field(default_factory=set)
    left_out: Counter[str] = field(default_factory=Counter)
    """How many entries were left out, by reason."""
    first_errors: list[str] = field(default_factory=list)
    """The place and the fault of the first few that were left out."""


def send_pairs(
    entries: Iterable[Entry],
    topic: str,
    limits: EventLimits,
    engine: AdaptationEngine,
    outbox: Outbox | None,
    progress: Callable[[SendReport], None],
) -> SendReport:
    """Checks every entry as a worker will, and sends the good ones in order, in batches that Kafka
    acknowledges. Without an outbox it only checks. `progress` is called after each batch.

    Raises Unavailable, whose message says how many pairs had been acknowledged.
    """
    sent = SendReport()
    for batch in _batches(_checked(entries, topic, limits, engine, sent)):
        try:
            if outbox is not None:
                outbox.send([message for message, _ in batch])
        except Unavailable as e:
            detail = f"{e.detail}; {sent.pairs} pairs were sent before, of the next "
            raise Unavailable(e.service, f"{detail}{len(batch)} events perhaps some") from e
        sent.pairs += sum(pairs for _, pairs in batch)
        sent.streams.update((message.key or b"").decode() for message, _ in batch)
        progress(sent)
    return sent


def _checked(
    entries: Iterable[Entry],
    topic: str,
    limits: EventLimits,
    engine: AdaptationEngine,
    sent: SendReport,
) -> Iterator[tuple[Message, int]]:
    """Yields the message and the number of pairs of every entry that a worker will accept."""
    for entry in entries:
        reason, fault = "unreadable", entry.error
        if entry.event is not None:
            try:
                message = _message(entry, topic)
                record = RawRecord(0, 0, message.key, message.value, message.headers)
                decoded = decode_record(0, record, limits, engine)
                if not isinstance(decoded, DeadLetter):
                    yield message, len(decoded.sources)
                    continue
                reason, fault = decoded.error.reason, decoded.error.detail
            except (UnicodeEncodeError, AdaptdError) as e:
                fault = described(e)
        sent.left_out[reason] += 1
        if len(sent.first_errors) < ERRORS_SHOWN:
            sent.first_errors.append(f"{entry.place}: {fault}")


def _message(entry: Entry, topic: str) -> Message:
    assert entry.event is not None
    headers = ((CONTENT_TYPE, MSGPACK.encode()),)
    return Message(topic, entry.stream.encode(), encode_event(entry.event), headers)


def _batches(messages: Iterable[tuple[Message, int]]) -> Iterator[list[tuple[Message, int]]]:
    batch: list[tuple[Message, int]] = []
    size = 0
    for message, pairs in messages:
        batch.append((message, pairs))
        size += len(message.value or b"")
        if len(batch) >= BATCH_EVENTS or size >= BATCH_BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch
