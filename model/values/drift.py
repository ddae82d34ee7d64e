"""Watches each stream's losses for a change of the stream's map. Pure; numpy alone.

Z = slots (one for each stream), B = streams in batch, N = pairs of a stream (losses that are kept),
W = window size, Q = query pairs

Each new pair's loss, found before anything has learned from the pair, is ranked among the stream's
last losses: p is the share of those that are no smaller, its own included. While nothing changes
every rank is as likely as any other, whatever the losses are, so the bets

    s ← max(1, s) · ε · p^(ε − 1)

multiply to no more than 1 on average (power martingale: Vovk, Nouretdinov and Gammerman, "Testing
exchangeability on-line", ICML 2003; restarted at 1 as in CUSUM: Volkhonskiy et al., "Inductive
conformal martingales for change-point detection", 2017). A change makes losses that are larger than
all before; after two or three of them s exceeds SUSPECTED, and the change is presumed at the pair
with which s last left 1.

A suspicion alone changes nothing. It has the stream adapted a second time, on the pairs since then,
and the gate judges which is better (`model.values.gate.prefers`).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from model.values.arrays import FloatArray
from model.values.episode import Cut
from model.values.gate import CLEARLY

KEPT = 128
"""Losses that a new one is ranked among. The smallest rank is 1/129, which multiplies s by 9."""
EPSILON = 0.3
SUSPECTED = 10.0
STRONGLY = 100.0
"""Chance alone seldom brings s so far. The query, of few pairs, then has to add less to it."""
LARGEST = 1e4
"""Of s: after a suspicion that led to nothing some twenty ordinary losses bring it back to 1."""
LEAST_SUPPORT = 4
"""Pairs since the presumed change that the second mapping is adapted to, at least."""
NEVER = -1

Mask = NDArray[np.bool_]


class DriftWatch:
    """What is known of the losses of streams that lie in slots, and of the offsets of their pairs.

    Offsets are any numbers that do not decrease along a stream; those of one event are equal.
    """

    def __init__(self, slots: int, window_size: int) -> None:
        self._offsets_ZW = np.zeros((slots, window_size), np.int64)
        self._arrived = [0] * slots
        # logarithms keep their order in 16 bits, and large losses do not overflow
        self._losses_ZN = np.zeros((slots, KEPT), np.float16)
        self._known_Z = np.zeros(slots, np.int64)
        self._s_Z = np.ones(slots, np.float32)
        self._since_Z = np.full(slots, NEVER, np.int64)
        self._judged_to_Z = np.full(slots, NEVER, np.int64)

    def clear(self, slot: int) -> None:
        """Forgets a slot's stream."""
        self._arrived[slot] = self._known_Z[slot] = 0
        self._judged_to_Z[slot] = NEVER
        self.settle(slot)

    def settle(self, slot: int) -> None:
        """Ends a stream's suspicion; its losses stay known."""
        self._s_Z[slot], self._since_Z[slot] = 1.0, NEVER

    def append(self, slots: Sequence[int], offsets: Sequence[int]) -> None:
        """Notes where new pairs came from, a stream's in order."""
        size = self._offsets_ZW.shape[1]
        places = []
        for slot in slots:
            places.append(self._arrived[slot] % size)
            self._arrived[slot] += 1
        self._offsets_ZW[slots, places] = offsets

    def oldest(self, slot: int, pairs: int) -> int:
        """Returns the offset of the oldest of a stream's newest `pairs` pairs."""
        return int(
            self._offsets_ZW[slot, (self._arrived[slot] - pairs) % self._offsets_ZW.shape[1]]
        )

    def observe(self, cuts: Sequence[Cut], losses_BQ: FloatArray, judges_BQ: Mask) -> int:
        """Takes in the query losses of each stream's newest adaptation, oldest pair first. Pairs
        that do not judge are passed over, and so are those that were observed before and losses
        that are not finite. Returns how many streams it suspects that it did not before."""
        slots_B = np.array([cut.slot for cut in cuts], np.int64)
        offsets_BQ = self._query_offsets(cuts, losses_BQ.shape[1])
        new_BQ = judges_BQ & np.isfinite(losses_BQ)
        new_BQ &= offsets_BQ > self._judged_to_Z[slots_B, np.newaxis]
        self._judged_to_Z[slots_B] = [self.oldest(cut.slot, 1) for cut in cuts]
        suspected_B = self._s_Z[slots_B] >= SUSPECTED
        positive_BQ = np.where(new_BQ, np.maximum(losses_BQ, np.finfo(np.float32).tiny), 1.0)
        logs_BQ = np.log(positive_BQ).astype(np.float16)
        for own_B, log_B, offset_B in zip(new_BQ.T, logs_BQ.T, offsets_BQ.T, strict=True):
            if own_B.any():
                self._bet(slots_B[own_B], log_B[own_B], offset_B[own_B])
        return int(((self._s_Z[slots_B] >= SUSPECTED) & ~suspected_B).sum())

    def _query_offsets(self, cuts: Sequence[Cut], columns: int) -> NDArray[np.int64]:
        first_B = np.array([self._arrived[cut.slot] - cut.query for cut in cuts], np.int64)
        slots_B = np.array([cut.slot for cut in cuts], np.int64)
        places_BQ = (first_B[:, np.newaxis] + np.arange(columns)) % self._offsets_ZW.shape[1]
        offsets_BQ: NDArray[np.int64] = self._offsets_ZW[slots_B[:, np.newaxis], places_BQ]
        return offsets_BQ

    def _bet(
        self, slots_B: NDArray[np.int64], loss_B: NDArray[np.float16], offset_B: NDArray[np.int64]
    ) -> None:
        known_B = np.minimum(self._known_Z[slots_B], KEPT)
        before_BN = self._losses_ZN[slots_B]
        no_smaller_BN = before_BN >= loss_B[:, np.newaxis]
        no_smaller_BN &= np.arange(KEPT) < known_B[:, np.newaxis]
        p_B = (1 + no_smaller_BN.sum(1)) / (1 + known_B)
        before_B = self._s_Z[slots_B]
        s_B = np.maximum(before_B, 1) * EPSILON * p_B ** (EPSILON - 1)
        left_1_B = (before_B <= 1) & (s_B > 1)
        self._since_Z[slots_B[left_1_B]] = offset_B[left_1_B]
        self._s_Z[slots_B] = np.minimum(s_B, LARGEST)
        self._losses_ZN[slots_B, self._known_Z[slots_B] % KEPT] = loss_B
        self._known_Z[slots_B] += 1

    def standard_errors(self, slot: int) -> float:
        """Returns by how many standard errors the second mapping of a suspected stream has to be
        better: as many as any challenger, or one where the suspicion is strong."""
        return CLEARLY if self._s_Z[slot] < STRONGLY else 1.0

    def challenge(self, cut: Cut, least_support: int) -> Cut | None:
        """Returns the cut of the pairs since the presumed change, with the same query; None for a
        stream that is not suspected, or has too few pairs since then. Where the whole window is
        newer than the change, the suspicion ends."""
        if self._s_Z[cut.slot] < SUSPECTED:
            return None
        pairs = cut.support + cut.query
        places = np.arange(self._arrived[cut.slot] - pairs, self._arrived[cut.slot])
        offsets_N = self._offsets_ZW[cut.slot, places % self._offsets_ZW.shape[1]]
        since = int((offsets_N >= self._since_Z[cut.slot]).sum())
        if since == pairs:
            self.settle(cut.slot)
            return None
        support = since - cut.query
        if support < max(LEAST_SUPPORT, least_support):
            return None
        return cut._replace(support=support)
