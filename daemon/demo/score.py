"""Prequential scores: each event is judged by the newest mapping that cannot have seen it. Pure.

S = support pairs, C = candidates (128), D = source dim, E = target dim

An event at some offset is judged before it counts: by the stream's newest mapping of an earlier
version, so that the event is in neither its support nor its query. R@1 says whether the mapping
puts the event's picture nearest to its true target among 128 of the stream's: a tenant's vectors, a
language's names. The unadapted θ and ridge regression, fitted on exactly that mapping's support
pairs, are judged on the same event among the same candidates.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from daemon.wire.adapted_mapping import AdaptedMapping
from model.baselines.ridge import Ridge, fit_ridge
from model.mappings.numpy_mlp import apply_numpy
from model.retrieval import euclidean_scores, recall_at_1
from model.theta.meta_init import OutputActivation
from model.values.arrays import FloatArray

METHODS = ("adapted", "theta", "ridge")
CANDIDATES = 128


def candidate_concepts(concept: int, others: Iterable[int], seed: int) -> list[int]:
    """The true concept first, then 127 others, the same for the same arguments."""
    pool = [other for other in others if other != concept]
    rng = np.random.default_rng([seed, concept])
    return [concept, *(int(c) for c in rng.choice(pool, CANDIDATES - 1, replace=False))]


def nearest(o_1E: FloatArray, candidates_CE: FloatArray) -> int:
    """The candidate nearest to a prediction; among equals the first."""
    score_1C = euclidean_scores(o_1E, candidates_CE)
    return int(np.where(np.isfinite(score_1C), score_1C, -np.inf).argmax())


@dataclass(frozen=True, slots=True)
class Score:
    """One event, judged by each of METHODS: did it find the true target?"""

    support_pairs: int
    hits: dict[str, bool]
    found: int
    """The candidate that the adapted mapping comes nearest to; the first is the true one."""


class Follower:
    """One stream as its subscriber knows it: the pairs and the mappings so far."""

    def __init__(self, theta: Mapping[str, FloatArray], *activations: OutputActivation) -> None:
        """θ's mapping with its σ and, if it has one, its σo."""
        self._theta, self._activations = theta, activations
        self._pairs: list[tuple[int, FloatArray, FloatArray]] = []
        self._mappings: dict[tuple[int, int], AdaptedMapping] = {}
        self._ridges: dict[tuple[int, int], Ridge] = {}

    def take_mapping(self, mapping: AdaptedMapping) -> None:
        """It may be newer than the events read so far."""
        self._mappings[mapping.facts.epoch, mapping.facts.version] = mapping

    def judge(
        self, offset: int, x_D: FloatArray, y_E: FloatArray, candidates_CE: FloatArray
    ) -> Score | None:
        """Score the next event, the first candidate being its own target, and only then keep it
        as a pair. None while no mapping is older than it."""
        place = max((p for p in self._mappings if p[1] < offset), default=None)
        score = None if place is None else self._judge(place, x_D, candidates_CE)
        self._pairs.append((offset, x_D, y_E))
        if place is not None:
            self._forget_before(place)
        return score

    def _judge(self, place: tuple[int, int], x_D: FloatArray, candidates_CE: FloatArray) -> Score:
        mapping, x_1D = self._mappings[place], x_D[np.newaxis]
        predictions = {
            "adapted": apply_numpy(
                mapping.tensors, x_1D, mapping.facts.activation, mapping.facts.output_activation
            ),
            "theta": apply_numpy(self._theta, x_1D, *self._activations),
            "ridge": self._ridge(place)(x_1D),
        }
        first = np.zeros(1, np.int64)
        hits = {
            method: recall_at_1(o_1E, candidates_CE, first) == 1.0
            for method, o_1E in predictions.items()
        }
        found = nearest(predictions["adapted"], candidates_CE)
        return Score(mapping.facts.support_pairs, hits, found)

    def _ridge(self, place: tuple[int, int]) -> Ridge:
        if place not in self._ridges:
            self._ridges[place] = fit_ridge(*self.support(self._mappings[place]))
        return self._ridges[place]

    def support(self, mapping: AdaptedMapping) -> tuple[FloatArray, FloatArray]:
        """The pairs (S, D) and (S, E) that the mapping was adapted on.

        Raises ValueError when not all of them were read: then something is out of order.
        """
        facts = mapping.facts
        size = facts.support_pairs + facts.query_pairs
        window = [pair for pair in self._pairs if pair[0] <= facts.version][-size:]
        if len(window) < size:
            raise ValueError(f"{facts.stream} version {facts.version}: {len(window)}/{size} pairs")
        support = window[: facts.support_pairs]
        return np.stack([x_D for _, x_D, _ in support]), np.stack([y_E for _, _, y_E in support])

    def _forget_before(self, place: tuple[int, int]) -> None:
        """Events come in order of offset, so no later one needs an older mapping."""
        self._mappings = {p: m for p, m in self._mappings.items() if p >= place}
        self._ridges = {p: r for p, r in self._ridges.items() if p >= place}
