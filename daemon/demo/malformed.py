"""Five ways in which an event can be unusable, and what the daemon must say of each. Pure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from daemon.wire import paired_event
from daemon.wire.paired_event import Image, PairedEvent, Vector, WirePair


@dataclass(frozen=True, slots=True)
class Malformed:
    """A kind of malformed event."""

    what: str
    """For a person."""
    reason: str
    """The code its dead letter must carry."""
    spoil: Callable[[WirePair], bytes]
    """The record's value, made from a good pair."""


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


KINDS = (
    Malformed("bytes that are no MessagePack", "undecodable", _not_msgpack),
    Malformed("a modality nobody knows", "unknown_modality", _unknown_modality),
    Malformed("a vector one number short", "wrong_dimension", _one_number_short),
    Malformed("a vector with a NaN", "not_finite", _nan),
    Malformed("a PNG cut in half", "truncated_image", _half_a_picture),
)
