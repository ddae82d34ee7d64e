"""Scores events prequentially, and averages the scores. Pure.

S = support pairs, Y = candidates (128), D = source dim, E = target dim

Prequential: an event is scored before anything learns from it, by the newest mapping of its stream
whose version is smaller than the event's offset. So the event is in neither the mapping's support
nor its query. The score is R@1: does the mapping put the event's picture nearer to its true target
than to 127 other targets of the stream (a tenant's vectors, a language's names)? Two baselines are
scored on the same event and candidates: θ without adaptation, and ridge regression fitted on the
mapping's own support pairs.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from daemon.wire.adapted_mapping import AdaptedMapping
from model.baselines.ridge import Ridge, fit_ridge
from model.mappings.numpy_mlp import apply_numpy
from model.retrieval import euclidean_scores, recall_at_1
from model.theta.meta_init import OutputActivation
from model.values.arrays import FloatArray

METHODS = ("adapted", "theta", "ridge")
CANDIDATES = 128

BUCKETS = (4, 8, 16, 32, 64)
"""Smallest support size of each bucket: 4 stands for 4 to 7 pairs, 64 for 64 and more."""
RECENT = 16
"""Events in a stream's running score."""

Recall = dict[str, float | None]
"""R@1 by method; None where no event was scored."""


# ---- one event


def candidate_concepts(concept: int, others: Iterable[int], seed: int) -> list[int]:
    """Returns the true concept and then 127 others, chosen at random by `seed` and the concept."""
    pool = [other for other in others if other != concept]
    rng = np.random.default_rng([seed, concept])
    return [concept, *(int(c) for c in rng.choice(pool, CANDIDATES - 1, replace=False))]


def nearest(o_1E: FloatArray, candidates_YE: FloatArray) -> int:
    """Returns the row of the candidate nearest to the prediction; of equals the last, because the
    true one, which is the first, has not been told apart from them."""
    score_Y = euclidean_scores(o_1E, candidates_YE)[0]
    score_Y = np.where(np.isfinite(score_Y), score_Y, -np.inf)
    return int(np.flatnonzero(score_Y == score_Y.max())[-1])


@dataclass(frozen=True, slots=True)
class Score:
    """How the three methods did on one event."""

    support_pairs: int
    """Of the mapping."""
    hits: dict[str, bool]
    """Which of METHODS put the true target first."""
    found: int
    """Row of the candidate that the adapted mapping puts first; the true target is row 0."""


class PrequentialScorer:
    """Scores one stream's events in order; keeps the pairs and mappings that this needs."""

    def __init__(self, theta: Mapping[str, FloatArray], *activations: OutputActivation) -> None:
        """`theta`: the tensors of θ's mapping; `activations`: its hidden activation and, if it has
        one, its output activation."""
        self._theta, self._activations = theta, activations
        self._pairs: list[tuple[int, FloatArray, FloatArray]] = []
        self._mappings: dict[tuple[int, int], AdaptedMapping] = {}
        self._ridges: dict[tuple[int, int], Ridge] = {}

    def add_mapping(self, mapping: AdaptedMapping) -> None:
        """Take a mapping, which may be newer than the events scored so far."""
        self._mappings[mapping.facts.epoch, mapping.facts.version] = mapping

    def score_event(
        self, offset: int, x_D: FloatArray, y_E: FloatArray, candidates_YE: FloatArray
    ) -> Score | None:
        """Score the stream's next event, then keep it as a pair for ridge regression.

        Row 0 of the candidates is the event's own target. Returns None when no mapping is older
        than the event. Raises ValueError as `support` does.
        """
        key = max((k for k in self._mappings if k[1] < offset), default=None)
        score = None if key is None else self._score(key, x_D, candidates_YE)
        self._pairs.append((offset, x_D, y_E))
        if key is not None:
            self._forget_before(key)
        return score

    def _score(self, key: tuple[int, int], x_D: FloatArray, candidates_YE: FloatArray) -> Score:
        mapping, x_1D = self._mappings[key], x_D[np.newaxis]
        predictions = {
            "adapted": apply_numpy(
                mapping.tensors, x_1D, mapping.facts.activation, mapping.facts.output_activation
            ),
            "theta": apply_numpy(self._theta, x_1D, *self._activations),
            "ridge": self._ridge(key)(x_1D),
        }
        first = np.zeros(1, np.int64)
        hits = {
            method: recall_at_1(o_1E, candidates_YE, first) == 1.0
            for method, o_1E in predictions.items()
        }
        found = nearest(predictions["adapted"], candidates_YE)
        return Score(mapping.facts.support_pairs, hits, found)

    def _ridge(self, key: tuple[int, int]) -> Ridge:
        if key not in self._ridges:
            self._ridges[key] = fit_ridge(*self.support(self._mappings[key]))
        return self._ridges[key]

    def support(self, mapping: AdaptedMapping) -> tuple[FloatArray, FloatArray]:
        """Returns the pairs (S, D) and (S, E) that the mapping learned from.

        Raises ValueError when some of its window's pairs were never scored here.
        """
        facts = mapping.facts
        size = facts.support_pairs
        support = [pair for pair in self._pairs if pair[0] <= facts.version][-size:]
        if len(support) < size:
            raise ValueError(f"{facts.stream} version {facts.version}: {len(support)}/{size} pairs")
        return np.stack([x_D for _, x_D, _ in support]), np.stack([y_E for _, _, y_E in support])

    def _forget_before(self, key: tuple[int, int]) -> None:
        """Events come in order of offset, so no later event needs an older mapping."""
        self._mappings = {k: m for k, m in self._mappings.items() if k >= key}
        self._ridges = {k: r for k, r in self._ridges.items() if k >= key}


# ---- all events of one scenario


class _Scored(NamedTuple):
    support_pairs: int
    hits: Mapping[str, bool]


class ScenarioScores:
    """The scores of one scenario's events. In each mean over streams every stream weighs the same,
    however many events it has."""

    def __init__(self) -> None:
        self._scored: dict[str, list[_Scored]] = defaultdict(list)

    def add(self, stream: str, support_pairs: int, hits: Mapping[str, bool]) -> None:
        """Add one event: the support size of the mapping, and which methods were right."""
        self._scored[stream].append(_Scored(support_pairs, hits))

    def recent(self, stream: str) -> Recall:
        """Returns the R@1 of the stream's newest events."""
        return _by_method(self._scored[stream][-RECENT:])

    def of_stream(self, stream: str) -> Recall:
        """Returns the R@1 of all the stream's events."""
        return _by_method(self._scored[stream])

    def recent_mean(self) -> Recall:
        """Returns the mean over streams of `recent`."""
        newest = [scored[-RECENT:] for scored in self._scored.values()]
        return {method: _mean(_recall(each, method) for each in newest) for method in METHODS}

    def mean(self) -> Recall:
        """Returns the mean over streams of `of_stream`."""
        return self.from_pairs(0)

    def from_pairs(self, least: int) -> Recall:
        """Returns the mean over streams of the R@1 of events with `least` or more pairs."""
        return {method: self._where(method, lambda pairs: pairs >= least) for method in METHODS}

    def by_pairs(self) -> dict[str, Recall]:
        """Returns the mean over streams of the R@1, by method and then by bucket."""
        return {
            method: {str(size): self._in_bucket(method, size) for size in BUCKETS}
            for method in METHODS
        }

    def disagreements(self, one: str, other: str, least: int) -> tuple[int, int]:
        """Returns, for events with at least `least` support pairs, how many only the method `one`
        got right, and how many only the method `other`."""
        hits = [scored.hits for scored in self._at_least(least)]
        only_one = sum(each[one] and not each[other] for each in hits)
        only_other = sum(each[other] and not each[one] for each in hits)
        return only_one, only_other

    def count(self, least: int) -> int:
        """Returns the number of events with at least `least` support pairs."""
        return len(self._at_least(least))

    def _at_least(self, least: int) -> list[_Scored]:
        return [s for each in self._scored.values() for s in each if s.support_pairs >= least]

    def _in_bucket(self, method: str, size: int) -> float | None:
        return self._where(method, lambda pairs: bucket(pairs) == size)

    def _where(self, method: str, wanted: Callable[[int], bool]) -> float | None:
        return _mean(
            _recall([scored for scored in each if wanted(scored.support_pairs)], method)
            for each in self._scored.values()
        )


def bucket(support_pairs: int) -> int | None:
    """Returns the largest of BUCKETS that is not larger than `support_pairs`, None below all."""
    return max((size for size in BUCKETS if size <= support_pairs), default=None)


def _by_method(scored: list[_Scored]) -> Recall:
    return {method: _recall(scored, method) for method in METHODS}


def _recall(scored: list[_Scored], method: str) -> float | None:
    return sum(each.hits[method] for each in scored) / len(scored) if scored else None


def _mean(recalls: Iterable[float | None]) -> float | None:
    known = [recall for recall in recalls if recall is not None]
    return sum(known) / len(known) if known else None
