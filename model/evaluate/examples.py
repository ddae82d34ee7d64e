"""A few queries to look at: the source, its own target, and the targets each method found first.

Q = query pairs, D = source dim, E = target dim
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from model.evaluate.episodes import MetaTestEpisode
from model.evaluate.methods import Method
from model.retrieval import euclidean_scores
from model.values.arrays import FloatArray

EXAMPLES, NEAREST = 12, 3


@dataclass(frozen=True, slots=True)
class Picture:
    """An image file."""

    data: bytes


Shown = Picture | str


@dataclass(frozen=True, slots=True)
class Example:
    """One query: its source, its own target, and the targets that each method found nearest."""

    stream: str
    source: Shown
    target: Shown
    found: Mapping[str, Sequence[tuple[Shown, bool]]]
    """For each method, the nearest targets in order, and whether each is the query's own."""


Look = Callable[[MetaTestEpisode, int], tuple[Shown, Shown] | None]
"""Shows source and target of an episode's n-th query; None where they are not known."""


def examples_of(
    episodes: Sequence[MetaTestEpisode], compared: Mapping[str, Method], look: Look
) -> list[Example]:
    """Return queries of up to EXAMPLES different streams, with the targets that each method finds
    nearest. Queries that `look` cannot show are left out."""
    by_stream = {episode.stream: episode for episode in reversed(episodes)}
    chosen = list(by_stream.values())[:EXAMPLES]
    outputs = {name: method(chosen) for name, method in compared.items()}
    examples = []
    for i, episode in enumerate(chosen):
        found = {name: outputs[name][i] for name in compared}
        example = _example(episode, i % len(episode.x_QD), found, look)
        examples += [] if example is None else [example]
    return examples


def _example(
    episode: MetaTestEpisode, q: int, outputs: Mapping[str, FloatArray], look: Look
) -> Example | None:
    own = look(episode, q)
    if own is None:
        return None
    return Example(
        episode.stream,
        own[0],
        own[1],
        {name: _nearest(episode, q, o_QE, look) for name, o_QE in outputs.items()},
    )


def _nearest(
    episode: MetaTestEpisode, q: int, o_QE: FloatArray, look: Look
) -> list[tuple[Shown, bool]]:
    scores_Q = euclidean_scores(o_QE[q : q + 1], episode.y_QE)[0]
    order = np.argsort(-np.nan_to_num(scores_Q, nan=-np.inf), kind="stable")[:NEAREST]
    looks = [(n, look(episode, n)) for n in order.tolist()]
    return [("?" if seen is None else seen[1], n == q) for n, seen in looks]
