"""Batches read record by record: good ones equal what kafka-python makes of them, and no bytes
whatsoever raise, go on for ever or lose an offset."""

from __future__ import annotations

import struct
import zlib
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from kafka.record import MemoryRecords
from kafka.record.default_records import DefaultRecordBatchBuilder
from kafka.record.util import calc_crc32c

from daemon.wire.record import RawRecord
from daemon.wire.record_batch import MAX_FAULTS, last_offset, read_batch, split_batches

Rows = list[tuple[int, bytes | None, bytes | None, list[tuple[str, bytes | None]]]]

nullable = st.none() | st.binary(max_size=20)
headers = st.lists(st.tuples(st.text(max_size=5), nullable), max_size=3)
rows = st.lists(
    st.tuples(st.integers(0, 2**41), nullable, nullable, headers), min_size=1, max_size=6
)
codecs = st.sampled_from([0, 1])


def built(rows: Rows, first_offset: int = 0, codec: int = 0) -> bytes:
    builder = DefaultRecordBatchBuilder(
        magic=2,
        compression_type=codec,
        is_transactional=False,
        producer_id=-1,
        producer_epoch=-1,
        base_sequence=-1,
        batch_size=10**6,
    )
    for i, (timestamp, key, value, named) in enumerate(rows):
        builder.append(i, timestamp, key, value, named)
    batch = bytearray(builder.build())
    struct.pack_into(">q", batch, 0, first_offset)
    return bytes(batch)


def decompress(codec: int, data: bytes) -> bytes:
    if codec != 1:
        raise ValueError(f"codec {codec}")
    return zlib.decompress(data, wbits=31)


def read(data: bytes, from_offset: int = 0) -> list[RawRecord]:
    return [
        record
        for batch in split_batches(data)
        for record in read_batch(batch, from_offset, decompress, calc_crc32c)
    ]


def with_right_checksum(batch: bytearray) -> bytes:
    if len(batch) > 21:
        struct.pack_into(">I", batch, 17, calc_crc32c(bytes(batch[21:])))
    return bytes(batch)


def facts(record: Any) -> tuple[Any, ...]:
    return record.offset, record.timestamp, record.key, record.value, list(record.headers)


@given(rows, rows, codecs, st.integers(0, 2**40))
def test_good_batches_are_read_as_kafka_python_reads_them(
    first: Rows, second: Rows, codec: int, base: int
) -> None:
    data = built(first, base, codec) + built(second, base + len(first), codec)
    ours = read(data)
    theirs = [record for batch in MemoryRecords(data) for record in batch]
    assert [facts(r) for r in ours] == [facts(r) for r in theirs]
    assert all(r.fault is None for r in ours)
    assert [r.offset for r in read(data, base + 1)] == [r.offset for r in ours[1:]]


def covered(records: list[RawRecord]) -> list[int]:
    """The offsets that the records stand for."""
    return [
        offset
        for r in records
        for offset in range(r.offset, (r.offset if r.last_offset is None else r.last_offset) + 1)
    ]


@given(rows, codecs, st.data())
def test_one_changed_byte_of_a_sound_batch_loses_no_offset_silently(
    made: Rows, codec: int, data: st.DataObject
) -> None:
    """Behind the header, whose checksum would tell; here the checksum is made right again."""
    batch = bytearray(built(made, 0, codec))
    at = data.draw(st.integers(61, len(batch) - 1))
    batch[at] = data.draw(st.integers(0, 255))
    read_all = read(with_right_checksum(batch))
    offsets = [r.offset for r in read_all]
    assert offsets == sorted(offsets)
    assert all(0 <= offset < len(made) for offset in covered(read_all))
    if codec:
        return
    missing = set(range(len(made))) - set(covered(read_all))
    assert not missing or any(r.fault or len(r.value or b"") for r in read_all)


@given(rows, st.data())
def test_a_batch_whose_checksum_fails_is_one_fault_with_its_bytes(
    made: Rows, data: st.DataObject
) -> None:
    batch = bytearray(built(made, 7))
    at = data.draw(st.integers(61, len(batch) - 1))
    batch[at] ^= data.draw(st.integers(1, 255))
    (fault,) = read(bytes(batch))
    assert (fault.offset, fault.last_offset) == (7, 6 + len(made))
    assert (fault.value_is, fault.value, fault.key) == ("batch", bytes(batch), None)
    assert "checksum" in (fault.fault or "")


@given(st.binary(max_size=400), st.integers(-10, 10))
@example(bytes(300), 0)
@settings(max_examples=500)
def test_no_bytes_raise_or_go_on_for_ever(data: bytes, start: int) -> None:
    assert len(read(data, start)) <= len(data)


@given(st.binary(max_size=300), st.integers(0, 7), st.integers(-(2**31), 2**31 - 1), st.booleans())
@example(bytes(300), 0, 299, True)
@settings(max_examples=500)
def test_no_payload_raises_or_leaves_the_batchs_offsets(
    payload: bytes, codec: int, delta: int, right: bool
) -> None:
    header = struct.pack(
        ">qiibIhiqqqhii", 100, 49 + len(payload), 0, 2, 0, codec, delta, 0, 0, -1, -1, -1, 1
    )
    batch = bytearray(header + payload)
    data = with_right_checksum(batch) if right else bytes(batch)
    (only,) = split_batches(data)
    last = last_offset(only, calc_crc32c)
    found = read(data)
    assert all(100 <= r.offset <= last for r in found)
    assert sum(r.fault is not None for r in found) <= MAX_FAULTS + 1


@pytest.mark.parametrize(
    ("delta", "count", "following", "last"),
    [
        (3, 4, None, 13),
        (2**30, 4, None, 10),  # else a gigabyte of records behind it would be skipped
        (2**30, 4, 14, 13),
        (-1, 4, 14, 10),
        (1, 4, None, 10),
    ],
)
def test_a_damaged_batch_is_not_believed_how_far_it_reaches(
    delta: int, count: int, following: int | None, last: int
) -> None:
    batch = bytearray(built([(0, b"k", b"v", [])] * 4, 10))
    struct.pack_into(">i", batch, 23, delta)
    struct.pack_into(">i", batch, 57, count)
    behind = b"" if following is None else built([(0, b"k", b"v", [])], following)
    assert last_offset(split_batches(bytes(batch) + behind)[0], calc_crc32c) == last


def test_a_length_that_cannot_be_ends_the_fetch() -> None:
    good = built([(0, b"k", b"v", [])], 0)
    for length in (-12, -1, 0, 10**6):
        broken = bytearray(built([(0, b"k", b"v", [])], 1))
        struct.pack_into(">i", broken, 8, length)
        assert [r.offset for r in read(good + bytes(broken))] == [0]


@pytest.mark.parametrize("name", [b"\xff\xfe", b"\xc3", b"\xed\xa0\x80"])
def test_a_header_name_that_is_not_utf8_leaves_all_else_as_it_came(name: bytes) -> None:
    made = built([(5, b"a", b"1", []), (6, b"b", b"2", [("n" * len(name), b"x"), ("m", None)])])
    batch = bytearray(made.replace(b"n" * len(name), name))
    first, second = read(with_right_checksum(batch))
    assert (first.fault, first.value) == (None, b"1")
    assert facts(second)[:4] == (1, 6, b"b", b"2")
    shown = name.decode(errors="backslashreplace")
    assert list(second.headers) == [(shown, b"x"), ("m", None)]
    assert "header 0" in (second.fault or "")
