"""Scores a method on episodes: a loss and retrieval measures, with intervals over streams.

Q = query pairs, E = target dim

Each query is to find its own target among the targets of all queries of its episode, the nearest
first. R@1, R@5 and MRR know the own target only; mAP counts every target of the same label as
relevant, and NDCG grades them: 2 for the own, 1 for another of its label. A stream's value is the
mean over its episodes, intervals are over streams.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from model.evaluate.episodes import MetaTestEpisode
from model.evaluate.intervals import Interval, t_interval
from model.evaluate.methods import Method
from model.retrieval import Floats, relevance_of_pairs, scores_of
from model.values.arrays import FloatArray

MEASURES = ("loss", "r_at_1", "r_at_5", "mrr", "map", "ndcg")
"""`loss` is the squared error of one target number, averaged over numbers and queries."""
Scores = Mapping[str, float]
"""One episode's measures by name."""


@dataclass(frozen=True, slots=True)
class Figures:
    """Every measure of one method at one number of support pairs."""

    method: str
    pairs: int
    episodes: int
    measures: Mapping[str, Interval]


def method_figures(
    name: str, method: Method, pairs: int, episodes: Sequence[MetaTestEpisode]
) -> Figures:
    """Score the method on the episodes and return its figures; all NaN without episodes."""
    return summarised(name, pairs, episodes, scored(method, episodes))


def scored(method: Method, episodes: Sequence[MetaTestEpisode]) -> list[Scores]:
    """Return the method's measures of every episode, in order."""
    return [episode_scores(e, o_QE) for e, o_QE in zip(episodes, method(episodes), strict=True)]


def recalls_at_1(method: Method, episodes: Sequence[MetaTestEpisode]) -> list[float]:
    """Return the method's R@1 alone on every episode, in order: `scored` in a fraction of its
    time."""
    return [
        float(scores_of(nearness(o_QE, e.y_QE), np.eye(len(e.y_QE))).r_at_1)
        for e, o_QE in zip(episodes, method(episodes), strict=True)
    ]


def summarised(
    name: str, pairs: int, episodes: Sequence[MetaTestEpisode], found: Sequence[Scores]
) -> Figures:
    """Return means and intervals over streams of measures that `scored` returned."""
    names = [episode.stream for episode in episodes]
    measures = {m: over_streams(names, [scores[m] for scores in found]) for m in MEASURES}
    return Figures(name, pairs, len(episodes), measures)


def difference(
    episodes: Sequence[MetaTestEpisode],
    ours: Sequence[Scores],
    theirs: Sequence[Scores],
    measure: str,
) -> Interval:
    """Return a measure of ours minus theirs, paired by episode, so that what both find hard or easy
    cancels out."""
    names = [episode.stream for episode in episodes]
    return over_streams(names, [a[measure] - b[measure] for a, b in zip(ours, theirs, strict=True)])


def over_streams(names: Sequence[str], values: Sequence[float]) -> Interval:
    """Return the interval over streams of one value per episode; `names` has each episode's
    stream."""
    by_stream: dict[str, list[float]] = defaultdict(list)
    for name, value in zip(names, values, strict=True):
        by_stream[name].append(value)
    return t_interval([float(np.mean(values)) for values in by_stream.values()])


def episode_scores(episode: MetaTestEpisode, o_QE: FloatArray) -> dict[str, float]:
    """Return every measure of one episode. Outputs that are not finite rank last; their loss is
    NaN."""
    y_QE, count = episode.y_QE, len(episode.y_QE)
    score_QQ = nearness(o_QE, y_QE)
    own = scores_of(score_QQ, np.eye(count))
    alike, labels = own, episode.labels_Q
    if labels is not None and len(set(labels)) < count:  # else nothing else is relevant
        alike = scores_of(score_QQ, relevance_of_pairs(list(labels)))
    with np.errstate(over="ignore", invalid="ignore"):
        loss = float(np.square(o_QE - y_QE).mean())
    return {
        "loss": loss if np.isfinite(loss) else float("nan"),
        "r_at_1": float(own.r_at_1),
        "r_at_5": float(own.r_at_5),
        "mrr": float(own.mrr),
        "map": float(alike.mean_ap),
        "ndcg": float(alike.ndcg),
    }


def nearness(o_QE: FloatArray, y_QE: FloatArray) -> Floats:
    """Return what `model.retrieval.euclidean_scores` returns, (Q, Q), computed by torch in a fifth
    of the time. Equal targets score equally to the bit, as there."""
    o, y = (torch.tensor(t, dtype=torch.float64) for t in (o_QE, y_QE))
    # by a matrix product, the other mode, squares would cancel and ties depend on rounding
    distance_QQ = torch.cdist(o, y, compute_mode="donot_use_mm_for_euclid_dist")
    score_QQ: Floats = (-distance_QQ.square()).numpy()
    return score_QQ
