"""What a subscriber keeps on disk: its mappings, θs, and how far it has read.

A snapshot is a file of MessagePack objects, each behind its length in four bytes:

    header      format, topic, its id, positions by partition, streams followed, when it was written
    entries     the θs that are needed, then the mappings, each a safetensors file

and behind them the SHA-256 of all that. It appears under its name only when it is whole.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import IO, Literal

import msgspec

from daemon.client.served import ServedTheta, theta_from_bytes, theta_to_bytes
from daemon.wire.adapted_mapping import AdaptedMapping, decode_mapping, encode_mapping
from model.values.outside import raising_only

SNAPSHOT_FORMAT = "adaptd-snapshot/1"
LENGTH_BYTES = 4
DIGEST_BYTES = 32
READ_BYTES = 1 << 20


class BadSnapshot(ValueError):
    """A file is no snapshot, is damaged, or cannot be read; the message says why."""


class SnapshotHeader(msgspec.Struct, frozen=True, kw_only=True):
    """Where a subscriber stood when it wrote the snapshot."""

    format: str = SNAPSHOT_FORMAT
    topic: str
    topic_id: str
    """A topic that is made anew has another."""
    positions: dict[int, int]
    """The offset of the next record to read, by partition of the topic of mappings."""
    streams: list[str] | None = None
    prefix: str = ""
    """Which streams were followed."""
    written_at_ms: int
    active_theta: str = ""
    """The content hash of the θ that served unknown streams."""


class SnapshotEntry(msgspec.Struct, frozen=True):
    """A θ or a mapping, as the bytes of a safetensors file."""

    kind: Literal["theta", "mapping"]
    data: bytes


def write_snapshot(
    path: Path,
    header: SnapshotHeader,
    thetas: Iterable[ServedTheta],
    mappings: Iterable[AdaptedMapping],
) -> int:
    """Writes a snapshot and returns its bytes. The file that was there stays until the new one is
    whole and on disk. Raises OSError."""
    part = path.with_name(path.name + ".part")
    try:
        with part.open("wb") as file:
            write = _Writer(file)
            write(header)
            for theta in thetas:
                write(SnapshotEntry("theta", theta_to_bytes(theta)))
            for mapping in mappings:
                write(SnapshotEntry("mapping", encode_mapping(mapping)[0]))
            file.write(write.digest.digest())
            file.flush()
            os.fsync(file.fileno())
            size = file.tell()
        part.replace(path)
    except BaseException:
        with suppress(OSError):
            part.unlink(missing_ok=True)
        raise
    return size


class _Writer:
    def __init__(self, file: IO[bytes]) -> None:
        self._file, self.digest = file, hashlib.sha256()

    def __call__(self, value: msgspec.Struct) -> None:
        data = msgspec.msgpack.encode(value)
        for piece in (len(data).to_bytes(LENGTH_BYTES, "little"), data):
            self.digest.update(piece)
            self._file.write(piece)


def read_snapshot(
    path: Path,
) -> tuple[SnapshotHeader, Iterator[ServedTheta | AdaptedMapping]]:
    """Returns a snapshot's header, and an iterator of its θs and then of its mappings. The whole
    file is verified first. Raises BadSnapshot when it is none, is damaged or cannot be read, and
    FileNotFoundError where there is no file."""
    with raising_only(BadSnapshot, f"{path}"):
        found = path.exists()
    if not found:
        raise FileNotFoundError(path)
    with raising_only(BadSnapshot, f"{path}"):
        end = _verified_end(path)
        with path.open("rb") as file:
            header = msgspec.msgpack.decode(_piece(file), type=SnapshotHeader)
            start = file.tell()
        if header.format != SNAPSHOT_FORMAT:
            raise BadSnapshot(f"is of format {header.format!r}, not {SNAPSHOT_FORMAT!r}")
    return header, _entries(path, start, end)


def _verified_end(path: Path) -> int:
    """Returns where the entries end. Raises BadSnapshot unless a digest of what stands before
    follows."""
    end, digest = path.stat().st_size - DIGEST_BYTES, hashlib.sha256()
    with path.open("rb") as file:
        left = max(end, 0)
        while data := file.read(min(left, READ_BYTES)):
            digest.update(data)
            left -= len(data)
        if file.read(DIGEST_BYTES) != digest.digest():
            raise BadSnapshot("is damaged or cut short: its contents do not match its digest")
    return end


def _piece(file: IO[bytes]) -> bytes:
    return file.read(int.from_bytes(file.read(LENGTH_BYTES), "little"))


def _entries(path: Path, start: int, end: int) -> Iterator[ServedTheta | AdaptedMapping]:
    with path.open("rb") as file:
        file.seek(start)
        while file.tell() < end:
            with raising_only(BadSnapshot, f"{path}"):
                entry = msgspec.msgpack.decode(_piece(file), type=SnapshotEntry)
                is_theta = entry.kind == "theta"
                found = theta_from_bytes(entry.data) if is_theta else decode_mapping(entry.data)
            yield found
