"""Episodes from recorded streams.

T = streams in batch, N = pairs of a stream, S = support pairs (padded), Q = query pairs (padded),
D = source dim, E = target dim
"""

import hashlib
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from model.meta.cuts import Cut, IndexArray, can_be_cut, cut_episode
from model.meta.episodes import EpisodeBatch
from model.meta.splits import Fractions, Part, part_of
from model.values.arrays import FloatArray
from model.values.errors import BadData

DEFAULT_FRACTIONS = Fractions()


@dataclass(frozen=True, slots=True)
class RecordedStream:
    """A stream's pairs as features, in any order."""

    name: str
    x_ND: FloatArray
    y_NE: FloatArray
    times_N: IndexArray
    """Event times; pairs of equal time keep their order."""
    labels: tuple[str, ...] | None = None


def select(
    streams: Sequence[RecordedStream],
    seed: int,
    stream_parts: Collection[Part],
    label_parts: Collection[Part] | None = None,
    fractions: Fractions = DEFAULT_FRACTIONS,
) -> list[RecordedStream]:
    """The streams of these parts, with the pairs whose labels are of those parts.

    Streams without labels keep all their pairs. `label_parts` None takes every label.
    Raises BadData when nothing is left.
    """
    chosen = [s for s in streams if part_of(s.name, seed, fractions) in stream_parts]
    if not chosen:
        raise BadData(
            f"none of the {len(streams)} streams falls into {', '.join(sorted(stream_parts))} "
            f"(validation {fractions.validation:g}, test {fractions.test:g}, seed {seed}): "
            "record more streams, or choose other fractions or another seed"
        )
    if label_parts is None:
        return chosen
    kept = [_with_labels_of(s, seed, label_parts, fractions) for s in chosen]
    if not any(len(s.x_ND) for s in kept):
        raise BadData(f"no label of these streams falls into {', '.join(sorted(label_parts))}")
    return kept


def _with_labels_of(
    stream: RecordedStream, seed: int, parts: Collection[Part], fractions: Fractions
) -> RecordedStream:
    if stream.labels is None:
        return stream
    part_by_label = {n: part_of(f"label\n{n}", seed, fractions) for n in set(stream.labels)}
    keep = [i for i, n in enumerate(stream.labels) if part_by_label[n] in parts]
    return replace(
        stream,
        x_ND=stream.x_ND[keep],
        y_NE=stream.y_NE[keep],
        times_N=stream.times_N[keep],
        labels=tuple(stream.labels[i] for i in keep),
    )


class RecordedEpisodes:
    """Draws episodes from recorded streams; an EpisodeSource."""

    def __init__(self, streams: Sequence[RecordedStream], cut: Cut) -> None:
        """Streams too short for any episode are left out, and named in `left_out`.

        Raises BadData when dims differ, values are not finite, or no stream is long enough.
        """
        if not streams:
            raise BadData("no streams")
        ordered = [_checked(s, streams[0]) for s in streams]
        able = [can_be_cut(len(s.x_ND), _numbered(s), cut) for s in ordered]
        self.left_out = tuple(s.name for s, ok in zip(ordered, able, strict=True) if not ok)
        self._streams = [s for s, ok in zip(ordered, able, strict=True) if ok]
        self._labels = [_numbered(s) for s in self._streams]
        self._cut = cut
        if not self._streams:
            longest = max(len(s.x_ND) for s in ordered)
            raise BadData(
                f"none of {len(ordered)} streams is long enough: the longest has {longest} pairs, "
                f"an episode needs {cut.min_support} for the support and 1 for the query"
                " of another label, if there are labels"
            )

    @property
    def source_dim(self) -> int:
        """D."""
        return int(self._streams[0].x_ND.shape[1])

    @property
    def target_dim(self) -> int:
        """E."""
        return int(self._streams[0].y_NE.shape[1])

    @property
    def names(self) -> tuple[str, ...]:
        """The streams that episodes are drawn from."""
        return tuple(s.name for s in self._streams)

    @property
    def content_hash(self) -> str:
        """sha256 (hex) over all that decides what is drawn."""
        digest = hashlib.sha256(repr(self._cut).encode())
        for s in self._streams:
            digest.update(repr((s.name, s.x_ND.shape, s.y_NE.shape, s.labels)).encode())
            for array in (s.x_ND, s.y_NE, s.times_N):
                digest.update(np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()

    def draw(self, generator: torch.Generator, streams: int) -> EpisodeBatch:
        """Episodes of `streams` streams, each stream once unless there are fewer; see
        EpisodeSource."""
        rounds = -(-streams // len(self._streams))
        shuffled = [torch.randperm(len(self._streams), generator=generator) for _ in range(rounds)]
        order = torch.cat(shuffled).tolist()
        batch = _empty(streams, self._cut, (self.source_dim, self.target_dim))
        for row in range(streams):
            stream, label_N = self._streams[order[row]], self._labels[order[row]]
            rng = np.random.default_rng(int(torch.randint(2**62, (), generator=generator)))
            support, query = cut_episode(len(stream.x_ND), label_N, self._cut, rng)
            _fill(batch, row, stream, support, query)
        return batch


def _numbered(stream: RecordedStream) -> IndexArray | None:
    if stream.labels is None:
        return None
    return np.unique(np.asarray(stream.labels, np.str_), return_inverse=True)[1].astype(np.int64)


def _checked(stream: RecordedStream, first: RecordedStream) -> RecordedStream:
    """In order of time. Raises BadData."""
    n, name = len(stream.x_ND), repr(stream.name)
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
    order_N = np.argsort(stream.times_N, kind="stable")
    return replace(
        stream,
        x_ND=np.ascontiguousarray(stream.x_ND[order_N], np.float32),
        y_NE=np.ascontiguousarray(stream.y_NE[order_N], np.float32),
        times_N=stream.times_N[order_N],
        labels=None if stream.labels is None else tuple(stream.labels[i] for i in order_N),
    )


def _empty(streams: int, cut: Cut, dims: tuple[int, int]) -> EpisodeBatch:
    s, q, (d, e) = cut.max_support, cut.query, dims
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
    batch.x_support_TSD[row, : len(support)] = x_ND[support]
    batch.y_support_TSE[row, : len(support)] = y_NE[support]
    batch.real_support_TS[row, : len(support)] = True
    batch.x_query_TQD[row, : len(query)] = x_ND[query]
    batch.y_query_TQE[row, : len(query)] = y_NE[query]
    batch.real_query_TQ[row, : len(query)] = True
