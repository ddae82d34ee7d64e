"""Streams whose map changes while they are read: windows slide over the change, as in the daemon.

N = pairs of a stream, S = support pairs, Q = query pairs, D = source dim, E = target dim

Pairs are counted from the change: pair 0 is the first after it. At the start a window is full of
older pairs. Before each judged pair the window holds the newest pairs, and the queries, other
concepts, have the targets that the map gives them at that moment.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from model.emoji.tenants import expm_antisymmetric
from model.evaluate.episodes import GATE_PAIRS, MetaTestEpisode
from model.meta.episodes import IndexArray
from model.meta.recorded_streams import RecordedStream
from model.values.arrays import FloatArray

SUPPORT_PAIRS = 32
"""The daemon's default window: 32 support pairs, and the newest 4 to judge on."""
PAIRS_AFTER = 72
"""Twice a window: as long as a change is looked at."""
PAIRS_BEFORE = 128
"""So that losses from before the change are known when it comes."""
RADIANS_PER_PAIR = 0.01

TargetsAt = Callable[[int], FloatArray]
"""The targets of all concepts (N, E), by the map that holds when the given pair arrives."""
Change = Callable[[FloatArray, FloatArray, np.random.Generator], TargetsAt]
"""Makes it of a stream's targets and those of another stream, both of all concepts (N, E)."""


@dataclass(frozen=True, slots=True)
class MovingData:
    """A named way in which streams change."""

    name: str
    change: Change


def jump(y_NE: FloatArray, other_NE: FloatArray, rng: np.random.Generator) -> TargetsAt:
    """Return targets that are another stream's from pair 0 on."""
    return lambda pair: y_NE if pair < 0 else other_NE


def drift(y_NE: FloatArray, other_NE: FloatArray, rng: np.random.Generator) -> TargetsAt:
    """Return targets that turn by 1 radian per 100 pairs: in the fastest of the planes of a random
    rotation, in its other planes more slowly."""
    normal_EE = rng.standard_normal((y_NE.shape[1], y_NE.shape[1]))
    plane_EE = normal_EE - normal_EE.T
    plane_EE /= np.linalg.norm(plane_EE, ord=2)

    def targets_at(pair: int) -> FloatArray:
        turn_EE = expm_antisymmetric(RADIANS_PER_PAIR * pair * plane_EE)
        return np.asarray(y_NE @ turn_EE, np.float32)

    return targets_at


class SlidingEpisodes(NamedTuple):
    """The windows of one stream that changes."""

    before: list[MetaTestEpisode]
    after: list[MetaTestEpisode]


MOVING: tuple[MovingData, ...] = (
    MovingData("jump, the next 72 pairs", jump),
    MovingData("drift, 1 radian per 100", drift),
)


def sliding_episodes(
    stream: RecordedStream,
    targets_at: TargetsAt,
    rng: np.random.Generator,
    every: int = 2,
    queries: int = 128,
) -> SlidingEpisodes:
    """Return the window as it is after each `every`-th of the 72 pairs, with queries, and as it was
    before, after each `every`-th of up to PAIRS_BEFORE pairs, where the stream is long enough.

    Each pair of a stream is one concept; the pairs of a window and the queries share none.
    """
    size = SUPPORT_PAIRS + GATE_PAIRS
    spare = len(stream) - size - PAIRS_AFTER - queries
    earlier = max(0, min(PAIRS_BEFORE, spare) // every * every)
    # the order that there would be without earlier pairs: those are concepts of their own
    rows = rng.permutation(len(stream))
    rows = np.concatenate([rows[len(rows) - earlier :], rows[: len(rows) - earlier]])
    change = earlier + size
    read, query = rows[: change + PAIRS_AFTER], rows[change + PAIRS_AFTER :][:queries]
    arrived_NE = np.stack([targets_at(n - change)[row] for n, row in enumerate(read)])
    windows = list(_windows(stream, targets_at, (read, query), arrived_NE, every))
    return SlidingEpisodes(windows[: earlier // every + 1], windows[earlier // every + 1 :])


def static_windows(
    streams: Sequence[RecordedStream], rng: np.random.Generator
) -> Iterator[list[MetaTestEpisode]]:
    """Yield the windows of all streams, whose map does not change, after each pair from when they
    are full, without queries. Each stream is read once, in an order of its own."""
    size = SUPPORT_PAIRS + GATE_PAIRS
    orders = [rng.permutation(len(stream)) for stream in streams]
    for end in range(size, min(map(len, orders)) + 1):
        rows = [order[end - size : end] for order in orders]
        yield [
            episode_of_window(s.name, s.x_ND[r], s.y_NE[r], s.x_ND[:0], s.y_NE[:0])
            for s, r in zip(streams, rows, strict=True)
        ]


def _windows(
    stream: RecordedStream,
    targets_at: TargetsAt,
    rows: tuple[IndexArray, IndexArray],
    arrived_NE: FloatArray,
    every: int,
) -> Iterator[MetaTestEpisode]:
    """The window after each `every`-th pair, from when it is full; `rows` are read and queried."""
    size = SUPPORT_PAIRS + GATE_PAIRS
    read, query = rows
    change = len(read) - PAIRS_AFTER
    for end in range(size, len(read) + 1, every):
        window = slice(end - size, end)
        x_ND, y_NE = stream.x_ND[read[window]], arrived_NE[window]
        yield episode_of_window(
            stream.name, x_ND, y_NE, stream.x_ND[query], targets_at(end - change - 1)[query]
        )


def episode_of_window(
    stream: str, x_ND: FloatArray, y_NE: FloatArray, x_QD: FloatArray, y_QE: FloatArray
) -> MetaTestEpisode:
    """Cut a window as the daemon does: the newest pairs judge, the older ones are the support."""
    support, judged = slice(None, -GATE_PAIRS), slice(-GATE_PAIRS, None)
    return MetaTestEpisode(
        stream, x_ND[support], y_NE[support], x_ND[judged], y_NE[judged], x_QD, y_QE
    )


def changed_streams(
    streams: Sequence[RecordedStream], moving: MovingData, rng: np.random.Generator
) -> Iterator[tuple[RecordedStream, TargetsAt]]:
    """Yield each stream with its changing targets; a jump is to the next stream's map."""
    others = (*streams[1:], streams[0])
    for stream, other in zip(streams, others, strict=True):
        yield stream, moving.change(stream.y_NE, other.y_NE, rng)
