"""The paired event: decodes Kafka records, and checks every size before it takes memory.

The value is MessagePack or JSON, as the record's `content-type` header says (`application/msgpack`
by default), with one schema for both. In JSON, bytes are base64 strings.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from daemon.errors import MalformedEvent
from daemon.wire.advice import JSON as JSON
from daemon.wire.advice import MSGPACK as MSGPACK
from daemon.wire.advice import advice
from daemon.wire.record import Headers, RawRecord, Record
from model.values.contents import AudioClip, VideoClip
from model.values.contents import Content as RawContent
from model.values.outside import described

CONTENT_TYPE = "content-type"

LATEST_MS = 253_402_300_799_999
"""The end of the year 9999. A later time is a mistake, and the store keeps times as int64."""

SECONDS = range(10**8, 10**11)
"""What a time in seconds is from 1973 to the year 5138. In milliseconds these numbers are times of
1970 to 1973, which no event has."""

MAX_FRAMES = 4_096
"""The most frames of a video: each costs memory, even one without a byte."""

Int64 = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]
"""MessagePack and JSON may hold larger integers, which Python refuses to print."""
DType = Literal["float16", "float32", "float64"]
LITTLE_ENDIAN = {
    name: np.dtype(name).newbyteorder("<") for name in ("float16", "float32", "float64")
}


class Vector(msgspec.Struct, frozen=True, tag="vector"):
    """Raw little-endian numbers; `shape` is (dim,)."""

    dtype: DType
    shape: list[Int64]
    data: bytes


class Image(msgspec.Struct, frozen=True, tag="image"):
    """A PNG, JPEG or WebP file."""

    data: bytes


class Text(msgspec.Struct, frozen=True, tag="text"):
    """Unicode text."""

    text: str


class Audio(msgspec.Struct, frozen=True, tag="audio"):
    """A WAV file, or raw little-endian 16-bit PCM with its rate (Hz) and channels."""

    data: bytes
    encoding: Literal["wav", "pcm_s16le"] = "wav"
    rate: Int64 | None = None
    channels: Int64 = 1


class Video(msgspec.Struct, frozen=True, tag="video"):
    """Frames in order, each an image file, at `fps` frames per second."""

    frames: Annotated[list[bytes], msgspec.Meta(max_length=MAX_FRAMES)]
    fps: float | None = None


Content = Vector | Image | Text | Audio | Video


class WirePair(msgspec.Struct, frozen=True):
    """A source and a target that belong together."""

    source: Content
    target: Content
    label: str | None = None


class PairedEvent(msgspec.Struct, frozen=True):
    """The value of one record. `time_ms` is when the event happened (ms, UTC), by default the
    record's timestamp."""

    pairs: list[WirePair]
    id: str | None = None
    time_ms: Annotated[int, msgspec.Meta(ge=0, le=LATEST_MS)] | None = None


@dataclass(frozen=True, slots=True)
class EventLimits:
    """The largest event that is accepted."""

    max_event_bytes: int
    max_pairs: int
    max_key_bytes: int = 1024


class Event(NamedTuple):
    """A decoded event of one stream, and the place of its record."""

    stream: str
    partition: int
    offset: int
    recorded_ms: int
    time_ms: int
    pairs: tuple[WirePair, ...]
    id: str | None = None
    """The producer's own id of the event, for people."""


_msgpack = msgspec.msgpack.Decoder(PairedEvent)
_json = msgspec.json.Decoder(PairedEvent)
_decode = {MSGPACK: _msgpack.decode, JSON: _json.decode}
_decode_any: Mapping[str, Callable[[bytes], Any]] = {
    MSGPACK: msgspec.msgpack.decode,
    JSON: msgspec.json.decode,
}
MODALITIES = tuple(
    str(content.__struct_config__.tag) for content in (Vector, Image, Text, Audio, Video)
)
"""The values that the `type` of a content may have."""


def decode_event(record: Record, partition: int, limits: EventLimits) -> Event:
    """Decodes a record of the events topic. Raises MalformedEvent, which says what is wrong, where,
    and what would be right, and nothing else whatever the record is."""
    try:
        return _event(record, partition, limits)
    except MalformedEvent:
        raise
    except Exception as e:
        raise MalformedEvent("undecodable", f"cannot be decoded: {described(e)}") from e


def _event(record: Record, partition: int, limits: EventLimits) -> Event:
    if isinstance(record, RawRecord) and record.fault is not None:
        raise MalformedEvent("unreadable", f"Kafka's client cannot read it: {record.fault}")
    stream = _stream(record.key, limits)
    value = record.value
    if value is None:
        raise MalformedEvent("no_value", "the record has no value; expected a paired event")
    if len(value) > limits.max_event_bytes:
        raise MalformedEvent(
            "oversize", f"the value has {len(value)} bytes; at most {limits.max_event_bytes}"
        )
    event = _paired_event(value, _content_type(record.headers))
    if not 1 <= len(event.pairs) <= limits.max_pairs:
        raise MalformedEvent(
            "wrong_pair_count", f"{len(event.pairs)} pairs; expected 1 to {limits.max_pairs}"
        )
    recorded_ms = min(max(record.timestamp, 0), LATEST_MS)  # a producer may write any number
    return Event(
        stream=stream,
        partition=partition,
        offset=record.offset,
        recorded_ms=recorded_ms,
        time_ms=recorded_ms if event.time_ms is None else _checked_time(event.time_ms),
        pairs=tuple(event.pairs),
        id=event.id,
    )


def _checked_time(time_ms: int) -> int:
    if time_ms in SECONDS:
        raise MalformedEvent(
            "implausible_time",
            f"time_ms is {time_ms}, a time of 1970 to 1973 in milliseconds; expected milliseconds "
            f"since 1970: if it counts seconds, {time_ms * 1000}",
        )
    return time_ms


def encode_event(event: PairedEvent, content_type: str = MSGPACK) -> bytes:
    """Returns the value that a producer sends. Raises KeyError for an unknown content type."""
    return {MSGPACK: msgspec.msgpack.encode, JSON: msgspec.json.encode}[content_type](event)


def _stream(key: bytes | None, limits: EventLimits) -> str:
    if not key:
        raise MalformedEvent("empty_key", "the record has no key; expected the stream's id, UTF-8")
    if len(key) > limits.max_key_bytes:
        raise MalformedEvent(
            "oversize_key", f"the key has {len(key)} bytes; at most {limits.max_key_bytes}"
        )
    try:
        return key.decode()
    except UnicodeDecodeError as e:
        raise MalformedEvent("key_not_utf8", f"the key is not UTF-8: {e}") from e


def _content_type(headers: Headers) -> str:
    for name, value in headers:
        if name.lower() == CONTENT_TYPE and value is not None:
            return value.decode(errors="replace").partition(";")[0].strip().lower()
    return MSGPACK


def _paired_event(value: bytes, content_type: str) -> PairedEvent:
    decode_value = _decode.get(content_type)
    if decode_value is None:
        raise MalformedEvent(
            "unknown_content_type", f"content-type {content_type!r}; expected {MSGPACK} or {JSON}"
        )
    try:
        return decode_value(value)
    except msgspec.ValidationError as e:
        if unknown := _unknown_modality(value, content_type):
            raise MalformedEvent("unknown_modality", f"not a paired event: {unknown}") from e
        detail = _advised(f"not a paired event: {e}", value, content_type)
        raise MalformedEvent("schema", detail) from e
    except Exception as e:  # of a closed set only in theory: see `decode_event`
        detail = _advised(f"the value is not {content_type}: {described(e)}", value, content_type)
        raise MalformedEvent("undecodable", detail) from e


def _advised(detail: str, value: bytes, content_type: str) -> str:
    if (what_to_do := advice(value, content_type)) is not None:
        return f"{detail}; {what_to_do}"
    if ".data`" in detail and "got `array`" in detail:
        return f"{detail}; numbers go as raw little-endian bytes, which in JSON are base64"
    return detail


def _unknown_modality(value: bytes, content_type: str) -> str | None:
    """Returns a sentence on the first content whose type is no modality, None if there is none."""
    try:
        event = _decode_any[content_type](value)
    except Exception:  # it is broken behind its first fault
        return None
    pairs = event.get("pairs") if isinstance(event, dict) else None
    for i, pair in enumerate(pairs if isinstance(pairs, list) else ()):
        for side in ("source", "target"):
            content = pair.get(side) if isinstance(pair, dict) else None
            kind = content.get("type") if isinstance(content, dict) else None
            if isinstance(kind, str) and kind not in MODALITIES:
                expected = ", ".join(MODALITIES)
                return f"{side} of pair {i} has type {kind!r}; expected one of {expected}"
    return None


def raw_content(content: Content) -> tuple[str, RawContent]:
    """Returns the modality's name and the raw content, as an engine's `prepare` takes them.

    Raises MalformedEvent for a vector whose data does not fill its shape.
    """
    match content:
        case Vector():
            return "vector", _vector(content)
        case Image():
            return "image", content.data
        case Text():
            return "text", content.text
        case Audio():
            clip = AudioClip(content.data, content.encoding, content.rate, content.channels)
            return "audio", clip
        case Video():
            return "video", VideoClip(tuple(content.frames), content.fps)


def vector(values: NDArray[np.floating[Any]]) -> Vector:
    """Makes a content of an array of float16, float32 or float64."""
    names: dict[str, DType] = {"float16": "float16", "float32": "float32", "float64": "float64"}
    little = np.ascontiguousarray(values, values.dtype.newbyteorder("<"))
    return Vector(names[values.dtype.name], list(values.shape), little.tobytes())


def _vector(content: Vector) -> NDArray[Any]:
    dtype = LITTLE_ENDIAN[content.dtype]
    if len(content.shape) != 1:
        raise MalformedEvent(
            "lying_shape", f"a vector of {len(content.shape)} dimensions; expected shape (dim,)"
        )
    needed = content.shape[0] * dtype.itemsize
    if needed != len(content.data):
        raise MalformedEvent(
            "lying_shape",
            f"shape {content.shape} of {content.dtype} needs {needed} bytes; "
            f"the vector has {len(content.data)}",
        )
    return np.frombuffer(content.data, dtype).reshape(content.shape)
