"""Damages a batch where it lies, in the file of a local broker: brokers do not look before they
send it."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path

from kafka.record.util import calc_crc32c

Damage = Callable[[bytearray], None]
"""Changes one batch in place, to the same length."""
HEADER_BYTES = 61


def segment(data: Path, topic: str, partition: int) -> Path:
    return data / "data" / f"{topic}-{partition}" / f"{0:020}.log"


def batches(log: bytes) -> list[tuple[int, int]]:
    """Where each batch of a file begins and ends."""
    found, at = [], 0
    while at + 12 <= len(log):
        (length,) = struct.unpack_from(">i", log, at + 8)
        if not length:  # a file may be longer than what is written
            break
        found.append((at, at + 12 + length))
        at += 12 + length
    return found


def damage(file: Path, number: int, how: Damage, *, right_checksum: bool = True) -> bytes:
    """Damages the batch of this number, counted from 0, and returns its bytes from then on."""
    begin, end = batches(file.read_bytes())[number]
    with file.open("r+b") as opened:
        opened.seek(begin)
        batch = bytearray(opened.read(end - begin))
        how(batch)
        if right_checksum:
            struct.pack_into(">I", batch, 17, calc_crc32c(bytes(batch[21:])))
        opened.seek(begin)
        opened.write(batch)
    return bytes(batch)


def flipped_bit(batch: bytearray) -> None:
    batch[-1] ^= 1


def codec(number: int) -> Damage:
    def change(batch: bytearray) -> None:
        batch[22] = batch[22] & ~7 | number

    return change


def record_length(batch: bytearray) -> None:
    batch[HEADER_BYTES] = 0x7F


def key_length(batch: bytearray) -> None:
    batch[HEADER_BYTES + 4] = 0x7E


def header_name(batch: bytearray) -> None:
    """Of the last record."""
    at = batch.rindex(b"name")
    batch[at : at + 2] = b"\xff\xfe"


def record_count(batch: bytearray) -> None:
    struct.pack_into(">i", batch, 57, -5)
