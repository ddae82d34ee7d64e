"""Episodes: how large they are, how a stream is cut into one, and batches of them.

B = streams in batch, N = pairs of a stream (in order of time), S = support pairs (padded),
Q = query pairs (padded), D = source dim, E = target dim

An episode is a stream's pairs cut in two: a support to adapt on and a query to judge on. Support
sizes are log-uniform, so that short windows are as frequent as long ones. Support and query share
no pair and, where pairs have labels, no label: what is judged is what a mapping does on things
that it has not seen. A temporal episode is the daemon's: its query is newer than its support.
"""

from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from model.inner.learner import Support

IndexArray = NDArray[np.int64]
QUERY_SHARE = 5
"""A stream too short for all that an episode asks for keeps a fifth of its pairs for the query."""


@dataclass(frozen=True, slots=True)
class EpisodeSizes:
    """How many pairs the support and the query of an episode have, and in which order of time."""

    min_support: int = 3
    max_support: int = 64
    query: int = 64
    """The most query pairs; shorter streams give fewer."""
    temporal: bool = False
    """Whether every query pair is newer than every support pair."""

    def __post_init__(self) -> None:
        """Raise ValueError unless the sizes fit together."""
        if not 1 <= self.min_support <= self.max_support or self.query < 1:
            raise ValueError(f"support and query sizes do not fit together: {self}")


class EpisodeBatch(NamedTuple):
    """Episodes of B streams, as features. `real_*` is true on real pairs; padded pairs hold finite
    numbers and count for nothing."""

    x_support_BSD: Tensor
    y_support_BSE: Tensor
    real_support_BS: Tensor
    x_query_BQD: Tensor
    y_query_BQE: Tensor
    real_query_BQ: Tensor

    @property
    def support(self) -> Support:
        """The pairs to adapt on, as the inner loop takes them."""
        return Support(self.x_support_BSD, self.y_support_BSE, self.real_support_BS)


class EpisodeSource(Protocol):
    """Draws episodes; the same generator state gives the same batch."""

    @property
    def source_dim(self) -> int:
        """Number of source features, D."""

    @property
    def target_dim(self) -> int:
        """Number of target features, E."""

    def draw(self, generator: torch.Generator, streams: int) -> EpisodeBatch:
        """Draw one episode of each of `streams` streams. Support and query share no pair, and no
        concept where pairs are labelled."""


def can_be_cut(pairs: int, label_N: IndexArray | None, sizes: EpisodeSizes) -> bool:
    """Return whether `cut_episode` can cut a stream of so many pairs. `label_N` numbers each pair's
    label; None where pairs have no labels."""
    if label_N is None or pairs <= sizes.min_support:
        return pairs > sizes.min_support
    if sizes.temporal:
        ends = range(pairs, sizes.min_support, -1)
        return any(len(_before(end, label_N, sizes)[0]) >= sizes.min_support for end in ends)
    counts = np.unique(label_N, return_counts=True)[1]
    return len(counts) > 1 and pairs - int(counts.min()) >= sizes.min_support


def cut_episode(
    pairs: int, label_N: IndexArray | None, sizes: EpisodeSizes, rng: np.random.Generator
) -> tuple[IndexArray, IndexArray]:
    """Cut a random episode. Return the indices of the support's pairs and of the query's.

    Call it only where `can_be_cut` is true.
    """
    if sizes.temporal:
        return _by_time(pairs, label_N, sizes, rng)
    most = pairs - min(sizes.query, max(1, pairs // QUERY_SHARE))
    wanted = _log_uniform(sizes.min_support, min(sizes.max_support, most), rng)
    if label_N is None:
        order_N = rng.permutation(pairs)
        return order_N[:wanted], order_N[wanted : wanted + sizes.query]
    return _by_label(label_N, wanted, sizes, rng)


def _by_label(
    label_N: IndexArray, wanted: int, sizes: EpisodeSizes, rng: np.random.Generator
) -> tuple[IndexArray, IndexArray]:
    """Move whole labels to the query, in random order, as long as `wanted` pairs are left for the
    support; if every label is too frequent for that, move the rarest."""
    _, of_N, counts = np.unique(label_N, return_inverse=True, return_counts=True)
    left, queried, chosen = len(label_N), 0, np.zeros(len(counts), np.bool_)
    for label in rng.permutation(len(counts)):
        if queried >= sizes.query:
            break
        if left - counts[label] >= wanted:
            chosen[label] = True
            left, queried = left - counts[label], queried + counts[label]
    if not chosen.any():
        chosen[counts.argmin()] = True
    in_query_N = chosen[of_N]
    support = rng.permutation(np.flatnonzero(~in_query_N))[:wanted]
    return support, rng.permutation(np.flatnonzero(in_query_N))[: sizes.query]


def _by_time(
    pairs: int, label_N: IndexArray | None, sizes: EpisodeSizes, rng: np.random.Generator
) -> tuple[IndexArray, IndexArray]:
    """End the query at a random moment; the support is the newest pairs before it that have other
    labels."""
    for end in rng.permutation(np.arange(sizes.min_support + 1, pairs + 1)):
        older, query = _before(int(end), label_N, sizes)
        if len(older) >= sizes.min_support:
            most = min(sizes.max_support, len(older))
            return older[-_log_uniform(sizes.min_support, most, rng) :], query
    raise ValueError("this stream cannot be cut by time")


def _before(
    end: int, label_N: IndexArray | None, sizes: EpisodeSizes
) -> tuple[IndexArray, IndexArray]:
    """Return every pair that the support may hold, and the query, of an episode that ends at
    `end`."""
    queried = min(sizes.query, max(1, end // QUERY_SHARE), end - sizes.min_support)
    older, query = np.arange(end - queried), np.arange(end - queried, end)
    if label_N is not None:
        older = older[~np.isin(label_N[: end - queried], label_N[query])]
    return older, query


def _log_uniform(low: int, high: int, rng: np.random.Generator) -> int:
    """Draw an integer in low..max(low, high); every doubling is as likely as the next."""
    high = max(low, high)
    return min(high, int(low * ((high + 1.0) / low) ** rng.random()))
