"""A dead letter is the record as it came, and always fits its topic."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daemon.adapters.memory import MemoryRecord
from daemon.errors import MalformedEvent
from daemon.wire import dead_letter
from daemon.wire.record import Headers, Message
from daemon.wire.topics import ENVELOPE_BYTES

MAX_BYTES = 100


def letter(
    key: bytes | None = b"k", value: bytes | None = b"v", headers: Headers = (), detail: str = "why"
) -> Message:
    record = MemoryRecord(offset=7, timestamp=99, key=key, value=value, headers=headers)
    return dead_letter.encode_dead_letter(
        dead_letter.dead_letter_of(record, 3, MalformedEvent("lying_shape", detail)),
        topic="dlq",
        from_topic="events",
        max_bytes=MAX_BYTES,
    )


def size(message: Message) -> int:
    headers = sum(len(name.encode()) + len(value or b"") for name, value in message.headers)
    return len(message.key or b"") + len(message.value or b"") + headers


def test_a_dead_letter_is_the_record_with_where_it_lay_and_why() -> None:
    message = letter(b"\xff\x00", b"junk", [("content-type", b"x"), ("x", b"\xff")])
    assert (message.topic, message.key, message.value) == ("dlq", b"\xff\x00", b"junk")
    assert message.headers == (
        ("content-type", b"x"),
        ("x", b"\xff"),
        ("adaptd-topic", b"events"),
        ("adaptd-partition", b"3"),
        ("adaptd-offset", b"7"),
        ("adaptd-timestamp-ms", b"99"),
        ("adaptd-error", b"MalformedEvent"),
        ("adaptd-reason", b"lying_shape"),
        ("adaptd-detail", b"why"),
    )


def test_a_record_without_key_or_value_makes_a_dead_letter_too() -> None:
    message = letter(key=None, value=None)
    assert (message.key, message.value) == (None, None)


def test_nulls_and_nothings_stay_apart() -> None:
    """Byte for byte: whoever sends it again sends what came."""
    headers = [("none", None), ("empty", b""), ("", b"\xff"), ("none", b"")]
    message = letter(b"", b"", headers)
    assert (message.key, message.value) == (b"", b"")
    assert list(message.headers[:4]) == headers
    assert letter(b"k", None, headers).value is None


def test_a_letter_that_fails_again_keeps_its_own_headers_and_loses_the_old_place() -> None:
    first = letter(b"k", b"v", [("mine", None), ("adaptd-other", b"x")])
    again = letter(b"k", b"v", first.headers)
    assert again.headers[:2] == (("mine", None), ("adaptd-other", b"x"))
    names = [name for name, _ in again.headers]
    assert len(names) == len(set(names))
    assert dict(again.headers)["adaptd-attempts"] == b"2"
    assert dict(again.headers)["adaptd-reason"] == b"lying_shape"


def test_a_letter_that_comes_back_again_and_again_is_dropped() -> None:
    error, kept = MalformedEvent("schema", "why"), list[Message]()
    headers: Headers = ()
    for _ in range(10):
        record = MemoryRecord(7, 99, b"k", b"v", headers)
        one = dead_letter.dead_letter_of(record, 3, error)
        if one.is_dropped:
            break
        message = dead_letter.encode_dead_letter(
            one, topic="dlq", from_topic="events", max_bytes=MAX_BYTES
        )
        kept.append(message)
        headers = message.headers
    assert len(kept) == dead_letter.MAX_ATTEMPTS == 3
    assert one.error.reason == "repeated_dead_letter"
    assert one.error.detail == "put aside 3 times already; now schema: why"


@pytest.mark.parametrize("count", [b"", b"-1", b"x", "²".encode(), b"9" * 5_000, None])
def test_a_count_that_is_none_counts_as_one(count: bytes | None) -> None:
    headers = [("adaptd-reason", b"schema"), ("adaptd-attempts", count)]
    record = MemoryRecord(7, 99, b"k", b"v", headers)
    assert dead_letter.dead_letter_of(record, 3, MalformedEvent("schema", "why")).attempts == 2


def test_a_mappings_headers_make_no_dead_letter() -> None:
    headers = [("adaptd-topic", b"events"), ("adaptd-partition", b"1")]
    record = MemoryRecord(7, 99, b"k", b"v", headers)
    made = dead_letter.dead_letter_of(record, 3, MalformedEvent("schema", "why"))
    assert made.attempts == 1


@pytest.mark.parametrize(
    ("key", "headers", "value", "kept", "said"),
    [
        (b"k", [("h", b"1")], b"v" * 87, (1, 1, 87), {}),
        (b"k", [("h", b"1")], b"v" * 88, (1, 1, 87), {"cut-value": b"88"}),
        (b"k", [("h", b"1" * 200)], b"v" * 9, (1, 0, 9), {"cut-headers": b"211"}),
        # names and values of nothing at all still take room
        (b"k", [("", None)] * 20, b"v" * 9, (1, 0, 9), {"cut-headers": b"200"}),
        (b"k" * 150, [], b"v", (100, 0, 0), {"cut-key": b"150", "cut-value": b"1"}),
        (
            b"k" * 150,
            [("h", b"1")],
            b"v",
            (100, 0, 0),
            {"cut-key": b"150", "cut-headers": b"12", "cut-value": b"1"},
        ),
    ],
)
def test_what_is_too_long_is_cut_and_said(
    key: bytes, headers: Headers, value: bytes, kept: tuple[int, int, int], said: dict[str, bytes]
) -> None:
    message = letter(key, value, headers)
    ours = dict(message.headers)
    theirs = [name for name, _ in message.headers if not name.startswith("adaptd-")]
    assert (len(message.key or b""), len(theirs), len(message.value or b"")) == kept
    assert {n[7:]: v for n, v in ours.items() if n.startswith("adaptd-cut-")} == said


@given(
    key=st.none() | st.binary(max_size=300),
    value=st.none() | st.binary(max_size=300),
    headers=st.lists(
        st.tuples(
            st.text(st.characters(exclude_categories=["Cs"]), max_size=60),
            st.none() | st.binary(max_size=60),
        )
    ),
    detail=st.text(st.characters(exclude_categories=["Cs"]), max_size=2_000),
)
def test_whatever_the_record_its_dead_letter_fits(
    key: bytes | None, value: bytes | None, headers: Headers, detail: str
) -> None:
    message = letter(key, value, headers, detail)
    assert size(message) <= MAX_BYTES + ENVELOPE_BYTES
    assert (key or b"").startswith(message.key or b"")
    assert (value or b"").startswith(message.value or b"")
