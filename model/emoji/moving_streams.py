"""Streams whose map changes while they are read: windows slide over the change, as in the daemon.

N = pairs of a stream, S = support pairs, Q = query pairs, D = source dim, E = target dim

Pairs are counted from the change: pair 0 is the first after it. At the start a window is full of
older pairs. Before each judged pair the window holds the newest pairs, and the queries, other
concepts, have the targets that the map gives them at that moment.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from model.emoji.tenants import expm_antisymmetric
from model.evaluate.episodes import GATE_PAIRS, MetaTestEpisode
from model.meta.recorded_streams import RecordedStream
from model.values.arrays import FloatArray

SUPPORT_PAIRS = 32
"""The daemon's default window: 32 support pairs, and the newest 4 to judge on."""
PAIRS_AFTER = 72
"""Twice a window: as long as a change is looked at."""
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
) -> Iterator[MetaTestEpisode]:
    """Yield the window as it is after each `every`-th of the 72 pairs, with queries.

    Each pair of a stream is one concept; the pairs of a window and the queries share none.
    """
    size = SUPPORT_PAIRS + GATE_PAIRS
    rows = rng.permutation(len(stream))
    read, query = rows[: size + PAIRS_AFTER], rows[size + PAIRS_AFTER :][:queries]
    arrived_NE = np.stack([targets_at(n - size)[row] for n, row in enumerate(read)])
    for end in range(size + every, len(read) + 1, every):
        window = slice(end - size, end)
        x_ND, y_NE = stream.x_ND[read[window]], arrived_NE[window]
        yield episode_of_window(
            stream.name, x_ND, y_NE, stream.x_ND[query], targets_at(end - size - 1)[query]
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
