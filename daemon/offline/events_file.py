"""Events files: paired events on disk, in the schema of the wire.

JSON Lines (`.jsonl`; bytes are base64) or concatenated MessagePack (`.msgpack`). An event is what
a record's value holds, and its stream, which is the record's key on the wire:

    {"stream": "tenant-1", "pairs": [{"source": {"type": "image", ...}, "target": {...},
     "label": "optional"}], "id": "optional", "time_ms": 1767225600000}

Recorded events also say where they lay (`partition`, `offset`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import msgpack
import msgspec

from daemon.errors import MalformedEvent, Misconfigured
from daemon.offline.lines import bounded_lines
from daemon.wire.paired_event import EventLimits, PairedEvent
from model.values.outside import described

JSON_SUFFIXES = (".jsonl", ".ndjson", ".json")
MSGPACK_SUFFIXES = (".msgpack", ".mpk")


class RecordedEvent(PairedEvent, frozen=True, kw_only=True):
    """One event of an events file; `partition` and `offset` are where a recording found it."""

    stream: str
    partition: int | None = None
    offset: int | None = None


@dataclass(frozen=True, slots=True)
class BadEntry:
    """An entry that cannot be used: its place (a line or a byte), and why."""

    place: str
    error: MalformedEvent


def is_json(path: Path) -> bool:
    """Return whether a file of this name holds JSON Lines; otherwise it holds MessagePack. Raises
    Misconfigured for a name that says neither."""
    if path.suffix in JSON_SUFFIXES:
        return True
    if path.suffix in MSGPACK_SUFFIXES:
        return False
    known = ", ".join(JSON_SUFFIXES + MSGPACK_SUFFIXES)
    raise Misconfigured(f"{path}: an events file's name ends in one of {known}")


def read_events(path: Path, limits: EventLimits) -> Iterator[RecordedEvent | BadEntry]:
    """Yield every entry in order; a bad one does not end the reading.

    Raises Misconfigured when the file cannot be read or its name says no format.
    """
    entries = bounded_lines if is_json(path) else _objects
    decode = _JSON.decode if is_json(path) else _MSGPACK.decode
    try:
        with path.open("rb") as file:
            for place, data in entries(file, limits.max_event_bytes):
                yield _decoded(place, data, decode, limits)
    except OSError as e:
        raise Misconfigured(f"{path}: cannot be read: {e.strerror or e}") from e


def event_writer(path: Path, file: IO[bytes]) -> Callable[[RecordedEvent], None]:
    """Return a function that appends an event to the open file, in the format that the path's name
    says."""
    if is_json(path):
        return lambda event: _write(file, msgspec.json.encode(event) + b"\n")
    return lambda event: _write(file, msgspec.msgpack.encode(event))


_JSON = msgspec.json.Decoder(RecordedEvent)
_MSGPACK = msgspec.msgpack.Decoder(RecordedEvent)


def _write(file: IO[bytes], data: bytes) -> None:
    file.write(data)


def _objects(file: IO[bytes], max_bytes: int) -> Iterator[tuple[str, bytes | None]]:
    """Yield (place, object) of every MessagePack object, with None for one that is too long or
    garbage. Objects after garbage cannot be found."""
    unpacker = msgpack.Unpacker(file, max_buffer_size=max(max_bytes, 1 << 16), raw=True)
    with _opened_again(file) as again:
        start = 0
        while True:
            try:
                unpacker.skip()
            except msgpack.OutOfData:
                break
            except Exception:  # whatever garbage does to the library
                yield f"byte {start}", None
                return
            end = unpacker.tell()
            again.seek(start)
            yield f"byte {start}", again.read(end - start) if end - start <= max_bytes else None
            start = end
        again.seek(0, 2)
        if again.tell() > start:
            yield f"byte {start}", None


def _opened_again(file: IO[bytes]) -> IO[bytes]:
    """Open the same file again, with a position of its own."""
    return Path(file.name).open("rb")


def _decoded(
    place: str, data: bytes | None, decode: Callable[[bytes], Any], limits: EventLimits
) -> RecordedEvent | BadEntry:
    if data is None:
        detail = f"cut short, or longer than {limits.max_event_bytes} bytes"
        return BadEntry(place, MalformedEvent("oversize", detail))
    try:
        event: RecordedEvent = decode(data)
    except Exception as e:  # whatever the bytes are, the entries behind them are read
        return BadEntry(place, MalformedEvent("schema", f"not a recorded event: {described(e)}"))
    if not event.stream:
        return BadEntry(place, MalformedEvent("empty_key", "the stream is empty"))
    if not 1 <= len(event.pairs) <= limits.max_pairs:
        detail = f"{len(event.pairs)} pairs; expected 1 to {limits.max_pairs}"
        return BadEntry(place, MalformedEvent("wrong_pair_count", detail))
    return event
