"""Recorded streams as features, and episodes drawn from them.

B = streams in batch, N = pairs of a stream, S = support pairs (padded), Q = query pairs (padded),
D = source dim, E = target dim
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch

from model.meta.episodes import EpisodeBatch, EpisodeSizes, IndexArray, can_be_cut, cut_episode
from model.meta.splits import LabelledPairs
from model.values.arrays import FloatArray
from model.values.errors import BadData


@dataclass(frozen=True, slots=True)
class RecordedStream:
    """A stream's pairs as features, in any order."""

    name: str
    x_ND: FloatArray
    y_NE: FloatArray
    times_N: IndexArray
    """Event times; pairs of equal time keep their order."""
    labels: tuple[str, ...] | None = None

    def __len__(self) -> int:
        """Number of pairs, N."""
        return len(self.x_ND)

    def taken(self, places: IndexArray | Sequence[int]) -> "RecordedStream":
        """Return the stream with the pairs at these places alone, in that order."""
        return replace(
            self,
            x_ND=self.x_ND[places],
            y_NE=self.y_NE[places],
            times_N=self.times_N[places],
            labels=labels_at(self.labels, places),
        )


class DrawnEpisode(NamedTuple):
    """Which pairs of which stream make an episode, as indices."""

    stream: int
    support: IndexArray
    query: IndexArray


class EpisodeDraw:
    """Draws which pairs of which streams make a batch of episodes, whatever the pairs hold.

    A pair is known by its place in its stream, in order of time.
    """

    def __init__(self, streams: Sequence[LabelledPairs], sizes: EpisodeSizes) -> None:
        """Leave out streams that are too short for any episode.

        Raises BadData when no stream is long enough.
        """
        self.sizes = sizes
        self._lengths = [len(s) for s in streams]
        self._labels = [None if s.labels is None else _numbered(s.labels) for s in streams]
        sized = zip(self._lengths, self._labels, strict=True)
        able = [can_be_cut(n, label_N, sizes) for n, label_N in sized]
        self.streams = [i for i, ok in enumerate(able) if ok]
        """Indices of the streams that episodes are drawn from."""
        self.left_out = tuple(s.name for s, ok in zip(streams, able, strict=True) if not ok)
        """Names of the streams that are too short."""
        if not self.streams:
            raise BadData(
                f"none of {len(streams)} streams is long enough: the longest has "
                f"{max(self._lengths)} pairs, an episode needs {sizes.min_support} for the support "
                "and 1 for the query of another label, if there are labels"
            )

    def draw(self, generator: torch.Generator, streams: int) -> list[DrawnEpisode]:
        """Draw an episode of each of `streams` streams; none is drawn twice unless there are
        fewer."""
        rounds = -(-streams // len(self.streams))
        shuffled = [torch.randperm(len(self.streams), generator=generator) for _ in range(rounds)]
        order = torch.cat(shuffled).tolist()[:streams]
        return [self._cut(self.streams[place], generator) for place in order]

    def _cut(self, stream: int, generator: torch.Generator) -> DrawnEpisode:
        rng = np.random.default_rng(int(torch.randint(2**62, (), generator=generator)))
        cut = cut_episode(self._lengths[stream], self._labels[stream], self.sizes, rng)
        return DrawnEpisode(stream, *cut)


class RecordedEpisodes:
    """Draws episodes from recorded streams; an EpisodeSource."""

    def __init__(self, streams: Sequence[RecordedStream], sizes: EpisodeSizes) -> None:
        """Leave out streams too short for any episode, and name them in `left_out`.

        Raises BadData when dims differ, values are not finite, or no stream is long enough.
        """
        if not streams:
            raise BadData("no streams")
        self._streams = [_checked(s, streams[0]) for s in streams]
        self._draw = EpisodeDraw(self._streams, sizes)

    @property
    def source_dim(self) -> int:
        """Number of source features, D."""
        return int(self._streams[0].x_ND.shape[1])

    @property
    def target_dim(self) -> int:
        """Number of target features, E."""
        return int(self._streams[0].y_NE.shape[1])

    @property
    def left_out(self) -> tuple[str, ...]:
        """Names of the streams that are too short for any episode."""
        return self._draw.left_out

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the streams that episodes are drawn from."""
        return tuple(self._streams[i].name for i in self._draw.streams)

    @property
    def content_hash(self) -> str:
        """sha256 (hex) over everything that decides what is drawn."""
        digest = hashlib.sha256(sizes_for_hash(self._draw.sizes))
        for s in (self._streams[i] for i in self._draw.streams):
            digest.update(repr((s.name, s.x_ND.shape, s.y_NE.shape, s.labels)).encode())
            for array in (s.x_ND, s.y_NE, s.times_N):
                digest.update(np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()

    def draw(self, generator: torch.Generator, streams: int) -> EpisodeBatch:
        """Draw an episode of each of `streams` streams; none is drawn twice unless there are
        fewer."""
        sizes = self._draw.sizes
        batch = _empty(streams, sizes, (self.source_dim, self.target_dim))
        for row, (stream, support, query) in enumerate(self._draw.draw(generator, streams)):
            _fill(batch, row, self._streams[stream], support, query)
        return batch


def labels_at(
    labels: tuple[str, ...] | None, places: IndexArray | Sequence[int]
) -> tuple[str, ...] | None:
    """Return the labels at these places; None where there are no labels."""
    return None if labels is None else tuple(labels[i] for i in places)


def sizes_for_hash(sizes: EpisodeSizes) -> bytes:
    """Return the bytes that stand for the sizes in hashes, which checkpoints hold; they begin with
    the name that the class once had."""
    return repr(sizes).replace("EpisodeSizes", "Cut").encode()


def _numbered(labels: tuple[str, ...]) -> IndexArray:
    number = {label: place for place, label in enumerate(sorted(set(labels)))}
    return np.array([number[label] for label in labels], np.int64)


def _checked(stream: RecordedStream, first: RecordedStream) -> RecordedStream:
    """Return the stream in order of time. Raises BadData where it is not sound."""
    n, name = len(stream), repr(stream.name)
    for what, array, like in (
        ("source", stream.x_ND, first.x_ND),
        ("target", stream.y_NE, first.y_NE),
    ):
        if array.ndim != 2 or array.shape[1:] != like.shape[1:]:
            expected = f"(pairs, {like.shape[1]}) as those of {first.name!r}"
            raise BadData(f"stream {name}: {what} features are {array.shape}, not {expected}")
        if not np.isfinite(array).all():
            raise BadData(f"stream {name}: {what} features hold NaN or infinity")
    lengths = (len(stream.y_NE), len(stream.times_N))
    if lengths != (n, n) or (stream.labels is not None and len(stream.labels) != n):
        raise BadData(f"stream {name}: sources, targets, times and labels differ in number")
    ordered = stream.taken(np.argsort(stream.times_N, kind="stable"))
    return replace(
        ordered,
        x_ND=np.ascontiguousarray(ordered.x_ND, np.float32),
        y_NE=np.ascontiguousarray(ordered.y_NE, np.float32),
    )


def _empty(streams: int, sizes: EpisodeSizes, dims: tuple[int, int]) -> EpisodeBatch:
    s, q, (d, e) = sizes.max_support, sizes.query, dims
    return EpisodeBatch(
        torch.zeros(streams, s, d),
        torch.zeros(streams, s, e),
        torch.zeros(streams, s, dtype=torch.bool),
        torch.zeros(streams, q, d),
        torch.zeros(streams, q, e),
        torch.zeros(streams, q, dtype=torch.bool),
    )


def _fill(
    batch: EpisodeBatch, row: int, stream: RecordedStream, support: IndexArray, query: IndexArray
) -> None:
    x_ND, y_NE = torch.from_numpy(stream.x_ND), torch.from_numpy(stream.y_NE)
    batch.x_support_BSD[row, : len(support)] = x_ND[support]
    batch.y_support_BSE[row, : len(support)] = y_NE[support]
    batch.real_support_BS[row, : len(support)] = True
    batch.x_query_BQD[row, : len(query)] = x_ND[query]
    batch.y_query_BQE[row, : len(query)] = y_NE[query]
    batch.real_query_BQ[row, : len(query)] = True
