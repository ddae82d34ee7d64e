"""What the daemon would publish of streams whose windows slide, where it watches for changes.

B = streams in batch, S = support pairs, Q = query pairs, N = pairs of a stream, D = source dim,
E = target dim
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from model.evaluate.episodes import MetaTestEpisode
from model.evaluate.methods import Method, Outputs, published
from model.serving.engine import Engine
from model.values.drift import LEAST_SUPPORT, DriftWatch
from model.values.episode import Adaptation, Cut, Episode
from model.values.gate import prefers


class WatchedStreams:
    """Streams whose windows are adapted after every few pairs, as `daemon.turn` does."""

    def __init__(self, engine: Engine, streams: int, window_size: int) -> None:
        self._engine = engine
        self._watch = DriftWatch(streams, window_size)
        self._size = window_size
        self._held = [0] * streams
        self._pairs = 0
        self.cuts = 0
        """How often a window lost its older pairs."""

    def adapt(
        self, episodes: Sequence[MetaTestEpisode], pairs: int, *, wanted: bool = True
    ) -> list[Adaptation]:
        """Returns what the gate goes by of each stream, whose whole window is given and has so many
        new pairs. A stream that has changed is adapted from then on to the pairs since. Where no
        mapping is `wanted`, none learns from the query."""
        for slot in range(len(episodes)):
            self._watch.append([slot] * pairs, range(self._pairs, self._pairs + pairs))
            self._held[slot] = min(self._held[slot] + pairs, self._size)
        self._pairs += pairs
        cuts = [
            Cut(slot, self._held[slot] - len(e.x_gate_ND), len(e.x_gate_ND))
            for slot, e in enumerate(episodes)
        ]
        second = {
            cut.slot: challenge
            for cut in cuts
            if (challenge := self._watch.challenge(cut, LEAST_SUPPORT)) is not None
        }
        given = [_newest(episodes[c.slot], c) for c in (*cuts, *second.values())]
        found = self._engine.adapt(given, [wanted] * len(given))
        self._observe(cuts, found[: len(cuts)])
        for challenge, adaptation in zip(second.values(), found[len(cuts) :], strict=True):
            slot = challenge.slot
            if prefers(adaptation, found[slot], self._watch.standard_errors(slot)):
                found[slot] = adaptation
                self._held[slot] = challenge.support + challenge.query
                self._watch.settle(slot)
                self.cuts += 1
        return found[: len(cuts)]

    def _observe(self, cuts: Sequence[Cut], found: Sequence[Adaptation]) -> None:
        evidence = [adaptation.evidence for adaptation in found if adaptation.evidence]
        losses_BQ, judges_BQ = (
            np.stack([own.squared_Q for own in evidence]),
            np.stack([own.judges_Q for own in evidence]),
        )
        self._watch.observe(cuts, losses_BQ, judges_BQ)


class Cuts(NamedTuple):
    """How often the watch cut windows of streams that do not change."""

    pairs: int
    """Pairs after which a full window was adapted."""
    cuts: int


def cuts_of(engine: Engine, windows: Iterable[Sequence[MetaTestEpisode]]) -> Cuts:
    """Returns how often windows are cut that are adapted after each pair; `windows` has those of
    all streams after each pair."""
    streams, turns = None, 0
    for turns, own in enumerate(windows, 1):
        size = len(own[0].x_SD) + len(own[0].x_gate_ND)
        if streams is None:
            streams = WatchedStreams(engine, len(own), size)
        streams.adapt(own, size if turns == 1 else 1, wanted=False)
        count = len(own)
    return Cuts(turns * count, streams.cuts) if streams else Cuts(0, 0)


def watched(engine: Engine, before: Sequence[Sequence[MetaTestEpisode]], every: int) -> Method:
    """Make the method that uses what the daemon would publish, for streams whose windows are given
    after each `every` pairs, stream by stream. `before` are each stream's windows from before those
    that are judged, which the watch learns from."""

    def run(episodes: Sequence[MetaTestEpisode]) -> Outputs:
        if not episodes:
            return []
        steps = len(episodes) // len(before)
        judged = [episodes[start : start + steps] for start in range(0, len(episodes), steps)]
        size = len(episodes[0].x_SD) + len(episodes[0].x_gate_ND)
        streams = WatchedStreams(engine, len(judged), size)
        pairs = size
        for windows in zip(*before, strict=True):
            streams.adapt(windows, pairs)
            pairs = every
        outputs: list[Outputs] = [[] for _ in judged]
        for windows in zip(*judged, strict=True):
            adaptations = streams.adapt(windows, pairs)
            pairs = every
            for own, adaptation, episode in zip(outputs, adaptations, windows, strict=True):
                own.append(published(engine, adaptation, episode.x_QD))
        return [o_QE for own in outputs for o_QE in own]

    return run


def _newest(episode: MetaTestEpisode, cut: Cut) -> Episode:
    """The newest pairs of the window, as the engine takes them."""
    support = slice(len(episode.x_SD) - cut.support, None)
    return Episode(
        episode.x_SD[support], episode.y_SE[support], episode.x_gate_ND, episode.y_gate_NE
    )
