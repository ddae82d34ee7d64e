"""Streams of contents' numbers, episodes of them, and the features that nets in training make.

B = streams in batch, S = support pairs (padded), Q = query pairs (padded), N = pairs of a stream,
R = rows (contents), D = source dim, E = target dim, X = source or target dim

The counterpart of `model.meta.recorded_streams`, for streams whose features are yet to be learned:
drawn by the same rules, by the same random numbers.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple, cast

import numpy as np
import torch
from torch import Tensor

from model.meta.encoders.content_store import ContentStore
from model.meta.encoders.trainable import Pass, Trainable
from model.meta.episodes import EpisodeBatch, EpisodeSizes, IndexArray
from model.meta.recorded_streams import DrawnEpisode, EpisodeDraw, labels_at, sizes_for_hash
from model.values.errors import BadData


@dataclass(frozen=True, slots=True)
class ContentStream:
    """A stream's pairs as numbers of contents in two stores, in any order."""

    name: str
    source_N: IndexArray
    target_N: IndexArray
    times_N: IndexArray
    """Event times; pairs of equal time keep their order."""
    labels: tuple[str, ...] | None = None

    def __len__(self) -> int:
        """Number of pairs, N."""
        return len(self.source_N)

    def taken(self, places: IndexArray | Sequence[int]) -> "ContentStream":
        """Return the stream with the pairs at these places alone, in that order."""
        return replace(
            self,
            source_N=self.source_N[places],
            target_N=self.target_N[places],
            times_N=self.times_N[places],
            labels=labels_at(self.labels, places),
        )


class ContentBatch(NamedTuple):
    """Episodes of B streams, as numbers of contents (int64). `real_*` is true on real pairs;
    padded pairs hold 0."""

    source_support_BS: Tensor
    target_support_BS: Tensor
    real_support_BS: Tensor
    source_query_BQ: Tensor
    target_query_BQ: Tensor
    real_query_BQ: Tensor

    @property
    def same_target_BQQ(self) -> Tensor:
        """True where two queries of a stream have targets of the same content."""
        return self.target_query_BQ.unsqueeze(2) == self.target_query_BQ.unsqueeze(1)


class ContentEpisodes:
    """Draws episodes from streams of contents' numbers."""

    def __init__(self, streams: Sequence[ContentStream], sizes: EpisodeSizes) -> None:
        """Leave out streams too short for any episode.

        Raises BadData when no stream is long enough.
        """
        if not streams:
            raise BadData("no streams")
        self._streams = [s.taken(np.argsort(s.times_N, kind="stable")) for s in streams]
        self._draw = EpisodeDraw(self._streams, sizes)

    @property
    def content_hash(self) -> str:
        """sha256 (hex) over everything that decides what is drawn, but for the contents."""
        digest = hashlib.sha256(sizes_for_hash(self._draw.sizes))
        for s in (self._streams[i] for i in self._draw.streams):
            digest.update(repr((s.name, len(s), s.labels)).encode())
            for array in (s.source_N, s.target_N, s.times_N):
                digest.update(np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()

    def draw(self, generator: torch.Generator, streams: int) -> ContentBatch:
        """Draw an episode of each of `streams` streams; none is drawn twice unless there are
        fewer. The same generator state gives the same batch."""
        sizes = self._draw.sizes
        batch = _empty(streams, sizes)
        for row, episode in enumerate(self._draw.draw(generator, streams)):
            _fill(batch, row, self._streams[episode.stream], episode)
        return batch


@dataclass(frozen=True, slots=True)
class Contents:
    """The data that encoders are trained on: contents by number, and episodes of their numbers."""

    source: ContentStore
    target: ContentStore
    train: ContentEpisodes
    validation: ContentEpisodes | None = None
    """None: no validation; all steps are done, and the last nets are the result."""


def episodes_of_features(
    contents: Contents, numbers: ContentBatch, source: Trainable | float, target: Trainable | float
) -> tuple[EpisodeBatch, list[Pass]]:
    """Return the episodes as features, and the passes that lead gradients back into the nets.

    A side without a net has vectors for contents; give the number that they are divided by.
    """
    real = torch.cat([numbers.real_support_BS, numbers.real_query_BQ], 1)
    source_BN = torch.cat([numbers.source_support_BS, numbers.source_query_BQ], 1)
    target_BN = torch.cat([numbers.target_support_BS, numbers.target_query_BQ], 1)
    x_BND, source_passes = _features(contents.source, source_BN, real, source)
    y_BNE, target_passes = _features(contents.target, target_BN, real, target)
    s = numbers.real_support_BS.shape[1]
    x_parts, y_parts = (x_BND[:, :s], x_BND[:, s:]), (y_BNE[:, :s], y_BNE[:, s:])
    batch = EpisodeBatch(x_parts[0], y_parts[0], real[:, :s], x_parts[1], y_parts[1], real[:, s:])
    return batch, [*source_passes, *target_passes]


def _features(
    store: ContentStore, number_BN: Tensor, real_BN: Tensor, net: Trainable | float
) -> tuple[Tensor, list[Pass]]:
    """Return features of a side's support and query (B, S + Q, X); a content goes through the net
    once, however often it occurs."""
    # padding stands for some content of the batch, so that it costs nothing and is finite
    number_BN = number_BN.where(real_BN, number_BN[real_BN][0])
    number_R, place_BN = cast(tuple[Tensor, Tensor], torch.unique(number_BN, return_inverse=True))
    found = store.take(number_R)
    if isinstance(net, Trainable):
        back = Pass(net, found)
        return back.features_RX[place_BN], [back]
    return torch.from_numpy(np.stack(found))[place_BN] / net, []


def _empty(streams: int, sizes: EpisodeSizes) -> ContentBatch:
    s, q = sizes.max_support, sizes.query
    return ContentBatch(
        torch.zeros(streams, s, dtype=torch.int64),
        torch.zeros(streams, s, dtype=torch.int64),
        torch.zeros(streams, s, dtype=torch.bool),
        torch.zeros(streams, q, dtype=torch.int64),
        torch.zeros(streams, q, dtype=torch.int64),
        torch.zeros(streams, q, dtype=torch.bool),
    )


def _fill(batch: ContentBatch, row: int, stream: ContentStream, episode: DrawnEpisode) -> None:
    source_N, target_N = torch.from_numpy(stream.source_N), torch.from_numpy(stream.target_N)
    _, support, query = episode
    batch.source_support_BS[row, : len(support)] = source_N[support]
    batch.target_support_BS[row, : len(support)] = target_N[support]
    batch.real_support_BS[row, : len(support)] = True
    batch.source_query_BQ[row, : len(query)] = source_N[query]
    batch.target_query_BQ[row, : len(query)] = target_N[query]
    batch.real_query_BQ[row, : len(query)] = True
