"""What the demo's processes tell their parent: one JSON object a line on their stdout."""

from __future__ import annotations

import sys

import msgspec

from daemon.demo.part import PartName

Method = str
"""`adapted`, `theta` or `ridge`."""


class Produced(msgspec.Struct, frozen=True, tag="produced"):
    """Good events handed to Kafka so far."""

    events: dict[PartName, int]


class Injected(msgspec.Struct, frozen=True, tag="injected"):
    """A malformed event lies in Kafka."""

    part: PartName
    partition: int
    offset: int
    what: str
    reason: str
    """What its dead letter must say."""


class Finished(msgspec.Struct, frozen=True, tag="finished"):
    """The producer's last word: everything is acknowledged."""

    events: dict[PartName, int]
    last: dict[PartName, dict[str, int]]
    """Each stream's last good offset."""


class Listening(msgspec.Struct, frozen=True, tag="listening"):
    """The subscriber is ready."""


class Scored(msgspec.Struct, frozen=True, tag="scored"):
    """A good event was read; `hits` is empty while its stream has no mapping."""

    part: PartName
    stream: str
    support_pairs: int
    hits: dict[Method, bool]
    shown: str = ""
    """The emoji in the picture."""
    found: str = ""
    """What the adapted mapping takes it for."""


class Mapped(msgspec.Struct, frozen=True, tag="mapped"):
    """A mapping was read and its content hash holds."""

    part: PartName
    stream: str
    version: int
    outcome: str
    loss_before: float
    """θ's on the query."""
    loss_after: float
    """The same of what was published."""
    latency_ms: float | None
    """None if its newest event was never seen."""


class Refused(msgspec.Struct, frozen=True, tag="refused"):
    """A record of a mappings topic is no valid mapping."""

    detail: str


class DeadLettered(msgspec.Struct, frozen=True, tag="dead_lettered"):
    """A dead letter: where the event lay, and why it could not be used."""

    part: PartName
    stream: str
    partition: int
    offset: int
    reason: str
    detail: str


class Scraped(msgspec.Struct, frozen=True, tag="scraped"):
    """What a worker's /readyz and /metrics said; no figures while it does not answer."""

    part: PartName
    ready: bool
    why: str
    figures: dict[str, float] = {}


News = (
    Produced | Injected | Finished | Listening | Scored | Mapped | Refused | DeadLettered | Scraped
)

_decoder: msgspec.json.Decoder[News] = msgspec.json.Decoder(News)


def tell(news: News) -> None:
    """Write one line, at once."""
    sys.stdout.buffer.write(msgspec.json.encode(news) + b"\n")
    sys.stdout.buffer.flush()


def parse(line: bytes) -> News:
    """Raises msgspec.DecodeError."""
    return _decoder.decode(line)
