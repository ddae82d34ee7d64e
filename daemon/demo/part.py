"""What the demo has twice: streams of one pair of modalities, a worker and a θ for them."""

from __future__ import annotations

from typing import Literal, Protocol

from daemon.demo.malformed import Malformed
from daemon.wire.paired_event import Content, Image, WirePair
from model.emoji import drawings as emoji

PartName = Literal["tenants", "names"]
PARTS: tuple[PartName, ...] = ("tenants", "names")
VENDOR = emoji.HELD_OUT_VENDOR


class Part(Protocol):
    """Every event pairs Twemoji's drawing of a concept with what one stream says of it."""

    @property
    def name(self) -> PartName:
        """Also the end of its topics' and its group's names."""

    @property
    def streams(self) -> tuple[str, ...]:
        """Ids, which are the records' keys."""

    @property
    def events_per_stream(self) -> int:
        """Good ones."""

    @property
    def malformed(self) -> tuple[Malformed, ...]:
        """What else is produced, once each."""

    def pool(self, stream: str) -> tuple[int, ...]:
        """The concepts that the stream's events show, and that are candidates."""

    def target(self, stream: str, concept: int) -> Content:
        """What the stream pairs with a picture of the concept."""

    def called(self, stream: str, concept: int) -> str:
        """The same for a person."""


def events_of(part: Part) -> int:
    """Good events in all."""
    return len(part.streams) * part.events_per_stream


def wire_pair(part: Part, stream: str, concept: int) -> WirePair:
    """The picture, and the stream's own target."""
    return WirePair(
        source=Image(emoji.picture_png(concept, VENDOR)),
        target=part.target(stream, concept),
        label=emoji.concepts()[concept].codepoints,
    )
