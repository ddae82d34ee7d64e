"""Paired events: what is good comes back as it went, what is bad is a MalformedEvent."""

from __future__ import annotations

import gzip
import json
import lzma
import pickle
import tracemalloc
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from daemon.adapters.memory import MemoryRecord
from daemon.errors import MalformedEvent
from daemon.wire import dead_letter, paired_event
from daemon.wire.advice import advice
from daemon.wire.dead_letter import DeadLetter
from daemon.wire.paired_event import (
    JSON,
    LATEST_MS,
    MAX_FRAMES,
    MSGPACK,
    Audio,
    Content,
    Event,
    EventLimits,
    Image,
    PairedEvent,
    Text,
    Vector,
    Video,
    WirePair,
)
from daemon.wire.record import Headers
from model.values.contents import AudioClip, VideoClip

LIMITS = EventLimits(max_event_bytes=4_096, max_pairs=3, max_key_bytes=16)
CONTENTS: list[Content] = [
    Vector("float32", [3], bytes(12)),
    Image(b"\x89PNG"),
    Text("Grüße, 🌍 \x00"),
    Audio(b"RIFF"),
    Audio(b"\x00\x01", encoding="pcm_s16le", rate=16_000, channels=2),
    Video([b"frame", b""], fps=2.5),
]
VECTOR = CONTENTS[0]
GOOD = PairedEvent([WirePair(VECTOR, Vector("float32", [1], bytes(4)), label="grin")], "e1", 77)


def content_type(name: str) -> Headers:
    return [("other", None), ("content-type", name.encode())]


def decode(value: bytes | None, headers: Headers = (), key: bytes | None = b"s") -> Event:
    record = MemoryRecord(offset=5, timestamp=1_234, key=key, value=value, headers=headers)
    return paired_event.decode_event(record, 2, LIMITS)


def refused(value: bytes | None, headers: Headers = (), key: bytes | None = b"s") -> MalformedEvent:
    try:
        event = decode(value, headers, key)
        for pair in event.pairs:
            paired_event.raw_content(pair.source)
    except MalformedEvent as error:
        return error
    pytest.fail("not refused")


@pytest.mark.parametrize(
    ("value", "headers"),
    [(b'{"a":' + b"[" * 900_000, content_type(JSON)), (b"\x81\xa1a" + b"\x91" * 900_000, ())],
)
def test_however_deep_an_event_is_nested_it_is_only_malformed(
    value: bytes, headers: Headers
) -> None:
    record = MemoryRecord(0, 0, b"s", value, headers)
    with pytest.raises(MalformedEvent, match="recursion"):
        paired_event.decode_event(record, 0, EventLimits(max_event_bytes=1_000_000, max_pairs=3))


@pytest.mark.parametrize("encoding", [MSGPACK, JSON])
@pytest.mark.parametrize("content", CONTENTS, ids=lambda c: type(c).__name__)
def test_every_content_comes_back_as_it_went(content: Content, encoding: str) -> None:
    pair = WirePair(source=content, target=VECTOR, label="x")
    value = paired_event.encode_event(PairedEvent([pair, pair], id="e", time_ms=9), encoding)
    event = decode(value, content_type(encoding), "ключ".encode())
    assert event.pairs == (pair, pair)
    assert (event.stream, event.partition, event.offset) == ("ключ", 2, 5)
    assert (event.recorded_ms, event.time_ms) == (1_234, 9)


def test_without_a_content_type_an_event_is_messagepack() -> None:
    assert decode(paired_event.encode_event(GOOD)) == decode(
        paired_event.encode_event(GOOD, MSGPACK), content_type(MSGPACK)
    )


def test_without_a_time_of_its_own_an_event_happened_when_it_was_recorded() -> None:
    assert decode(paired_event.encode_event(PairedEvent(GOOD.pairs))).time_ms == 1_234


def test_an_unknown_field_is_ignored_so_that_producers_may_be_newer() -> None:
    value = paired_event.encode_event(GOOD, JSON).replace(b'{"pairs"', b'{"new":[1],"pairs"')
    assert decode(value, content_type(JSON)).pairs == tuple(GOOD.pairs)


def test_another_content_type_cannot_be_written() -> None:
    with pytest.raises(KeyError):
        paired_event.encode_event(GOOD, "text/csv")


@pytest.mark.parametrize(
    ("content", "modality", "raw"),
    [
        (Image(b"png"), "image", b"png"),
        (Text("é"), "text", "é"),
        (Audio(b"wav"), "audio", AudioClip(b"wav")),
        (
            Audio(b"\x00\x01", encoding="pcm_s16le", rate=8_000, channels=2),
            "audio",
            AudioClip(b"\x00\x01", "pcm_s16le", 8_000, 2),
        ),
        (Video([b"a", b"b"]), "video", VideoClip((b"a", b"b"))),
        (Video([b"ab", b""], fps=2.5), "video", VideoClip((b"ab", b""), 2.5)),
    ],
)
def test_the_raw_content_of_a_modality(content: Content, modality: str, raw: object) -> None:
    assert paired_event.raw_content(content) == (modality, raw)


@pytest.mark.parametrize("encoding", [MSGPACK, JSON])
def test_a_video_has_at_most_so_many_frames(encoding: str) -> None:
    def event(frames: int) -> bytes:
        pair = WirePair(Video([b""] * frames), VECTOR)
        return paired_event.encode_event(PairedEvent([pair]), encoding)

    limits = EventLimits(max_event_bytes=100_000, max_pairs=1)

    def read(value: bytes) -> Event:
        record = MemoryRecord(0, 0, b"s", value, content_type(encoding))
        return paired_event.decode_event(record, 0, limits)

    assert isinstance(read(event(MAX_FRAMES)).pairs[0].source, Video)
    with pytest.raises(MalformedEvent, match="4096") as caught:
        read(event(MAX_FRAMES + 1))
    assert caught.value.reason == "schema"


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", ">f4", ">f8"])
def test_a_vector_comes_back_with_its_values_whatever_the_producers_byte_order(dtype: str) -> None:
    values = np.array([1.5, -2.0, 0.25], dtype)
    modality, raw = paired_event.raw_content(paired_event.vector(values))
    assert modality == "vector"
    assert isinstance(raw, np.ndarray)
    assert raw.tolist() == values.tolist()
    assert raw.dtype.itemsize == values.dtype.itemsize


def test_an_empty_vector_is_an_empty_array() -> None:
    _, raw = paired_event.raw_content(Vector("float32", [0], b""))
    assert isinstance(raw, np.ndarray)
    assert raw.shape == (0,)


def test_a_strided_vector_is_written_in_order() -> None:
    _, raw = paired_event.raw_content(paired_event.vector(np.arange(6, dtype=np.float32)[::2]))
    assert isinstance(raw, np.ndarray)
    assert raw.tolist() == [0, 2, 4]


def json_event(content: str) -> bytes:
    return f'{{"pairs":[{{"source":{content},"target":{{"type":"text","text":""}}}}]}}'.encode()


def vector_event(shape: list[int], data: bytes) -> bytes:
    pair = WirePair(Vector("float32", shape, data), VECTOR)
    return paired_event.encode_event(PairedEvent([pair]))


MALFORMED: list[tuple[str, bytes | None, Headers, bytes | None, str]] = [
    # reason, value, headers, key, what the message says
    ("empty_key", b"", (), b"", "expected the stream's id"),
    ("empty_key", b"", (), None, "expected the stream's id"),
    ("oversize_key", b"", (), b"k" * 17, "17 bytes; at most 16"),
    ("key_not_utf8", b"", (), b"\xff", "not UTF-8"),
    ("no_value", None, (), b"s", "expected a paired event"),
    ("oversize", bytes(4_097), (), b"s", "4097 bytes; at most 4096"),
    ("unknown_content_type", b"", content_type("text/csv"), b"s", f"expected {MSGPACK} or {JSON}"),
    ("undecodable", b"", [("content-type", None)], b"s", "not application/msgpack"),
    ("unknown_content_type", b"", [("content-type", b"\xff")], b"s", f"expected {MSGPACK} or"),
    ("undecodable", b"", (), b"s", "not application/msgpack"),
    ("undecodable", b"\xc1", (), b"s", "not application/msgpack"),
    ("undecodable", paired_event.encode_event(GOOD) + b"x", (), b"s", "not application/msgpack"),
    ("undecodable", paired_event.encode_event(GOOD)[:-3], (), b"s", "not application/msgpack"),
    ("undecodable", b"{", content_type(JSON), b"s", "not application/json"),
    ("undecodable", b'{"id":"\xff"}', content_type(JSON), b"s", "not application/json"),
    ("undecodable", b'{"id":"\\ud800"}', content_type(JSON), b"s", "not application/json"),
    ("undecodable", b'{"a":' + b"[" * 4_000, content_type(JSON), b"s", "not application/json"),
    ("undecodable", b"\x81\xa1a" + b"\x91" * 4_000, (), b"s", "not application/msgpack"),
    ("schema", b"\x93\x01\x02\x03", (), b"s", "not a paired event"),
    ("schema", b"{}", content_type(JSON), b"s", "not a paired event"),
    ("schema", b'{"pairs":[{}]}', content_type(JSON), b"s", "not a paired event"),
    ("schema", json_event('{"text":"x"}'), content_type(JSON), b"s", "not a paired event"),
    ("schema", json_event('{"type":"text"}'), content_type(JSON), b"s", "not a paired event"),
    (
        "schema",
        json_event('{"type":"text","text":5}'),
        content_type(JSON),
        b"s",
        "not a paired event",
    ),
    (
        "schema",
        json_event('{"type":"audio","data":"","encoding":"mp3"}'),
        content_type(JSON),
        b"s",
        "not a paired event",
    ),
    (
        "schema",
        json_event('{"type":"image","data":"***"}'),
        content_type(JSON),
        b"s",
        "not a paired event",
    ),
    (
        "schema",
        json_event('{"type":"vector","dtype":"int8","shape":[1],"data":"AA=="}'),
        content_type(JSON),
        b"s",
        "not a paired event",
    ),
    (
        "unknown_modality",
        json_event('{"type":"smell"}'),
        content_type(JSON),
        b"s",
        "type 'smell'; expected one of vector",
    ),
    ("wrong_pair_count", paired_event.encode_event(PairedEvent([])), (), b"s", "expected 1 to 3"),
    (
        "wrong_pair_count",
        paired_event.encode_event(PairedEvent(GOOD.pairs * 4)),
        (),
        b"s",
        "4 pairs; expected 1 to 3",
    ),
    ("lying_shape", vector_event([4], bytes(12)), (), b"s", "needs 16 bytes; the vector has 12"),
    ("lying_shape", vector_event([-1], b""), (), b"s", "needs -4 bytes"),
    ("lying_shape", vector_event([2**62], b""), (), b"s", "the vector has 0"),
    ("lying_shape", vector_event([], b""), (), b"s", "expected shape (dim,)"),
    ("lying_shape", vector_event([1, 3], bytes(12)), (), b"s", "expected shape (dim,)"),
]


@pytest.mark.parametrize(
    ("reason", "value", "headers", "key", "says"), MALFORMED, ids=[m[0] for m in MALFORMED]
)
def test_a_malformed_event_is_refused_with_its_reason_and_what_would_be_right(
    reason: str, value: bytes | None, headers: Headers, key: bytes | None, says: str
) -> None:
    error = refused(value, headers, key)
    assert error.reason == reason
    assert says in error.detail


JSON_TEXT = paired_event.encode_event(GOOD, JSON)
MSGPACK_BYTES = paired_event.encode_event(GOOD)
ADVICE = [
    (JSON_TEXT, MSGPACK, "looks like JSON: set the header content-type: application/json"),
    (b" \n [1]", MSGPACK, "looks like JSON"),
    (MSGPACK_BYTES, JSON, "looks like MessagePack: set the header content-type: application/msg"),
    (b"\x00\x00\x00\x00\x07" + MSGPACK_BYTES, MSGPACK, "looks like Schema Registry's format"),
    (b"\x00\x00\x00\x00\x07" + JSON_TEXT, JSON, "looks like Schema Registry's format"),
    (gzip.compress(JSON_TEXT), JSON, "compressed by gzip: send it as it is, and let Kafka compr"),
    (gzip.compress(MSGPACK_BYTES), MSGPACK, "compressed by gzip"),
    (zlib.compress(MSGPACK_BYTES), MSGPACK, "compressed by zlib"),
    (lzma.compress(MSGPACK_BYTES), MSGPACK, "compressed by xz"),
    (b"\x28\xb5\x2f\xfd\x04\x00", MSGPACK, "compressed by zstd"),
    (b"\xef\xbb\xbf" + JSON_TEXT, JSON, "byte order mark"),
    (json.dumps(JSON_TEXT.decode()).encode(), JSON, "encode the event once, not twice"),
    (b"\x89PNG\r\n\x1a\n", MSGPACK, "looks like a PNG picture: send a paired event that holds it"),
    (pickle.dumps({"pairs": []}, 4), MSGPACK, "looks like a Python pickle"),
    (b"", MSGPACK, "it is empty"),
    (b"", JSON, "it is empty"),
    (
        b'{"pairs": [{"source": {"type": "vector", "dtype": "float32", "shape": [1], '
        b'"data": [0.5]}}]}',
        JSON,
        "numbers go as raw little-endian bytes, which in JSON are base64",
    ),
]


@pytest.mark.parametrize(
    ("value", "name", "says"), ADVICE, ids=[f"{i}-{a[2][:20]}" for i, a in enumerate(ADVICE)]
)
def test_a_producer_is_told_what_to_do(value: bytes, name: str, says: str) -> None:
    error = refused(value, content_type(name))
    assert error.reason in ("undecodable", "schema")
    assert says in error.detail


def test_where_nothing_is_known_there_is_no_advice() -> None:
    assert advice(b"\xc1", MSGPACK) is None
    assert advice(b"{", JSON) is None
    assert advice(b"\x00\x01", MSGPACK) is None
    for first in range(256):
        advice(bytes([first]), MSGPACK)
        advice(bytes([first]), JSON)


@pytest.mark.parametrize("digits", [20, 4_299, 4_300, 5_000])
@pytest.mark.parametrize(
    "event",
    [
        '{"pairs": [{"source": {"type": "vector", "dtype": "float32", "shape": [N], "data": ""}, '
        '"target": {"type": "text", "text": ""}}]}',
        '{"pairs": [{"source": {"type": "audio", "data": "", "rate": N, "channels": N}, '
        '"target": {"type": "text", "text": ""}}]}',
    ],
)
def test_an_integer_that_python_cannot_print_is_refused(event: str, digits: int) -> None:
    value = event.replace("N", "9" * digits).encode()
    record = MemoryRecord(5, 1_234, b"s", value, content_type(JSON))
    with pytest.raises(MalformedEvent) as refusal:
        paired_event.decode_event(record, 2, EventLimits(max_event_bytes=20_000, max_pairs=3))
    assert refusal.value.reason == "schema"
    assert len(refusal.value.detail) < 1_000


@pytest.mark.parametrize("time_ms", [-1, LATEST_MS + 1, 2**63, 2**64 - 1])
def test_a_time_that_fits_no_window_is_refused(time_ms: int) -> None:
    assert (
        refused(paired_event.encode_event(PairedEvent(GOOD.pairs, time_ms=time_ms))).reason
        == "schema"
    )


NOW_S = 1_767_225_600  # 2026-01-01


@pytest.mark.parametrize("encoding", [MSGPACK, JSON])
@pytest.mark.parametrize("time_s", [100_000_000, NOW_S, NOW_S + 10**9, 99_999_999_999])
def test_a_time_in_seconds_is_refused_and_told(time_s: int, encoding: str) -> None:
    value = paired_event.encode_event(PairedEvent(GOOD.pairs, time_ms=time_s), encoding)
    error = refused(value, content_type(encoding))
    assert error.reason == "implausible_time"
    assert f"seconds, {time_s * 1000}" in error.detail


@pytest.mark.parametrize("time", [NOW_S * 10**6, NOW_S * 10**9, 9_405_142_800_000_000])
def test_microseconds_nanoseconds_and_the_year_300000_are_refused(time: int) -> None:
    value = paired_event.encode_event(PairedEvent(GOOD.pairs, time_ms=time))
    assert refused(value).reason == "schema"


@pytest.mark.parametrize("time_ms", [0, 1, 10**8 - 1, 10**11, NOW_S * 1000, LATEST_MS])
def test_other_times_are_taken_as_they_are(time_ms: int) -> None:
    value = paired_event.encode_event(PairedEvent(GOOD.pairs, time_ms=time_ms))
    record = MemoryRecord(offset=5, timestamp=NOW_S * 1000, key=b"s", value=value, headers=())
    assert paired_event.decode_event(record, 0, LIMITS).time_ms == time_ms


def test_a_time_of_thirty_digits_is_refused() -> None:
    value = paired_event.encode_event(GOOD, JSON).replace(b"77", b"9" * 30)
    assert refused(value, content_type(JSON)).reason == "schema"


@pytest.mark.parametrize(
    "value",
    [
        b"\x81\xa5pairs\xdd\xff\xff\xff\xff",
        b"\x81\xa5pairs\xdd\x05\x00\x00\x00",
        b"\x81\xa1a\xdf\xff\xff\xff\xff",
        b"\x81\xa1a\xc6\xff\xff\xff\xff",
        b"\x81\xa2id\xdb\xff\xff\xff\xff",
    ],
)
def test_a_length_that_lies_takes_no_memory(value: bytes) -> None:
    tracemalloc.start()
    try:
        assert refused(value).reason == "undecodable"
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()


def outcome(value: bytes, headers: Headers) -> str:
    """What becomes of any bytes: an event, or a dead letter that can be written."""
    record = MemoryRecord(0, 0, b"s", value, headers)
    try:
        event = paired_event.decode_event(record, 0, LIMITS)
        for pair in event.pairs:
            paired_event.raw_content(pair.source)
            paired_event.raw_content(pair.target)
    except MalformedEvent as error:
        letter = DeadLetter(record, 0, error)
        message = dead_letter.encode_dead_letter(
            letter, topic="dlq", from_topic="events", max_bytes=10_000
        )
        assert message.value == value
        return error.reason
    assert 0 <= event.time_ms <= LATEST_MS
    return "good"


@given(value=st.binary(max_size=300), encoding=st.sampled_from([MSGPACK, JSON]))
def test_random_bytes_are_never_anything_but_malformed(value: bytes, encoding: str) -> None:
    assert outcome(value, content_type(encoding)) != "good"


@given(
    encoding=st.sampled_from([MSGPACK, JSON]),
    content=st.sampled_from(CONTENTS),
    edits=st.lists(
        st.tuples(st.integers(0, 200), st.integers(0, 3), st.binary(max_size=4)), min_size=1
    ),
)
def test_a_good_event_with_bytes_changed_is_good_or_malformed(
    encoding: str, content: Content, edits: list[tuple[int, int, bytes]]
) -> None:
    value = paired_event.encode_event(
        PairedEvent([WirePair(content, VECTOR)], time_ms=2**40), encoding
    )
    for at, length, replacement in edits:
        value = value[:at] + replacement + value[at + length :]
    assert outcome(value, content_type(encoding))


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(["pairs", "source", "target", "type", "data", "shape", "time_ms"]),
            inner,
        )
    ),
    max_leaves=20,
)


@given(json_values)
def test_any_document_with_our_field_names_is_good_or_malformed(document: object) -> None:
    import json

    assert outcome(json.dumps({"pairs": [document]}).encode(), content_type(JSON)) != "good"
    assert outcome(json.dumps(document).encode(), content_type(JSON)) != "good"
