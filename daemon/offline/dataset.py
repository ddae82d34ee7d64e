"""Reads events files as streams: of features, to meta-train and evaluate on, or of numbers of
contents, to train encoders on.

N = pairs of a stream, R = rows (events of a batch), D = source dim, E = target dim
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from daemon.errors import MalformedEvent, Misconfigured
from daemon.offline.events_file import BadEntry, RecordedEvent, read_events
from daemon.wire.paired_event import EventLimits, raw_content
from model.encoders.encoder import Encoder
from model.meta.encoders.content_episodes import ContentStream
from model.meta.encoders.content_store import StoredSide
from model.meta.episodes import IndexArray
from model.meta.recorded_streams import RecordedStream
from model.values.arrays import FloatArray
from model.values.contents import Content
from model.values.errors import BadContent

ENCODED_AT_ONCE = 512
"""The most contents that are decoded but not yet encoded, which bounds memory."""
SHOWN = 5
"""The most places of bad entries that are named; the others are counted only."""


V = TypeVar("V")


class RawPair(NamedTuple):
    """One pair as it was recorded, each side with its modality."""

    stream: str
    source: tuple[str, Content]
    target: tuple[str, Content]
    label: str | None
    time_ms: int


@dataclass(slots=True)
class Reading:
    """How much was read, and how much could not be used."""

    events: int = 0
    pairs: int = 0
    left_out: Counter[str] = field(default_factory=Counter)
    """Events and pairs that could not be used, by reason."""
    examples: list[str] = field(default_factory=list)
    """Places of the first of them, and what is wrong there."""

    def leave_out(self, place: str, reason: str, detail: str) -> None:
        """Count something that cannot be used."""
        self.left_out[reason] += 1
        if len(self.examples) < SHOWN:
            self.examples.append(f"{place}: {reason}: {detail}")


def raw_pairs(paths: Sequence[Path], limits: EventLimits, reading: Reading) -> Iterator[RawPair]:
    """Yield every pair of every good event, in the order of the files. Raises Misconfigured for a
    file that cannot be read."""
    for path in paths:
        for number, entry in enumerate(read_events(path, limits), start=1):
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


Keep = Callable[[RawPair, FloatArray, FloatArray], None]
"""Is called for every pair with its features, to keep what is to be shown later."""


def encoded(
    pairs: Iterable[RawPair],
    source: Encoder,
    target: Encoder,
    reading: Reading,
    keep: Keep = lambda pair, x_D, y_E: None,
) -> list[RecordedStream]:
    """Encode every usable pair. Returns streams of features, with pairs in the order of the files.

    A stream keeps its labels only if each of its pairs has one. Raises Misconfigured when no pair
    is usable.
    """
    gathered: dict[str, _Gathered[FloatArray]] = {}
    for batch in _batches(_prepared(pairs, source, target, reading)):
        x_RD = _features(source, [p.source for p in batch])
        y_RE = _features(target, [p.target for p in batch])
        for each, x_D, y_E in zip(batch, x_RD, y_RE, strict=True):
            _gather(gathered, each.pair, x_D, y_E, reading)
            keep(each.pair, x_D, y_E)
    _check_any(gathered, reading)
    return [
        RecordedStream(name, np.stack(s.x), np.stack(s.y), s.times_N, s.all_labels)
        for name, s in gathered.items()
    ]


def stored(
    pairs: Iterable[RawPair], source: StoredSide, target: StoredSide, reading: Reading
) -> list[ContentStream]:
    """Store the contents of every usable pair. Returns streams of their numbers, with pairs in the
    order of the files.

    A stream keeps its labels only if each of its pairs has one. Raises Misconfigured when no pair
    is usable, BadData when contents take too much memory.
    """
    gathered: dict[str, _Gathered[int]] = {}
    for batch in _batches(_prepared(pairs, source.encoder, target.encoder, reading)):
        source_N = source.add([p.source for p in batch])
        target_N = target.add([p.target for p in batch])
        for each, x, y in zip(batch, source_N.tolist(), target_N.tolist(), strict=True):
            _gather(gathered, each.pair, x, y, reading)
    _check_any(gathered, reading)
    return [
        ContentStream(
            name, np.array(s.x, np.int64), np.array(s.y, np.int64), s.times_N, s.all_labels
        )
        for name, s in gathered.items()
    ]


@dataclass(slots=True)
class _Gathered(Generic[V]):
    """One stream's pairs so far, as values of whatever kind."""

    x: list[V] = field(default_factory=list)
    y: list[V] = field(default_factory=list)
    labels: list[str | None] = field(default_factory=list)
    times: list[int] = field(default_factory=list)

    @property
    def times_N(self) -> IndexArray:
        return np.asarray(self.times, np.int64)

    @property
    def all_labels(self) -> tuple[str, ...] | None:
        """The labels, if every pair has one."""
        labels = tuple(label for label in self.labels if label is not None)
        return labels if len(labels) == len(self.labels) else None


def _gather(gathered: dict[str, _Gathered[V]], pair: RawPair, x: V, y: V, reading: Reading) -> None:
    stream = gathered.setdefault(pair.stream, _Gathered())
    stream.x.append(x)
    stream.y.append(y)
    stream.labels.append(pair.label)
    stream.times.append(pair.time_ms)
    reading.pairs += 1


def _check_any(gathered: Mapping[str, object], reading: Reading) -> None:
    if not gathered:
        first = f"; first of what was left out: {reading.examples[0]}" if reading.examples else ""
        raise Misconfigured(f"no usable pair in the events files{first}")


class _Prepared(NamedTuple):
    """A pair with its contents prepared for the encoders."""

    pair: RawPair
    source: NDArray[Any]
    target: NDArray[Any]


def _prepared(
    pairs: Iterable[RawPair], source: Encoder, target: Encoder, reading: Reading
) -> Iterator[_Prepared]:
    for number, pair in enumerate(pairs, start=1):
        try:
            x, y = _prepare(source, *pair.source), _prepare(target, *pair.target)
        except BadContent as e:
            reading.leave_out(f"pair {number} (stream {pair.stream!r})", e.reason, str(e))
            continue
        yield _Prepared(pair, x, y)


def _prepare(encoder: Encoder, modality: str, content: Content) -> NDArray[Any]:
    if modality != encoder.modality:
        raise BadContent("wrong_modality", f"is {modality!r}, expected {encoder.modality!r}")
    return encoder.prepare(content)


def _batches(
    prepared: Iterator[_Prepared],
) -> Iterator[list[_Prepared]]:
    batch: list[_Prepared] = []
    for entry in prepared:
        batch.append(entry)
        if len(batch) == ENCODED_AT_ONCE:
            yield batch
            batch = []
    if batch:
        yield batch


def _features(encoder: Encoder, prepared: Sequence[NDArray[Any]]) -> FloatArray:
    return np.asarray(encoder.encode(prepared).cpu().numpy(), np.float32)
