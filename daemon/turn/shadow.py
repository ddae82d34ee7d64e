"""Judges a candidate θ beside the one that is served, on a share of the streams. Pure.

N = pairs of a stream, D = source dim, E = target dim, Q = query pairs

Every event brings its own target, so a candidate needs no exposure to be judged: where a stream is
adapted whose newest pairs have not judged yet, it is adapted from the candidate too, on the same
pairs, and both once more with the support cut to its newest COLD pairs, as if the stream were new:
there θs differ most. Nothing of that is published, and nothing that is published depends on it.

    windows of the loop -> copies of a cut's pairs -> two engines -> a judgement
    JUDGEMENTS of a stream -> one record of evidence, once for each canary

What is not sent yet lies in memory. After a crash or a rebalance the stream begins again: what is
lost does not depend on what it would have said.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from daemon.turn.gating import DueStream
from daemon.turn.ports import AdaptationEngine
from daemon.turn.streams import StreamId
from daemon.turn.window import WindowShape
from daemon.wire.canary import Canary
from daemon.wire.evidence import StreamEvidence, evidence_message
from daemon.wire.record import Message
from model.values.arrays import FloatArray
from model.values.episode import Adaptation, Cut

JUDGEMENTS = 4
"""Of a stream, before it speaks: one judgement of four pairs scatters widely."""
COLD = 5
"""Pairs of the short support."""
SLOTS = 64
"""The most streams that judge in one turn, and so the memory that it takes."""
SPARE = 0.01
"""Of all time, what judging may take besides its share of the adapting: where few events come,
batches are small, and a share of so little would not do."""
MOST_SAVED_S = 1.0
"""The most time that is saved up for judging."""

PairsOf = Callable[[Cut], tuple[FloatArray, FloatArray]]


class Judging(NamedTuple):
    """A stream that judges in this turn."""

    due: DueStream
    whole: Adaptation
    """From the active θ, on all of the support."""


@dataclass(slots=True)
class Judgements:
    """What a stream has said so far."""

    judged_to: int = -1
    """The newest offset that has judged."""
    cold: list[float] = field(default_factory=list)
    full: list[float] = field(default_factory=list)
    pairs: int = 0
    failed: int = 0


class Shadow:
    """One candidate beside the active θ, on the streams of this worker."""

    def __init__(
        self,
        canary: Canary,
        shadows: Callable[[str], bool],
        engines: tuple[AdaptationEngine, AdaptationEngine],
        shape: WindowShape,
        topic: str,
    ) -> None:
        """`shadows` says which streams judge; `engines` are of the active θ and of the candidate;
        evidence goes to `topic`."""
        self.canary = canary
        self._shadows, self._shape, self._topic = shadows, shape, topic
        active, candidate = engines
        self._squared = active.theta.loss == "mse"
        self._active, self._candidate = active.windows(SLOTS), candidate.windows(SLOTS)
        self._open: dict[StreamId, Judgements] = {}
        self._done = set[str]()
        self._unsent = set[str]()
        """Streams whose evidence is on its way; those that are still here in the next turn begin
        again, for it did not arrive."""
        self._left_s = 0.0
        self._settled_at: float | None = None

    def judge(
        self,
        due: Sequence[DueStream],
        adaptations: Sequence[Adaptation],
        pairs_of: PairsOf,
        oldest: Callable[[Cut], int],
    ) -> tuple[list[Message], int]:
        """Judges on those of the turn's streams that have not spoken and whose query is all new.

        `adaptations` are those from the active θ; `pairs_of` returns a copy of a cut's pairs, and
        `oldest` the source offset of the oldest one. Returns the evidence that is complete now, and
        how many adaptations it took. Does nothing when the time is used up, see `spent`.
        """
        self._unsent.clear()
        if self._left_s < 0.0:
            return [], 0
        chosen = [
            Judging(each, whole)
            for each, whole in zip(due, adaptations, strict=True)
            if self._is_next(each, oldest)
        ][:SLOTS]
        if not chosen:
            return [], 0
        full, short = self._cuts(chosen)
        self._fill(chosen, pairs_of)
        cold = self._active.adapt(short)
        ours = self._candidate.adapt([*full, *short])
        told = []
        for at, (each, whole) in enumerate(chosen):
            self._note(each, (whole, cold[at]), (ours[at], ours[len(chosen) + at]))
            told += self._completed(each)
        return told, 3 * len(chosen)

    def _is_next(self, each: DueStream, oldest: Callable[[Cut], int]) -> bool:
        stream, cut = each.stream, each.whole.cut
        if each.challenger or cut.query < self._shape.query_size or stream.key in self._done:
            return False
        if not self._shadows(stream.key):
            return False
        before = self._open.get(stream)
        return before is None or oldest(cut._replace(support=0)) > before.judged_to

    def _cuts(self, chosen: Sequence[Judging]) -> tuple[list[Cut], list[Cut]]:
        """The cuts of slots of our own: whole, and with the short support."""
        cuts = [each.due.whole.cut for each in chosen]
        full = [Cut(slot, cut.support, cut.query, wanted=False) for slot, cut in enumerate(cuts)]
        return full, [cut._replace(support=min(COLD, cut.support)) for cut in full]

    def _fill(self, chosen: Sequence[Judging], pairs_of: PairsOf) -> None:
        """Copies the streams' pairs to the slots: all for the candidate, for the active θ those of
        the short cut."""
        pairs = [pairs_of(each.due.whole.cut) for each in chosen]
        whole = [len(x_ND) for x_ND, _ in pairs]
        short = [min(COLD, e.due.whole.cut.support) + e.due.whole.cut.query for e in chosen]
        for windows, newest in ((self._candidate, whole), (self._active, short)):
            slots = [slot for slot, count in enumerate(newest) for _ in range(count)]
            for slot in range(len(chosen)):
                windows.clear(slot)
            taken = list(zip(pairs, newest, strict=True))
            x = [x_D for (x_ND, _), count in taken for x_D in x_ND[-count:]]
            y = [y_E for (_, y_NE), count in taken for y_E in y_NE[-count:]]
            windows.append(slots, x, y)

    def _note(
        self,
        each: DueStream,
        active: tuple[Adaptation, Adaptation],
        candidate: tuple[Adaptation, Adaptation],
    ) -> None:
        """Notes a judgement: by the adaptations on the whole and on the short support."""
        noted = self._open.setdefault(each.stream, Judgements())
        noted.judged_to = each.version
        full, cold = (
            loss_difference(self._loss(ours), self._loss(theirs))
            for ours, theirs in zip(active, candidate, strict=True)
        )
        noted.failed += sum(not adaptation.finite for adaptation in candidate)
        if full is None or cold is None:
            return
        noted.full.append(full)
        noted.cold.append(cold)
        noted.pairs += candidate[0].judged_pairs

    def _loss(self, adaptation: Adaptation) -> float | None:
        """What the gate would publish, on the pairs that judge: its mean squared error, or where θ
        was trained for directions alone, its cosine distance. None where no pair judges."""
        found = adaptation.evidence
        if found is None or not found.judges_Q.any():
            return None
        loss_Q = found.squared_Q if self._squared else found.cosine_Q
        return float(np.mean(loss_Q[found.judges_Q], dtype=np.float64))

    def _completed(self, each: DueStream) -> list[Message]:
        noted = self._open[each.stream]
        if len(noted.full) < JUDGEMENTS:
            return []
        del self._open[each.stream]
        self._unsent.add(each.stream.key)
        cold, full = (sum(side) / len(side) for side in (noted.cold, noted.full))
        evidence = StreamEvidence(
            canary=self.canary.epoch,
            d=(cold + full) / 2.0,
            cold=cold,
            full=full,
            n=noted.pairs,
            failed=noted.failed,
            part=each.stream.partition,
            offset=each.version,
        )
        return [evidence_message(self._topic, self.canary, each.stream.key, evidence)]

    def acknowledged(self) -> None:
        """Notes that the evidence of this turn has arrived: its streams have spoken."""
        self._done |= self._unsent
        self._unsent.clear()

    def spent(self, now: float, judging_s: float, adapting_s: float) -> None:
        """Notes how long a turn judged, and how long it adapted for the streams: judging may take
        the canary's share of that, and SPARE of all time. What is over is saved, and what was too
        much is paid back. `now` is in seconds, monotonic."""
        earned_s = self.canary.share * adapting_s + SPARE * (now - (self._settled_at or now))
        self._settled_at = now
        self._left_s = min(MOST_SAVED_S, self._left_s + earned_s - judging_s)

    def drop(self, partition: int) -> None:
        """Forgets what streams of a partition have said so far; those that have spoken stay so."""
        for stream in [each for each in self._open if each.partition == partition]:
            del self._open[stream]


def loss_difference(active: float | None, candidate: float | None) -> float | None:
    """Returns (active - candidate) / (active + candidate) of two losses, within -1 and 1: above 0
    where the candidate is better. A loss that is not finite is worse than any that is. None where
    a loss is not known."""
    if active is None or candidate is None:
        return None
    finite = (math.isfinite(active), math.isfinite(candidate))
    if finite != (True, True):
        return float(finite[1]) - float(finite[0])
    total = active + candidate
    if total == 0.0:
        return 0.0
    return max(-1.0, min(1.0, (active - candidate) / total)) if math.isfinite(total) else 0.0
