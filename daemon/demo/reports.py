"""What the demo's child processes report to their parent: one JSON object a line on stdout."""

from __future__ import annotations

import sys

import msgspec

from daemon.demo.scenarios import ScenarioName

Method = str
"""`adapted`, `theta` or `ridge`."""


class EventsProduced(msgspec.Struct, frozen=True, tag="events_produced"):
    """The producer: good events handed to Kafka so far."""

    events: dict[ScenarioName, int]


class MalformedProduced(msgspec.Struct, frozen=True, tag="malformed_produced"):
    """The producer: Kafka has acknowledged a malformed event."""

    scenario: ScenarioName
    partition: int
    offset: int
    description: str
    reason: str
    """The reason that its dead letter must give."""


class ProducerFinished(msgspec.Struct, frozen=True, tag="producer_finished"):
    """The producer: Kafka has acknowledged everything."""

    events: dict[ScenarioName, int]
    last_offsets: dict[ScenarioName, dict[str, int]]
    """Offset of each stream's last good event."""


class SubscriberReady(msgspec.Struct, frozen=True, tag="subscriber_ready"):
    """The subscriber: it reads from now on."""


class EventScored(msgspec.Struct, frozen=True, tag="event_scored"):
    """The subscriber: a good event was read. `hits` is empty when no mapping could be scored."""

    scenario: ScenarioName
    stream: str
    support_pairs: int
    hits: dict[Method, bool]
    """Which methods found the true target."""
    shown: str = ""
    """The emoji in the picture."""
    found: str = ""
    """The display name of the target that the adapted mapping found."""


class MappingReceived(msgspec.Struct, frozen=True, tag="mapping_received"):
    """The subscriber: a mapping was read, and its content hash is right."""

    scenario: ScenarioName
    stream: str
    version: int
    outcome: str
    loss_before: float
    """Query loss of θ."""
    loss_after: float
    """Query loss of the published mapping."""
    latency_ms: float
    """From the newest event's record time to the mapping's."""


class MappingInvalid(msgspec.Struct, frozen=True, tag="mapping_invalid"):
    """The subscriber: a record of a mappings topic is no valid mapping."""

    detail: str


class DeadLetterReceived(msgspec.Struct, frozen=True, tag="dead_letter_received"):
    """The subscriber: a dead letter was read. `partition` and `offset` are its event's."""

    scenario: ScenarioName
    stream: str
    partition: int
    offset: int
    reason: str
    detail: str


class WorkerScraped(msgspec.Struct, frozen=True, tag="worker_scraped"):
    """The scraper: a worker's /readyz and /metrics."""

    scenario: ScenarioName
    ready: bool
    why: str
    """Why it is not ready."""
    figures: dict[str, float] = {}
    """See `scraper.parse_figures`; empty when the worker does not answer."""


Report = (
    EventsProduced
    | MalformedProduced
    | ProducerFinished
    | SubscriberReady
    | EventScored
    | MappingReceived
    | MappingInvalid
    | DeadLetterReceived
    | WorkerScraped
)

_decoder: msgspec.json.Decoder[Report] = msgspec.json.Decoder(Report)


def send_report(report: Report) -> None:
    """Write the report to stdout and flush it."""
    sys.stdout.buffer.write(msgspec.json.encode(report) + b"\n")
    sys.stdout.buffer.flush()


def parse_report(line: bytes) -> Report:
    """Returns the report in one line. Raises msgspec.DecodeError."""
    return _decoder.decode(line)
