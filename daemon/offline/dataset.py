"""Events files to streams of features, ready to meta-train and to evaluate on.

N = pairs of a stream, D = source dim, E = target dim
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from daemon.errors import MalformedEvent, Misconfigured
from daemon.offline.files import BadEntry, RecordedEvent, read
from daemon.wire.paired_event import EventLimits, raw_content
from model.encoders.encoder import Encoder
from model.meta.streams import RecordedStream
from model.values.arrays import FloatArray
from model.values.contents import Content
from model.values.errors import BadContent

ENCODED_AT_ONCE = 512
"""Contents decoded but not yet encoded: bounds memory."""
SHOWN = 5
"""Places of bad entries that are named; the rest is counted."""


class RawPair(NamedTuple):
    """One pair as it was recorded, each side with its modality."""

    stream: str
    source: tuple[str, Content]
    target: tuple[str, Content]
    label: str | None
    time_ms: int


@dataclass(slots=True)
class Reading:
    """What was read, and what could not be used."""

    events: int = 0
    pairs: int = 0
    left_out: Counter[str] = field(default_factory=Counter)
    """By reason."""
    examples: list[str] = field(default_factory=list)
    """Where the first of them stand, and what is wrong with them."""

    def leave_out(self, place: str, reason: str, detail: str) -> None:
        """Count something that cannot be used."""
        self.left_out[reason] += 1
        if len(self.examples) < SHOWN:
            self.examples.append(f"{place}: {reason}: {detail}")


def raw_pairs(paths: Sequence[Path], limits: EventLimits, reading: Reading) -> Iterator[RawPair]:
    """Every pair of every good event, in the order of the files. Raises Misconfigured."""
    for path in paths:
        for number, entry in enumerate(read(path, limits), start=1):
            if isinstance(entry, BadEntry):
                reading.leave_out(f"{path} {entry.place}", entry.error.reason, entry.error.detail)
                continue
            reading.events += 1
            yield from _pairs_of(entry, f"{path} event {number}", reading)


def _pairs_of(event: RecordedEvent, place: str, reading: Reading) -> Iterator[RawPair]:
    try:
        sides = [(raw_content(p.source), raw_content(p.target), p.label) for p in event.pairs]
    except MalformedEvent as e:
        reading.leave_out(place, e.reason, e.detail)
        return
    time_ms = event.time_ms or 0
    for source, target, label in sides:
        yield RawPair(event.stream, source, target, label, time_ms)


@dataclass(slots=True)
class _Gathered:
    """One stream's features so far."""

    x: list[FloatArray] = field(default_factory=list)
    y: list[FloatArray] = field(default_factory=list)
    labels: list[str | None] = field(default_factory=list)
    times: list[int] = field(default_factory=list)


Keep = Callable[[RawPair, FloatArray, FloatArray], None]
"""Told of every pair with its features: what wants to show it later takes what it needs."""


def encoded(
    pairs: Iterable[RawPair],
    source: Encoder,
    target: Encoder,
    reading: Reading,
    keep: Keep = lambda pair, x_D, y_E: None,
) -> list[RecordedStream]:
    """Features of every usable pair, stream by stream, in the order of the files.

    A stream keeps its labels only if each of its pairs has one. Raises Misconfigured when nothing
    is left.
    """
    gathered: dict[str, _Gathered] = {}
    for batch in _batches(_prepared(pairs, source, target, reading)):
        x_ND = _features(source, [x for _, x, _ in batch])
        y_NE = _features(target, [y for _, _, y in batch])
        for (pair, _, _), x_D, y_E in zip(batch, x_ND, y_NE, strict=True):
            stream = gathered.setdefault(pair.stream, _Gathered())
            stream.x.append(x_D)
            stream.y.append(y_E)
            stream.labels.append(pair.label)
            stream.times.append(pair.time_ms)
            keep(pair, x_D, y_E)
            reading.pairs += 1
    if not gathered:
        first = f"; first of what was left out: {reading.examples[0]}" if reading.examples else ""
        raise Misconfigured(f"no usable pair in the events files{first}")
    return [_stream(name, stream) for name, stream in gathered.items()]


def _prepared(
    pairs: Iterable[RawPair], source: Encoder, target: Encoder, reading: Reading
) -> Iterator[tuple[RawPair, NDArray[Any], NDArray[Any]]]:
    for number, pair in enumerate(pairs, start=1):
        try:
            x, y = _prepare(source, *pair.source), _prepare(target, *pair.target)
        except BadContent as e:
            reading.leave_out(f"pair {number} (stream {pair.stream!r})", e.reason, str(e))
            continue
        yield pair, x, y


def _prepare(encoder: Encoder, modality: str, content: Content) -> NDArray[Any]:
    if modality != encoder.modality:
        raise BadContent("wrong_modality", f"is {modality!r}, expected {encoder.modality!r}")
    return encoder.prepare(content)


def _batches(
    prepared: Iterator[tuple[RawPair, NDArray[Any], NDArray[Any]]],
) -> Iterator[list[tuple[RawPair, NDArray[Any], NDArray[Any]]]]:
    batch: list[tuple[RawPair, NDArray[Any], NDArray[Any]]] = []
    for entry in prepared:
        batch.append(entry)
        if len(batch) == ENCODED_AT_ONCE:
            yield batch
            batch = []
    if batch:
        yield batch


def _features(encoder: Encoder, prepared: Sequence[NDArray[Any]]) -> FloatArray:
    return np.asarray(encoder.encode(prepared).cpu().numpy(), np.float32)


def _stream(name: str, stream: _Gathered) -> RecordedStream:
    labels = [label for label in stream.labels if label is not None]
    return RecordedStream(
        name,
        np.stack(stream.x),
        np.stack(stream.y),
        np.asarray(stream.times, np.int64),
        tuple(labels) if len(labels) == len(stream.labels) else None,
    )
