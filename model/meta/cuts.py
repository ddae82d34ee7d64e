"""Cuts a recorded stream into an episode: which pairs are the support's, which the query's. Pure.

N = pairs of a stream, in order of time

Support sizes are log-uniform, so that short windows are as frequent as long ones. Support and
query share no pair and, where pairs have labels, no label: what is judged is what a mapping does
on things it has not seen. A temporal cut is the daemon's: the query is newer than the support.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

IndexArray = NDArray[np.int64]
QUERY_SHARE = 5
"""A stream too short for all it is asked for keeps a fifth of its pairs for the query."""


@dataclass(frozen=True, slots=True)
class Cut:
    """How many pairs an episode has, and which."""

    min_support: int = 3
    max_support: int = 64
    query: int = 64
    """The most query pairs; shorter streams give fewer."""
    temporal: bool = False

    def __post_init__(self) -> None:
        """Raise ValueError unless the sizes fit together."""
        if not 1 <= self.min_support <= self.max_support or self.query < 1:
            raise ValueError(f"support and query sizes do not fit together: {self}")


def can_be_cut(pairs: int, label_N: IndexArray | None, cut: Cut) -> bool:
    """Whether `cut_episode` can cut such a stream. Labels are numbers; None where it has none."""
    if label_N is None or pairs <= cut.min_support:
        return pairs > cut.min_support
    if cut.temporal:
        ends = range(pairs, cut.min_support, -1)
        return any(len(_before(end, label_N, cut)[0]) >= cut.min_support for end in ends)
    counts = np.unique(label_N, return_counts=True)[1]
    return len(counts) > 1 and pairs - int(counts.min()) >= cut.min_support


def cut_episode(
    pairs: int, label_N: IndexArray | None, cut: Cut, rng: np.random.Generator
) -> tuple[IndexArray, IndexArray]:
    """The support's pairs and the query's; `can_be_cut` holds."""
    if cut.temporal:
        return _by_time(pairs, label_N, cut, rng)
    most = pairs - min(cut.query, max(1, pairs // QUERY_SHARE))
    wanted = _log_uniform(cut.min_support, min(cut.max_support, most), rng)
    if label_N is None:
        order_N = rng.permutation(pairs)
        return order_N[:wanted], order_N[wanted : wanted + cut.query]
    return _by_label(label_N, wanted, cut, rng)


def _by_label(
    label_N: IndexArray, wanted: int, cut: Cut, rng: np.random.Generator
) -> tuple[IndexArray, IndexArray]:
    """Labels go to the query, in random order, as long as the support keeps what it wants; if
    every label is too frequent for that, the rarest goes."""
    _, of_N, counts = np.unique(label_N, return_inverse=True, return_counts=True)
    left, queried, chosen = len(label_N), 0, np.zeros(len(counts), np.bool_)
    for label in rng.permutation(len(counts)):
        if queried >= cut.query:
            break
        if left - counts[label] >= wanted:
            chosen[label] = True
            left, queried = left - counts[label], queried + counts[label]
    if not chosen.any():
        chosen[counts.argmin()] = True
    in_query_N = chosen[of_N]
    support = rng.permutation(np.flatnonzero(~in_query_N))[:wanted]
    return support, rng.permutation(np.flatnonzero(in_query_N))[: cut.query]


def _by_time(
    pairs: int, label_N: IndexArray | None, cut: Cut, rng: np.random.Generator
) -> tuple[IndexArray, IndexArray]:
    """The query ends at a random moment; the support is the newest before it, of other labels."""
    for end in rng.permutation(np.arange(cut.min_support + 1, pairs + 1)):
        older, query = _before(int(end), label_N, cut)
        if len(older) >= cut.min_support:
            most = min(cut.max_support, len(older))
            return older[-_log_uniform(cut.min_support, most, rng) :], query
    raise ValueError("this stream cannot be cut by time")


def _before(end: int, label_N: IndexArray | None, cut: Cut) -> tuple[IndexArray, IndexArray]:
    """All pairs that may support, and the query, of an episode that ends there."""
    queried = min(cut.query, max(1, end // QUERY_SHARE), end - cut.min_support)
    older, query = np.arange(end - queried), np.arange(end - queried, end)
    if label_N is not None:
        older = older[~np.isin(label_N[: end - queried], label_N[query])]
    return older, query


def _log_uniform(low: int, high: int, rng: np.random.Generator) -> int:
    """An integer in low..max(low, high); every doubling is as likely as the next."""
    high = max(low, high)
    return min(high, int(low * ((high + 1.0) / low) ** rng.random()))
