"""Record batches as they lie in Kafka's log (format 2), read record by record. Pure.

For batches that a client's own parser refuses: what is good in them is read all the same, and what
is not becomes a RawRecord with a fault. Whatever the bytes, nothing here raises, and the work is
bounded by their number. The layout is that of org.apache.kafka.common.record.DefaultRecordBatch
and DefaultRecord; numbers in a record are zigzag varints.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from typing import Literal, NamedTuple

from daemon.wire.record import RawRecord

HEADER = struct.Struct(">qiibIhiqqqhii")
LENGTH_END = 12
"""The bytes of a batch's first offset and length; the length counts what follows them."""
CRC_BEGIN = 21
"""The checksum covers the batch from here on."""
SMALLEST_RECORD_BYTES = 6
MAX_FAULTS = 100
"""Of one batch: beyond that the rest of it is one RawRecord, so that a batch of zeros does not make
a million of them."""
MAX_VARINT_BYTES = 10
MOST_RECORDS = 2**20
"""A damaged batch that says it has more is not believed."""

CODEC_BITS, APPEND_TIME_BIT, CONTROL_BIT = 0x07, 0x08, 0x20

Decompress = Callable[[int, bytes], bytes]
"""Returns the bytes that the codec of this number (1 gzip, 2 snappy, 3 lz4, 4 zstd) has made into
those. May raise anything."""
Checksum = Callable[[bytes], int]
"""CRC-32C."""
Stamps = tuple[int, int | None]
"""A batch's first timestamp, and that of all its records if the broker has set them."""


class Batch(NamedTuple):
    """One batch among the bytes of a fetch, undecoded."""

    data: memoryview
    first_offset: int
    following: int | None
    """The first offset of the batch behind it, if there is one in the fetch."""


def split_batches(data: bytes | memoryview) -> list[Batch]:
    """Returns the complete batches, in order, up to one whose length cannot be."""
    view = memoryview(data)
    ends = list(_batch_ends(view))
    firsts: list[int] = [struct.unpack_from(">q", view, begin)[0] for begin, _ in ends]
    batches = [view[begin:end] for begin, end in ends]
    return list(map(Batch, batches, firsts, [*firsts[1:], None]))


def _batch_ends(data: memoryview) -> Iterator[tuple[int, int]]:
    at = 0
    while at + LENGTH_END <= len(data):
        (length,) = struct.unpack_from(">i", data, at + 8)
        end = at + LENGTH_END + length
        if length <= 0 or end > len(data):
            return
        yield at, end
        at = end


def is_control(batch: Batch) -> bool:
    """Returns whether the batch says that it holds a transaction's marker and no record."""
    return len(batch.data) >= HEADER.size and bool(batch.data[22] & CONTROL_BIT)


def codec_of(batch: Batch) -> int:
    """Returns the number of the codec that the batch says it is compressed with, 0 for none."""
    return int(batch.data[22] & CODEC_BITS) if len(batch.data) >= HEADER.size else 0


def producer_id(batch: Batch) -> int:
    """Returns the id of the producer that sent a batch of format 2."""
    return int(HEADER.unpack_from(batch.data)[9])


def last_offset(batch: Batch, checksum: Checksum) -> int:
    """Returns the last offset that the batch stands for. A damaged batch may lie about it, and
    records behind it must not be skipped: then it is believed only as far as all else agrees."""
    if len(batch.data) < HEADER.size or batch.data[16] < 2:
        return batch.first_offset
    header = HEADER.unpack_from(batch.data)
    delta, count = header[6], header[12]
    last = int(batch.first_offset + delta)
    if checksum(bytes(batch.data[CRC_BEGIN:])) == header[4]:
        return max(last, batch.first_offset)
    if delta < 0:
        return batch.first_offset
    if batch.following is not None and batch.following > batch.first_offset:
        return min(last, batch.following - 1)
    return last if count == delta + 1 <= MOST_RECORDS else batch.first_offset


def read_batch(
    batch: Batch, from_offset: int, decompress: Decompress, checksum: Checksum
) -> Iterator[RawRecord]:
    """Yields the batch's records from an offset on, in order; a fault is one too."""
    last = last_offset(batch, checksum)
    for record in _records(batch, from_offset, last, decompress, checksum):
        if record.offset >= from_offset:
            yield record


def _records(
    batch: Batch, from_offset: int, last: int, decompress: Decompress, checksum: Checksum
) -> Iterator[RawRecord]:
    data = bytes(batch.data)
    fault = _header_fault(data, checksum)
    if fault is not None:
        yield _whole(batch, from_offset, last, fault)
        return
    header = HEADER.unpack_from(data)
    attributes = header[5]
    if attributes & CONTROL_BIT:
        return
    payload = data[HEADER.size :]
    if codec := attributes & CODEC_BITS:
        try:
            payload = decompress(codec, payload)
        except Exception as e:  # whatever a codec's library has
            detail = f"codec {codec} cannot be decompressed: {type(e).__name__}: {e}"
            yield _whole(batch, from_offset, last, detail)
            return
    append_time = header[8] if attributes & APPEND_TIME_BIT else None
    first = max(batch.first_offset, from_offset)
    stamps = header[7], append_time
    yield from _records_of_payload(payload, batch.first_offset, first, last, stamps)


def _header_fault(data: bytes, checksum: Checksum) -> str | None:
    if len(data) < HEADER.size:
        return f"a batch of {len(data)} bytes; its header alone has {HEADER.size}"
    magic, crc = data[16], HEADER.unpack_from(data)[4]
    if magic != 2:
        return f"a batch of format {magic}; expected 2"
    if (found := checksum(data[CRC_BEGIN:])) != crc:
        return f"the batch fails its checksum: {found:08x} instead of {crc:08x}"
    return None


def _whole(batch: Batch, from_offset: int, last: int, fault: str) -> RawRecord:
    """Returns the whole batch as one fault, in place of those of its records that are wanted."""
    first = max(batch.first_offset, from_offset)
    return _fault(first, max(first, last), fault, "batch", bytes(batch.data))


def _fault(
    offset: int, last_offset: int, fault: str, form: Literal["batch", "record"], data: bytes
) -> RawRecord:
    return RawRecord(offset, -1, None, data, (), fault, last_offset, form)


def _records_of_payload(
    payload: bytes, base: int, wanted: int, last: int, stamps: Stamps
) -> Iterator[RawRecord]:
    """`base` is the batch's first offset, `wanted` the first one that is to be read."""
    at, offset, faults = 0, base, 0
    while at < len(payload):
        length, begin = _varint(payload, at)
        end = begin + length
        if length < SMALLEST_RECORD_BYTES or end > len(payload) or faults == MAX_FAULTS:
            what = f"a record of {length} bytes, where {len(payload) - begin} are left"
            fault = f"records that cannot be told apart: {what}"
            yield _fault(min(max(offset, wanted), last), last, fault, "record", payload[at:])
            return
        record = _record(payload[begin:end], base, stamps)
        if isinstance(record, str) or not offset <= record.offset <= last:
            faults += 1
            why = record if isinstance(record, str) else f"its offset is {record.offset}"
            place = min(offset, last)
            record = _fault(place, place, f"the record: {why}", "record", payload[at:end])
        yield record
        at, offset = end, record.offset + 1


def _record(body: bytes, base: int, stamps: Stamps) -> RawRecord | str:
    """Returns a record, or why its bytes are none. One whose header names are not UTF-8 is
    whole, but has a fault; such names are shown as Python would."""
    try:
        delta_ms, at = _varint(body, 1)
        delta, at = _varint(body, at)
        key, at = _nullable_bytes(body, at)
        value, at = _nullable_bytes(body, at)
        headers, at = _headers(body, at)
    except ValueError as e:
        return str(e)
    if at != len(body):
        return f"{len(body) - at} bytes are left over"
    names, values = [name for name, _ in headers], [value for _, value in headers]
    fault = _name_fault(names)
    shown = tuple(zip((n.decode(errors="backslashreplace") for n in names), values, strict=True))
    first_ms, append_ms = stamps
    timestamp = first_ms + delta_ms if append_ms is None else append_ms
    return RawRecord(base + delta, timestamp, key, value, shown, fault)


def _name_fault(names: list[bytes]) -> str | None:
    for i, name in enumerate(names):
        try:
            name.decode()
        except UnicodeDecodeError as e:
            return f"the name of header {i} is not UTF-8: {e.reason} at byte {e.start} of {name!r}"
    return None


def _headers(body: bytes, at: int) -> tuple[list[tuple[bytes, bytes | None]], int]:
    count, at = _varint(body, at)
    if not 0 <= count <= len(body) - at:
        raise ValueError(f"{count} headers in {len(body) - at} bytes")
    found: list[tuple[bytes, bytes | None]] = []
    for _ in range(count):
        name, at = _nullable_bytes(body, at)
        if name is None:
            raise ValueError("a header without a name")
        value, at = _nullable_bytes(body, at)
        found.append((name, value))
    return found, at


def _nullable_bytes(body: bytes, at: int) -> tuple[bytes | None, int]:
    length, at = _varint(body, at)
    if length == -1:
        return None, at
    if not 0 <= length <= len(body) - at:
        raise ValueError(f"{length} bytes, where {len(body) - at} are left")
    return body[at : at + length], at + length


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """Returns a zigzag number and where it ends. Where there is none it is -2, which no length may
    be."""
    number = 0
    for i, byte in enumerate(data[at : at + MAX_VARINT_BYTES]):
        number |= (byte & 0x7F) << (7 * i)
        if byte < 0x80:
            return (number >> 1) ^ -(number & 1), at + i + 1
    return -2, len(data)
