"""Episodes of a meta-test: what a method may learn from, and what it is judged on.

N = pairs of a stream, S = support pairs, Q = query pairs, D = source dim, E = target dim
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from model.meta.recorded_streams import RecordedStream
from model.values.arrays import FloatArray
from model.values.episode import Episode

GATE_PAIRS = 4
"""Further pairs that the gate alone sees, as in the daemon, where they are the window's newest."""
CANDIDATES = 128
"""Query pairs at most; each query is to find its own target among the targets of all."""


@dataclass(frozen=True, slots=True)
class MetaTestEpisode:
    """One stream at one number of support pairs; support, gate and query share no pair, and no
    label where there are labels."""

    stream: str
    x_SD: FloatArray
    y_SE: FloatArray
    x_gate_ND: FloatArray
    y_gate_NE: FloatArray
    x_QD: FloatArray
    y_QE: FloatArray
    labels_Q: tuple[str, ...] | None = None

    @property
    def for_engine(self) -> Episode:
        """The episode as an engine sees it: support and gate pairs. The query stays unseen."""
        return Episode(self.x_SD, self.y_SE, self.x_gate_ND, self.y_gate_NE)


def cut_test_episode(
    stream: RecordedStream, pairs: int, rng: np.random.Generator, candidates: int = CANDIDATES
) -> MetaTestEpisode | None:
    """Draw a random episode with so many support pairs; None where the stream is too short.

    Labels are dealt out whole: all pairs of a label go to the same part. At least two queries are
    left, or there is nothing to find among.
    """
    n, labels = len(stream.x_ND), stream.labels
    groups = [[i] for i in range(n)] if labels is None else _by_label(labels)
    order = [i for g in rng.permutation(len(groups)) for i in groups[g]]
    support, rest = order[:pairs], _without(order[pairs:], order[:pairs], labels)
    gate, rest = rest[:GATE_PAIRS], _without(rest[GATE_PAIRS:], rest[:GATE_PAIRS], labels)
    query = rest[:candidates]
    if len(support) < pairs or len(gate) < GATE_PAIRS or len(query) < 2:
        return None
    return MetaTestEpisode(
        stream.name,
        stream.x_ND[support],
        stream.y_NE[support],
        stream.x_ND[gate],
        stream.y_NE[gate],
        stream.x_ND[query],
        stream.y_NE[query],
        None if labels is None else tuple(labels[i] for i in query),
    )


def _by_label(labels: Sequence[str]) -> list[list[int]]:
    groups: dict[str, list[int]] = {}
    for i, label in enumerate(labels):
        groups.setdefault(label, []).append(i)
    return list(groups.values())


def _without(rest: list[int], taken: list[int], labels: Sequence[str] | None) -> list[int]:
    """Return `rest` without pairs of a label in `taken`: a label's pairs may straddle the cut."""
    if labels is None:
        return rest
    known = {labels[i] for i in taken}
    return [i for i in rest if labels[i] not in known]
