"""The watch for changes of a stream, against plain arithmetic one stream and pair at a time.

Z = slots, B = streams in batch, Q = query pairs
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from model.serving.judging import errors_ahead
from model.values.drift import KEPT, LARGEST, SUSPECTED, DriftWatch
from model.values.episode import Adaptation, Cut, QueryEvidence
from model.values.gate import CLEARLY, OF_THREE, clearly_lower, prefers

WINDOW, QUERY = 12, 4


@dataclass
class PlainStream:
    """One stream by the formulas: s ← max(1, s) · 0.3 · p^−0.7."""

    losses: list[float] = field(default_factory=list)
    s: float = 1.0
    since: int = -1

    def observe(self, offset: int, loss: float) -> None:
        own = float(np.float16(math.log(loss)))
        last = self.losses[-KEPT:]
        p = (1 + sum(own <= other for other in last)) / (1 + len(last))
        before, self.s = self.s, max(1.0, self.s) * 0.3 * p**-0.7
        if before <= 1 < self.s:
            self.since = offset
        self.s = min(self.s, LARGEST)
        self.losses.append(own)


class Watched:
    """A watch whose streams get a pair at a time, with the loss that a test gives."""

    def __init__(self, streams: int = 1, window: int = WINDOW) -> None:
        self.watch = DriftWatch(streams, window)
        self.losses: list[list[float]] = [[] for _ in range(streams)]

    def append(self, slot: int, losses: Sequence[float]) -> None:
        first = len(self.losses[slot])
        self.watch.append([slot] * len(losses), range(first, first + len(losses)))
        self.losses[slot] += losses

    def cut(self, slot: int) -> Cut:
        held = min(len(self.losses[slot]), WINDOW)
        query = min(QUERY, held - 1)
        return Cut(slot, held - query, query)

    def observe(self, *slots: int) -> int:
        """As after an adaptation: the newest pairs are the query."""
        cuts = [self.cut(slot) for slot in slots]
        losses_BQ = np.zeros((len(slots), QUERY), np.float32)
        judges_BQ = np.zeros((len(slots), QUERY), np.bool_)
        for row, cut in enumerate(cuts):
            losses_BQ[row, : cut.query] = self.losses[cut.slot][-cut.query :]
            judges_BQ[row, : cut.query] = True
        return self.watch.observe(cuts, losses_BQ, judges_BQ)


losses = st.integers(-60, 60).map(lambda third: 2.0 ** (third / 3))


@given(
    st.lists(st.tuples(st.integers(0, 2), st.lists(losses, min_size=2, max_size=6)), max_size=25)
)
def test_it_suspects_what_the_formulas_say(batches: list[tuple[int, list[float]]]) -> None:
    """Whatever comes in one adaptation, and beside which other streams. Of several new pairs those
    count that are in the query."""
    watched, plain = Watched(3), [PlainStream() for _ in range(3)]
    for slot, new in batches:
        watched.append(slot, new)
        watched.observe(slot)
        held = len(watched.losses[slot])
        for offset in range(held - min(len(new), watched.cut(slot).query), held):
            plain[slot].observe(offset, watched.losses[slot][offset])
        for other in range(3):
            assert watched.watch._s_Z[other] == pytest.approx(plain[other].s, rel=1e-4)
            if plain[other].s > 1.001:
                assert watched.watch._since_Z[other] == plain[other].since


def test_streams_that_are_observed_together_stay_apart() -> None:
    rng = np.random.default_rng(1)
    together, alone = Watched(5), [Watched() for _ in range(5)]
    for _ in range(40):
        new = rng.exponential(size=(5, 3)).tolist()
        for slot, own in enumerate(new):
            together.append(slot, own)
            alone[slot].append(0, own)
            alone[slot].observe(0)
        together.observe(*range(5))
    for slot in range(5):
        assert together.watch._s_Z[slot] == alone[slot].watch._s_Z[0]


def test_a_change_is_suspected_after_two_pairs_and_challenged_once_there_are_eight() -> None:
    rng = np.random.default_rng(2)
    watched = Watched(window=WINDOW)
    for loss in rng.uniform(1, 2, 200):
        watched.append(0, [loss])
        if len(watched.losses[0]) > 4:
            watched.observe(0)
    watched.watch.settle(0)
    told = []
    for number in range(1, 9):
        watched.append(0, [10.0 + number])
        told.append(watched.observe(0))
        challenge = watched.watch.challenge(watched.cut(0), least_support=2)
        assert (challenge is not None) == (number == 8)
    assert told == [0, 1, 0, 0, 0, 0, 0, 0]
    assert challenge == Cut(0, 4, 4)
    assert watched.watch.oldest(0, 8) == 200  # the first pair after the change
    watched.watch.settle(0)
    assert watched.watch.challenge(watched.cut(0), least_support=2) is None


def test_a_suspicion_ends_when_the_window_has_no_older_pair() -> None:
    watched = Watched()
    watched.append(0, [1.0] * 100)
    for _ in range(100):
        watched.append(0, [1.0])
        watched.observe(0)
    for number in range(WINDOW):
        watched.append(0, [10.0 + number])
        watched.observe(0)
    assert watched.watch._s_Z[0] >= SUSPECTED
    assert watched.watch.challenge(watched.cut(0), least_support=2) is None
    assert watched.watch._s_Z[0] == 1


def test_pairs_that_do_not_judge_and_losses_that_are_not_finite_are_passed_over() -> None:
    watched = Watched()
    watched.append(0, [1.0] * 6)
    watched.observe(0)
    known = watched.watch._known_Z[0]
    watched.append(0, [math.nan, math.inf])
    watched.observe(0)
    assert watched.watch._known_Z[0] == known
    watched.append(0, [5.0])
    cut = watched.cut(0)
    watched.watch.observe([cut], np.ones((1, QUERY), np.float32), np.zeros((1, QUERY), np.bool_))
    assert watched.watch._known_Z[0] == known
    watched.observe(0)  # it was there to be judged, and is not judged again
    assert watched.watch._known_Z[0] == known


def test_another_stream_in_the_slot_begins_anew() -> None:
    watched, fresh = Watched(), Watched()
    rng = np.random.default_rng(3)
    watched.append(0, rng.uniform(1, 2, 50).tolist())
    watched.observe(0)
    watched.watch.clear(0)
    watched.losses[0].clear()
    for each in (watched, fresh):
        for loss in np.random.default_rng(4).exponential(size=30).tolist():
            each.append(0, [loss, loss])
            each.observe(0)
    assert watched.watch._s_Z[0] == fresh.watch._s_Z[0]


@pytest.mark.parametrize("scale", [1e-30, 1.0, 1e30])
def test_streams_that_do_not_change_are_seldom_suspected_in_any_unit(scale: float) -> None:
    """The chance to exceed 10 from 1 is a tenth at most; a new start comes with every pair."""
    rng = np.random.default_rng(6)
    watched, streams, suspected = Watched(100), 100, 0
    for number in range(500):
        for slot in range(streams):
            watched.append(slot, [float(scale * rng.exponential())])
        if number > 4:
            suspected += watched.observe(*range(streams))
    assert suspected < 0.02 * 500 * streams


@given(st.lists(st.tuples(st.floats(-10, 10, width=32), st.floats(-10, 10, width=32)), max_size=8))
def test_clearly_lower_is_the_judges_own_rule(pairs: list[tuple[float, float]]) -> None:
    one_Q, other_Q = np.array(pairs, np.float32).reshape(-1, 2).T
    gain = other_Q.astype(float) - one_Q
    if len(gain) > 1 and abs(gain.mean()) > 0:
        z = gain.mean() / max(1e-30, gain.std(ddof=1) / math.sqrt(len(gain)))
        if min(abs(z - 2.0), abs(z - 2.0 / OF_THREE)) < 1e-3:
            return  # either may be right in single precision
    one_BQ, other_BQ = torch.tensor(one_Q)[None], torch.tensor(other_Q)[None]
    ahead_B = errors_ahead(one_BQ, other_BQ, torch.ones_like(one_BQ, dtype=torch.bool))
    assert clearly_lower(one_Q, other_Q) == bool(ahead_B > CLEARLY)


def adaptation(squared: Sequence[float], cosine: Sequence[float], judges: str) -> Adaptation:
    evidence = QueryEvidence(
        np.array(squared, np.float32),
        np.array(cosine, np.float32),
        np.array([judge == "x" for judge in judges]),
    )
    return Adaptation({}, 1.0, 1.0, 1.0, 1.0, True, evidence=evidence)


@pytest.mark.parametrize(
    ("squared", "cosine", "judges", "expected"),
    [
        ([0.1, 0.2, 0.1, 0.2], [0.1, 0.2, 0.1, 0.2], "xxxx", True),
        ([0.1, 0.2, 0.1, 0.2], [1.0, 1.0, 1.0, 1.0], "xxxx", False),
        ([1.0, 1.0, 1.0, 1.0], [0.1, 0.2, 0.1, 0.2], "xxxx", False),
        ([0.1, 0.2, 0.1, 9.0], [0.1, 0.2, 0.1, 9.0], "xxx.", True),
        ([0.1, 0.2, 9.0, 9.0], [0.1, 0.2, 9.0, 9.0], "xx..", False),
        ([0.1, 0.2, 0.1, 0.2], [0.1, 0.2, 0.1, 0.2], "x...", False),
        ([math.nan, 0.2, 0.1, 0.2], [0.1, 0.2, 0.1, 0.2], "xxxx", False),
    ],
)
def test_a_challenger_must_be_clearly_better_in_both_measures(
    squared: list[float], cosine: list[float], judges: str, expected: bool
) -> None:
    incumbent = adaptation([1.0, 1.1, 1.0, 1.1], [1.0, 1.1, 1.0, 1.1], judges)
    assert prefers(adaptation(squared, cosine, "xxxx"), incumbent, 2.0) is expected
    assert not prefers(Adaptation({}, 1.0, 1.0, 1.0, 1.0, True), incumbent, 0.0)


def test_after_a_strong_suspicion_one_standard_error_is_enough() -> None:
    challenger = adaptation([0.0, 0.2, 0.9, 1.1], [0.0, 0.2, 0.9, 1.1], "xxxx")  # z = 1.6
    incumbent = adaptation([1.0, 1.0, 1.0, 1.0], [1.0, 1.0, 1.0, 1.0], "xxxx")
    assert not prefers(challenger, incumbent, 2.0)
    assert prefers(challenger, incumbent, 1.0)
    watched = Watched()
    for number in range(200):
        watched.append(0, [1.0 + number % 7])
        if number > 4:
            watched.observe(0)
    strengths = []
    for number in range(5):
        watched.append(0, [10.0 + number])
        watched.observe(0)
        strengths.append((watched.watch._s_Z[0] >= 100, watched.watch.standard_errors(0)))
    assert strengths[0] == (False, 2.0)
    assert strengths[-1] == (True, 1.0)
