"""The two scenarios that the demo runs side by side, and the malformed events among theirs. Pure.

Every event pairs Twemoji's drawing of an emoji with what its stream says of that emoji:

- `tenants`, image → vector: a stream is a synthetic tenant with an embedding space of its own;
- `names`, image → text: a stream is a language, in which the emoji has a name.

Each scenario has its own worker, θ, topics, consumer group and Redis prefix.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal, Protocol

import msgspec
import numpy as np
from numpy.typing import NDArray

from daemon.wire import paired_event
from daemon.wire.paired_event import Content, Image, PairedEvent, Text, Vector, WirePair
from model.emoji import drawings as emoji
from model.emoji import names as emoji_names
from model.emoji.tenants import Tenant
from model.values.arrays import FloatArray

ScenarioName = Literal["tenants", "names"]
SCENARIOS: tuple[ScenarioName, ...] = ("tenants", "names")
VENDOR = emoji.HELD_OUT_VENDOR


class Scenario(Protocol):
    """Streams whose events have one pair of modalities. A concept is an emoji's index."""

    @property
    def name(self) -> ScenarioName:
        """Its name, which is part of the names of its topics and its group."""

    @property
    def streams(self) -> tuple[str, ...]:
        """The streams' ids, which are the keys of the Kafka records."""

    @property
    def events_per_stream(self) -> int:
        """Good events that the producer writes for each stream."""

    @property
    def malformed(self) -> tuple[MalformedKind, ...]:
        """The kinds of malformed events that the producer also writes, one of each."""

    def concept_pool(self, stream: str) -> tuple[int, ...]:
        """Returns the concepts that the stream's events can show."""

    def target(self, stream: str, concept: int) -> Content:
        """Returns the target content that the stream pairs with a picture of the concept."""

    def display_name(self, stream: str, concept: int) -> str:
        """Returns how the screen shows that target to a person."""


def planned_events(scenario: Scenario) -> int:
    """Returns the number of good events over all streams."""
    return len(scenario.streams) * scenario.events_per_stream


def scenario_pair(scenario: Scenario, stream: str, concept: int) -> WirePair:
    """Returns the pair that an event holds: the concept's picture and the stream's target."""
    return WirePair(
        source=Image(emoji.picture_png(concept, VENDOR)),
        target=scenario.target(stream, concept),
        label=emoji.concepts()[concept].codepoints,
    )


@cache
def _drawn_concepts() -> tuple[int, ...]:
    """Returns the training concepts that the vendor draws."""
    return tuple(int(i) for i in emoji.drawn_by(VENDOR, "train"))


# ---- malformed events


@dataclass(frozen=True, slots=True)
class MalformedKind:
    """One way in which an event can be malformed."""

    description: str
    """For the screen."""
    reason: str
    """The reason that its dead letter must give."""
    value_of: Callable[[WirePair], bytes]
    """Makes the record's value from a good pair."""


def _not_msgpack(_pair: WirePair) -> bytes:
    return b"\xc1 is a byte that MessagePack never uses"


def _unknown_modality(pair: WirePair) -> bytes:
    event: dict[str, Any] = msgspec.to_builtins(PairedEvent([pair]), builtin_types=(bytes,))
    event["pairs"][0]["source"]["type"] = "hologram"
    return msgspec.msgpack.encode(event)


def _one_number_short(pair: WirePair) -> bytes:
    return _with_target(pair, _numbers(pair)[:-1])


def _nan(pair: WirePair) -> bytes:
    numbers = _numbers(pair).copy()
    numbers[0] = np.nan
    return _with_target(pair, numbers)


def _half_a_picture(pair: WirePair) -> bytes:
    assert isinstance(pair.source, Image)
    half = pair.source.data[: len(pair.source.data) // 2]
    return paired_event.encode_event(PairedEvent([WirePair(Image(half), pair.target, pair.label)]))


def _numbers(pair: WirePair) -> NDArray[np.float32]:
    assert isinstance(pair.target, Vector)
    return np.frombuffer(pair.target.data, np.dtype(pair.target.dtype))


def _with_target(pair: WirePair, numbers: NDArray[np.float32]) -> bytes:
    target = paired_event.vector(numbers)
    return paired_event.encode_event(PairedEvent([WirePair(pair.source, target, pair.label)]))


MALFORMED_KINDS = (
    MalformedKind("bytes that are no MessagePack", "undecodable", _not_msgpack),
    MalformedKind("an unknown modality", "unknown_modality", _unknown_modality),
    MalformedKind("a vector one number short", "wrong_dimension", _one_number_short),
    MalformedKind("a vector with a NaN", "not_finite", _nan),
    MalformedKind("a PNG cut in half", "truncated_image", _half_a_picture),
)


# ---- tenants: image → vector

TENANT_SEED = 2_000_000
"""Tenants' seeds begin here; training and meta-test use smaller ones."""


@dataclass(frozen=True, slots=True)
class TenantScenario:
    """Each stream is a synthetic tenant, whose vectors are in a space of its own."""

    tenants: int
    events_per_stream: int
    name: ScenarioName = "tenants"
    malformed: tuple[MalformedKind, ...] = MALFORMED_KINDS

    @property
    def streams(self) -> tuple[str, ...]:
        """The names tenant-01, tenant-02, ..."""
        return tuple(f"tenant-{n:02d}" for n in range(1, self.tenants + 1))

    def concept_pool(self, stream: str) -> tuple[int, ...]:
        """Returns the same concepts for every tenant."""
        return _drawn_concepts()

    def target(self, stream: str, concept: int) -> Vector:
        """Returns the concept's vector in the tenant's space."""
        return paired_event.vector(tenant_vectors(stream)[concept])

    def display_name(self, stream: str, concept: int) -> str:
        """Returns the emoji itself."""
        return emoji.concepts()[concept].character


def tenant(name: str) -> Tenant:
    """Returns the synthetic tenant of this name. Raises ValueError for other names."""
    match = re.fullmatch(r"tenant-(\d+)", name)
    if match is None:
        raise ValueError(f"{name!r} is no tenant of the demo")
    return Tenant(TENANT_SEED + int(match[1]))


@cache
def tenant_vectors(name: str) -> FloatArray:
    """Returns every concept's vector in the tenant's space (concepts, E)."""
    return tenant(name).targets()


# ---- names: image → text

LANGUAGES: Mapping[str, str] = {
    "en": "English",
    "ar": "Arabic",
    "ja": "Japanese",
    "da": "Danish",
    "uk": "Ukrainian",
    "ne": "Nepali",
}
UNSEEN_LANGUAGES = frozenset(LANGUAGES) & frozenset(emoji_names.HELD_OUT_LANGUAGES)
"""Those on which neither an encoder nor θ was trained."""


@dataclass(frozen=True, slots=True)
class NameScenario:
    """Each stream is a language, whose targets are the emoji's names."""

    events_per_stream: int
    name: ScenarioName = "names"
    streams: tuple[str, ...] = tuple(LANGUAGES)
    malformed: tuple[MalformedKind, ...] = ()

    def concept_pool(self, stream: str) -> tuple[int, ...]:
        """Returns the drawn concepts that have a name in the language."""
        return _named_concepts(stream)

    def target(self, stream: str, concept: int) -> Text:
        """Returns the name as text."""
        return Text(self.display_name(stream, concept))

    def display_name(self, stream: str, concept: int) -> str:
        """Returns the name. Raises KeyError for a language or a concept without one."""
        return emoji_names.names_in(stream)[concept].name


@cache
def _named_concepts(language: str) -> tuple[int, ...]:
    named = emoji_names.names_in(language)
    return tuple(concept for concept in _drawn_concepts() if concept in named)
