"""How good is what subscribers hold, on each new pair, before anything learns from it. Pure.

D = source dim, E = target dim, R = rows (recent targets)

A sample of the streams is followed: those whose keys have the smallest hashes, so that it does not
depend on which streams are busy or came first. Of each, the mapping that was published last is
kept, and ridge regression on the same window. A new pair's source is mapped by both and by θ
unadapted, and each output looks for the pair's own target among the stream's recent ones. This does
not rest on how often streams are adapted. What it costs is bounded: a publication whose turn has
not come is passed over, and its stream is not scored until the next one that is kept.
"""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from daemon.turn.cadence import Allowance
from daemon.turn.ports import AdaptationEngine
from daemon.turn.report import PairScore, ScoredMapping, Verdict
from daemon.turn.streams import Slid, StreamId
from daemon.turn.window import Pair
from model.mappings.numpy_mlp import apply_numpy
from model.theta.meta_init import OutputActivation
from model.values.arrays import FloatArray
from model.values.gate import Outcome

PAIRS_PER_S = 10.0
HOLDS_PER_S = 2.0
"""Scoring a pair takes some 0.3 ms at 512 dimensions, keeping a mapping 2 ms: together less than
a percent of a core."""
SAVED_S = 5.0
RECENT = 32
"""Targets, the pair's own included, among which it is searched for."""
LEAST_RECENT = 8
"""Among fewer it would often be found by chance, and is not searched for."""

Doubles = NDArray[np.float64]


class HeldMapping(NamedTuple):
    """A mapping that new pairs are scored by."""

    tensors: Mapping[str, FloatArray]
    activation: OutputActivation
    output_activation: OutputActivation

    def __call__(self, x_D: FloatArray) -> Doubles:
        """Returns its output (E)."""
        o_1E = apply_numpy(self.tensors, x_D[None], self.activation, self.output_activation)
        return np.asarray(o_1E[0], np.float64)


@dataclass(slots=True)
class Followed:
    """What is kept of a stream."""

    rank: int
    mappings: Mapping[ScoredMapping, HeldMapping]
    recent: deque[FloatArray] = field(default_factory=lambda: deque(maxlen=RECENT - 1))


class Prequential:
    """Scores of new pairs by what was published of a sample of the streams."""

    def __init__(self, most: int, engine: AdaptationEngine) -> None:
        """Follows at most so many streams."""
        self._most, self._info = most, engine.theta
        self._theta = self._held(engine.theta_mapping()) if most else None
        self._followed: dict[StreamId, Followed] = {}
        self._largest = -1
        self._pairs = Allowance(PAIRS_PER_S, SAVED_S)
        self._holds = Allowance(HOLDS_PER_S, SAVED_S)

    def _held(self, tensors: Mapping[str, FloatArray]) -> HeldMapping:
        return HeldMapping(tensors, self._info.activation, self._info.output_activation)

    def score(self, slid: Iterable[Slid], now: float) -> list[PairScore]:
        """Returns the scores of new pairs by the mappings published before them; `now` in seconds,
        monotonic. Beyond PAIRS_PER_S pairs are passed over."""
        if not self._followed:
            return []
        scores: list[PairScore] = []
        for stream_id, new, _ in slid:
            if (followed := self._followed.get(stream_id)) is None:
                continue
            for pair in new:
                if followed.mappings and self._pairs.take(now):
                    scores += self._scores(followed, pair)
                followed.recent.append(pair.y_E)
        return scores

    def _scores(self, followed: Followed, pair: Pair) -> list[PairScore]:
        y_E = pair.y_E.astype(np.float64)
        others_RE = np.array(followed.recent, np.float64).reshape(-1, len(y_E))
        found = []
        with np.errstate(all="ignore"):
            for name, mapping in followed.mappings.items():
                o_E = mapping(pair.x_D)
                found.append(PairScore(name, self._loss(o_E, y_E), _first(o_E, y_E, others_RE)))
        return found

    def _loss(self, o_E: Doubles, y_E: Doubles) -> float:
        if self._info.loss == "cosine":
            return 1.0 - float(o_E @ y_E / np.sqrt((o_E @ o_E) * (y_E @ y_E)))
        return float(np.square(o_E - y_E).mean())

    def hold(self, verdict: Verdict, now: float) -> None:
        """Notes that the verdict's mapping was published. Call it while the adaptation can be
        read."""
        if self._theta is None:
            return
        before = self._followed.get(verdict.stream)
        rank = before.rank if before else _rank(verdict.stream.key)
        if before is None and not self._belongs(rank):
            return
        if not self._holds.take(now):
            if before:
                before.mappings = {}  # subscribers have another one now
            return
        mappings: dict[ScoredMapping, HeldMapping] = {
            "published": self._published(verdict, self._theta),
            "theta": self._theta,
        }
        if verdict.adaptation.rival is not None:
            mappings["ridge"] = HeldMapping(dict(verdict.adaptation.rival), "none", "none")
        if before:
            before.mappings = mappings
        else:
            self._make_room()
            self._followed[verdict.stream] = Followed(rank, mappings)
            self._largest = max(self._largest, rank)

    def _belongs(self, rank: int) -> bool:
        return len(self._followed) < self._most or rank < self._largest

    def _make_room(self) -> None:
        if len(self._followed) >= self._most:
            ranks = {stream_id: followed.rank for stream_id, followed in self._followed.items()}
            del self._followed[max(ranks, key=ranks.__getitem__)]
            self._largest = max((each.rank for each in self._followed.values()), default=-1)

    def _published(self, verdict: Verdict, theta: HeldMapping) -> HeldMapping:
        adaptation = verdict.adaptation
        if verdict.outcome is Outcome.RIDGE and adaptation.ridge is not None:
            return HeldMapping(dict(adaptation.ridge), "none", "none")
        return theta if verdict.outcome.is_fallback else self._held(dict(adaptation.tensors))

    def drop(self, partition: int) -> None:
        """Forgets the streams of a partition."""
        for stream_id in [each for each in self._followed if each.partition == partition]:
            del self._followed[stream_id]
        self._largest = max((each.rank for each in self._followed.values()), default=-1)


def _rank(key: str) -> int:
    return int.from_bytes(hashlib.blake2b(key.encode(), digest_size=8).digest(), "big")


def _first(o_E: Doubles, y_E: Doubles, others_RE: Doubles) -> bool | None:
    """Whether the output is nowhere nearer to another target; None among too few."""
    if len(others_RE) < LEAST_RECENT - 1:
        return None
    own = np.square(o_E - y_E).sum()
    return bool(own <= np.square(o_E - others_RE).sum(1).min())
