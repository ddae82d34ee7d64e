"""Files of pairs as people have them, read as paired events: JSON Lines, CSV, a folder.

    .jsonl    {"stream": "camera-7", "source": ..., "target": ...}, or what `adaptd record` wrote
    .csv      the same names as columns
    a folder  pictures or sounds, each with a .txt of the same stem; a stream for each subfolder

θ says what a content is. For a vector write its numbers; for text, the text; for a picture or a WAV
file, its path, relative to the file that names it; for a video, the list of its frames' paths. In
JSON a content may also be written as on the wire.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from daemon.errors import MalformedEvent, Misconfigured
from daemon.offline.lines import bounded_lines
from daemon.wire.paired_event import Audio, Content, Image, PairedEvent, Text, Video, WirePair
from daemon.wire.paired_event import vector as vector_content
from model.values.outside import described, parse_json

TEXT_PER_BYTE = 8
"""A float32 has 4 bytes, and rarely more than 32 characters in a text file."""
MEDIA = (".png", ".jpg", ".jpeg", ".webp", ".wav")


@dataclass(frozen=True, slots=True)
class PairsForm:
    """How a file of pairs is to be understood."""

    source_modality: str
    target_modality: str
    max_event_bytes: int
    source_column: str = "source"
    target_column: str = "target"
    stream: str | None = None
    """The stream of every pair. If None, the file says it."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One pair of a file: its place in words, its stream, and its event or what is wrong."""

    place: str
    stream: str = ""
    event: PairedEvent | None = None
    error: str = ""


def read_pairs(path: Path, reading: PairsForm) -> Iterator[Entry]:
    """Yields every pair of a file or a folder in order; a bad one does not end the reading.

    Raises Misconfigured when the path cannot be read or its name says no format.
    """
    try:
        if path.is_dir():
            yield from _folder(path, reading)
        elif path.suffix in (".jsonl", ".ndjson"):
            yield from _json_lines(path, reading)
        elif path.suffix == ".csv":
            yield from _table(path, reading)
        else:
            raise Misconfigured(f"{path}: expected a .jsonl file, a .csv file or a folder")
    except (OSError, ValueError) as e:
        raise Misconfigured(f"{path}: cannot be read: {getattr(e, 'strerror', None) or e}") from e


def _json_lines(path: Path, reading: PairsForm) -> Iterator[Entry]:
    longest = TEXT_PER_BYTE * reading.max_event_bytes
    with path.open("rb") as file:
        for place, line in bounded_lines(file, longest):
            if line is None:
                yield Entry(place, error=f"longer than {longest} bytes")
            else:
                text = line.removeprefix(b"\xef\xbb\xbf")
                yield _entry(place, lambda: _of_json(text, path.parent, reading))  # noqa: B023


def _of_json(line: bytes, folder: Path, reading: PairsForm) -> tuple[str, PairedEvent]:
    row = parse_json(line)
    if not isinstance(row, dict):
        raise ValueError("not an object with stream, source and target")
    stream = reading.stream if reading.stream is not None else row.get("stream")
    if not isinstance(stream, str):
        raise ValueError("no stream: name it in the line, or for all pairs with --stream")
    if "pairs" in row:
        return stream, msgspec.convert(row | {"stream": ""}, PairedEvent, builtin_types=())
    pair = _pair(row, folder, reading)
    facts = {name: row[name] for name in ("id", "time_ms") if row.get(name) is not None}
    checked = msgspec.convert(facts | {"pairs": []}, PairedEvent)
    return stream, PairedEvent([pair], checked.id, checked.time_ms)


def _table(path: Path, reading: PairsForm) -> Iterator[Entry]:
    csv.field_size_limit(TEXT_PER_BYTE * reading.max_event_bytes)
    with path.open("r", encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
        rows = csv.DictReader(file)
        needed = [reading.source_column, reading.target_column]
        needed += ["stream"] if reading.stream is None else []
        if missing := [name for name in needed if name not in (rows.fieldnames or ())]:
            raise Misconfigured(
                f"{path}: has no column {', '.join(missing)}; it has "
                f"{', '.join(rows.fieldnames or ()) or 'none'}: name the columns with "
                "--source-column and --target-column, or one stream for all with --stream"
            )
        while True:
            try:
                row = next(rows)
            except StopIteration:
                return
            except csv.Error as e:
                yield Entry(f"line {rows.line_num}", error=str(e))
                continue
            place = f"line {rows.line_num}"
            yield _entry(place, lambda: _of_row(row, path.parent, reading))  # noqa: B023


def _of_row(row: dict[str, Any], folder: Path, reading: PairsForm) -> tuple[str, PairedEvent]:
    stream = reading.stream if reading.stream is not None else row["stream"]
    return stream or "", PairedEvent([_pair(row, folder, reading)])


def _folder(path: Path, reading: PairsForm) -> Iterator[Entry]:
    of_media = [m in ("image", "audio") for m in (reading.source_modality, reading.target_modality)]
    if of_media[0] == of_media[1]:
        raise Misconfigured(
            f"{path}: a folder pairs pictures or sounds with texts; θ maps "
            f"{reading.source_modality} to {reading.target_modality}: send a .jsonl or .csv file"
        )
    files = (f for f in path.rglob("*") if f.suffix.lower() in MEDIA)
    found = sorted(files, key=lambda file: file.as_posix())
    if not found:
        raise Misconfigured(f"{path}: holds no file whose name ends in {', '.join(MEDIA)}")
    for media in found:
        within = media.parent.relative_to(path).as_posix()
        stream = reading.stream or (path.resolve().name if within == "." else within)
        yield _entry(
            media.relative_to(path).as_posix(),
            lambda: (stream, _beside(media, of_media[0], reading)),  # noqa: B023
        )


def _beside(media: Path, media_is_source: bool, reading: PairsForm) -> PairedEvent:
    text = _bytes_of(media.with_suffix(".txt"), reading).decode().strip()
    sides = (media.name, text) if media_is_source else (text, media.name)
    row = dict(zip((reading.source_column, reading.target_column), sides, strict=True))
    return PairedEvent([_pair(row, media.parent, reading)])


def _entry(place: str, read: Callable[[], tuple[str, PairedEvent]]) -> Entry:
    try:
        stream, event = read()
    except (OSError, ValueError, RecursionError, MalformedEvent) as e:
        return Entry(place, error=described(e) if isinstance(e, ValueError) else str(e))
    return Entry(place, stream, event)


def _pair(row: dict[str, Any], folder: Path, reading: PairsForm) -> WirePair:
    label = row.get("label")
    return WirePair(
        _content(row, reading.source_column, reading.source_modality, folder, reading),
        _content(row, reading.target_column, reading.target_modality, folder, reading),
        label if isinstance(label, str) and label else None,
    )


def _content(
    row: dict[str, Any], column: str, modality: str, folder: Path, reading: PairsForm
) -> Content:
    value = row.get(column)
    if value is None:
        raise ValueError(f"no {column}")
    try:
        if isinstance(value, dict):
            typed: Content = msgspec.convert(value, Content)
            return typed
        match modality:
            case "vector":
                return vector_content(_numbers(value))
            case "text":
                return Text(_words(value))
            case "image":
                return Image(_bytes_of(folder / _words(value), reading))
            case "audio":
                return Audio(_bytes_of(folder / _words(value), reading))
            case _:
                paths = msgspec.convert(value, list[str])
                return Video([_bytes_of(folder / name, reading) for name in paths])
    except (OSError, ValueError) as e:
        raise ValueError(f"{column}: {getattr(e, 'strerror', None) or e}") from e


def _words(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError(f"expected a text, got {type(value).__name__}")
    value.encode()  # what is no UTF-8 is refused here
    return value


def _numbers(value: object) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Returns the float32 numbers of a list, or of a text with commas or spaces between them."""
    if isinstance(value, str):
        parts: Sequence[Any] = value.strip().strip("[]").replace(",", " ").split()
        value = [float(part) for part in parts]
    numbers = msgspec.convert(value, list[float])
    with np.errstate(over="ignore"):  # an infinite number is refused with the other checks
        return np.asarray(numbers, np.float32)


def _bytes_of(path: Path, reading: PairsForm) -> bytes:
    """Returns a file's bytes. Raises OSError, and ValueError when it is too large for an event."""
    try:
        if not path.is_file():
            raise ValueError(f"there is no file {path}")
        if (size := path.stat().st_size) > reading.max_event_bytes:
            raise ValueError(f"{path} has {size} bytes; at most {reading.max_event_bytes}")
        return path.read_bytes()
    except OSError as e:
        raise ValueError(f"{path} cannot be read: {e.strerror or e}") from e
