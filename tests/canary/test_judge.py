"""The judge of canaries: which evidence counts, what wins, what loses, and always the same."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.canary.trials import Trials, verdicts
from daemon.adapters.memory import MemoryRecord
from daemon.canary.judge import ALPHA, BETS, Bet, CanaryJudge, CanaryStanding, alpha_of
from daemon.wire.canary import Canary
from tests.canary.lab import CANARY, WATCH, evidence, judging, log_of, record


def judged(records: Sequence[MemoryRecord], canary: Canary = CANARY) -> CanaryStanding:
    judge = CanaryJudge(canary)
    for each in records:
        judge.observe(each)
    return judge.standing()


def test_a_bet_is_the_mean_of_its_products() -> None:
    gains = [0.3, -0.2, 0.7, -1.01, 0.05]
    exact = sum(
        math.prod(1 + Fraction(bet) * Fraction(gain) for gain in gains) for bet in BETS
    ) / len(BETS)
    bet = Bet()
    for gain in gains:
        bet.observe(gain)
    assert bet.capital == pytest.approx(float(exact), rel=1e-14)


def test_what_is_better_everywhere_wins_and_what_is_worse_everywhere_loses() -> None:
    won, lost = judged(log_of([0.3] * 400)), judged(log_of([-0.3] * 400))
    assert (won.verdict, lost.verdict) == ("won", "lost")
    assert 100 < won.streams < 200  # to show that at most 5 % are harmed
    assert won.difference == pytest.approx(0.3)
    assert min(won.better, won.safe) >= won.needed == pytest.approx(1 / alpha_of(1))
    assert lost.streams < 20
    assert lost.reason == "harms more than 5 % of the streams"


def test_no_difference_is_no_verdict_until_it_is_over() -> None:
    assert judged(log_of([0.01] * 2_000)).verdict == "open"
    assert judged([]).verdict == "open"


def test_a_fifth_that_is_harmed_rejects_whatever_the_mean() -> None:
    standing = judged(log_of([0.5, 0.5, 0.5, 0.5, -0.45] * 100))
    assert standing.verdict == "lost"
    assert standing.difference > 0.25
    assert standing.reason == "harms more than 5 % of the streams"


def test_later_attempts_need_more_evidence() -> None:
    first, tenth = (judged(log_of([0.3] * 600), replace(CANARY, attempt=k)) for k in (1, 10))
    assert first.verdict == tenth.verdict == "won"
    assert first.streams < tenth.streams
    assert sum(alpha_of(k) for k in range(1, 10_000)) == pytest.approx(ALPHA, rel=1e-3)


def test_adaptations_that_are_not_finite_reject_early_ones_alone() -> None:
    streams = [name for name, _ in zip(judging(), range(60), strict=False)]

    def log(failing: set[int]) -> list[MemoryRecord]:
        return [
            record(i, name, evidence(0.0, failed=int(i in failing)))
            for i, name in enumerate(streams)
        ]

    assert judged(log({0, 5, 19})).reason == "adaptations were not finite"
    assert judged(log({0, 5, 20, 30, 40})).verdict == "open"


def test_in_a_watch_the_former_theta_speaks_against_the_active_one() -> None:
    worse = judged(log_of([0.3] * 400, WATCH), WATCH)
    held = judged(log_of([-0.3] * 400, WATCH), WATCH)
    assert (worse.verdict, held.verdict) == ("lost", "won")
    assert worse.difference == pytest.approx(-0.3)


def test_what_does_not_count_is_passed_over_and_damage_is_counted() -> None:
    stream = next(judging())
    other = next(f"other-{i}" for i in range(10_000) if f"other-{i}" and _no_judge(f"other-{i}"))
    bad = record(0, stream, evidence(0.3))
    records = [
        record(0, stream, evidence(0.3)),
        record(1, stream, evidence(-1.0)),  # again
        record(2, stream, evidence(0.3), replace(CANARY, content_hash="ab" * 32)),
        record(3, f"{stream}", evidence(0.3, replace(CANARY, epoch=6))),  # an earlier trial
        record(4, other, evidence(0.3)),  # does not judge
        replace(bad, offset=5, value=b"what?"),
        replace(bad, offset=6, value=None),
        replace(bad, offset=7, key=b"\xff\xfe"),
        replace(bad, offset=8, key=None),
        record(9, "late", evidence(0.3), time_ms=CANARY.until_ms + 1),
        *(record(10, stream, evidence(d)) for d in (math.nan, 1.5, -math.inf)),
    ]
    standing = judged(records)
    assert (standing.streams, standing.difference) == (1, 0.3)
    assert standing.refused == 1 + 2 + 3


def _no_judge(name: str) -> bool:
    from daemon.canary.assignment import shadows

    return not shadows(CANARY, name)


@given(
    st.lists(st.floats(-1, 1), max_size=80),
    st.randoms(use_true_random=False),
    st.sampled_from([CANARY, WATCH]),
)
def test_duplicates_damage_and_restarts_change_nothing_to_the_bit(
    ds: list[float], draw: random.Random, canary: Canary
) -> None:
    log = log_of(ds, canary)
    clean = judged(log, canary)
    noisy: list[MemoryRecord] = []
    for place, each in enumerate(log):
        noisy.append(each)
        if draw.random() < 0.3:  # what was said already, in other words
            said = log[draw.randrange(place + 1)]
            noisy.append(replace(said, value=log[draw.randrange(place + 1)].value))
        if draw.random() < 0.1:
            noisy.append(replace(each, key=b"\xff" + (each.key or b"")))
    assert _same(judged(noisy, canary), clean)
    cut = draw.randrange(len(noisy) + 1)
    judged(noisy[:cut], canary)  # a reader that dies, and another one that begins anew
    assert _same(judged(noisy, canary), clean)


def _same(one: CanaryStanding, other: CanaryStanding) -> bool:
    return one.known() == other.known()


def test_the_vectorised_trials_are_the_fold() -> None:
    rng = np.random.default_rng(3)
    d_RB = np.clip(rng.normal([[0.3], [-0.1], [0.02], [0.1]], 0.15, (4, 300)), -1, 1)
    d_RB[3, ::5] = -0.4
    found = verdicts(d_RB)
    for row, d_B in enumerate(d_RB):
        standing = judged(log_of([float(d) for d in d_B]))
        assert found.verdict(row) == standing.verdict
        assert found.streams_R[row] == standing.streams


NULLS = Trials(runs=400, streams=600, seed=5)


@pytest.mark.parametrize("kind", list(NULLS.nulls()))
def test_what_is_no_better_seldom_wins(kind: str) -> None:
    found = verdicts(NULLS.nulls()[kind])
    share = float(found.won_R.mean())
    assert share <= ALPHA + 3 * math.sqrt(ALPHA * (1 - ALPHA) / NULLS.runs)


def test_events_as_units_would_promote_what_is_no_better() -> None:
    """The same null, each stream counted four times as if its judgements were independent."""
    null_RB = NULLS.nulls()["tight"]
    assert verdicts(np.repeat(null_RB, 4, 1)).won_R.mean() > 3 * ALPHA


def test_harm_to_a_fifth_is_never_promoted() -> None:
    found = verdicts(Trials(runs=200, streams=600, seed=6).harmful(0.2))
    assert not found.won_R.any()
    assert found.lost_R.all()
