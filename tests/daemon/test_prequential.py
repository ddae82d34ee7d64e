"""Scores of new pairs by what was published before them, against plain arithmetic.

D = source dim, E = target dim, N = pairs of a stream
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from daemon.turn.prequential import HOLDS_PER_S, LEAST_RECENT, PAIRS_PER_S, SAVED_S, Prequential
from daemon.turn.report import PairScore, ScoredMapping, Verdict
from daemon.turn.streams import Slid, StreamId
from daemon.turn.window import Pair, PairId
from daemon.worker.metrics import Metrics
from model.meta.fresh import fresh_theta_of_kind
from model.serving.engine import Engine
from model.values.arrays import FloatArray
from model.values.episode import Adaptation
from model.values.gate import Outcome
from tests.daemon.lab import D, E, Worker, World, policy

STREAM = StreamId(0, "s")


@pytest.fixture(scope="module")
def engine() -> Engine:
    return Engine(fresh_theta_of_kind((D, 8, E), learner="maml", steps=1), "cpu", 8, 6, 2)


def linear(seed: int) -> dict[str, FloatArray]:
    rng = np.random.default_rng(seed)
    w1, w2 = rng.standard_normal((E, D)), np.eye(E)
    tensors = {"w1": w1, "b1": np.zeros(E), "w2": w2, "b2": rng.standard_normal(E)}
    return {name: tensor.astype(np.float32) for name, tensor in tensors.items()}


def verdict(
    key: str = "s", outcome: Outcome = Outcome.RIDGE, ridge: int = 1, partition: int = 0
) -> Verdict:
    made = Adaptation(
        linear(9), 1.0, 1.0, 1.0, 1.0, True, ridge=linear(ridge), rival=linear(ridge + 1)
    )
    return Verdict(StreamId(partition, key), 7, 6, 4, made, outcome)


def pairs(count: int, first: int = 0) -> list[Pair]:
    found = []
    for number in range(first, first + count):
        rng = np.random.default_rng(100 + number)
        x_D, y_E = rng.standard_normal(D), rng.standard_normal(E)
        found.append(Pair(PairId(number, 0), x_D.astype(np.float32), y_E.astype(np.float32), 0))
    return found


def slid(new: Sequence[Pair], stream: StreamId = STREAM) -> Slid:
    return Slid(stream, new, True)


def of(scores: Sequence[PairScore], mapping: ScoredMapping) -> list[PairScore]:
    return [score for score in scores if score.mapping == mapping]


def test_each_new_pair_is_scored_by_what_was_published_before_it(engine: Engine) -> None:
    followed = Prequential(4, engine)
    assert followed.score([slid(pairs(3))], now=0.0) == []  # nothing is published yet
    followed.hold(verdict(ridge=1), 0.0)
    new = pairs(20)
    scores = followed.score([slid(new)], now=10.0)
    for mapping, tensors in (("published", linear(1)), ("ridge", linear(2))):
        for number, score in enumerate(of(scores, mapping)):  # type: ignore[arg-type]
            output = tensors["w1"] @ new[number].x_D + tensors["b2"]
            errors = [float(((output - other.y_E) ** 2).sum()) for other in new[: number + 1]]
            assert score.loss == pytest.approx(errors[-1] / E, rel=1e-4)
            expected = min(errors) == errors[-1] if number + 1 >= LEAST_RECENT else None
            assert score.first is expected
    assert len(of(scores, "theta")) == 20
    followed.hold(verdict(ridge=5), 15.0)
    (score,) = of(followed.score([slid(pairs(1, first=50))], now=20.0), "published")
    pair = pairs(1, first=50)[0]
    output = linear(5)["w1"] @ pair.x_D + linear(5)["b2"]
    assert score.loss == pytest.approx(float(((output - pair.y_E) ** 2).mean()), rel=1e-4)


@pytest.mark.parametrize("outcome", [Outcome.WORSE, Outcome.NOT_FINITE])
def test_the_published_fallback_is_theta(engine: Engine, outcome: Outcome) -> None:
    followed = Prequential(4, engine)
    followed.hold(verdict(outcome=outcome), 0.0)
    scores = followed.score([slid(pairs(12))], now=10.0)
    assert [s[1:] for s in of(scores, "published")] == [s[1:] for s in of(scores, "theta")]


def test_the_streams_with_the_smallest_hashes_are_followed_whatever_comes_first(
    engine: Engine,
) -> None:
    def rank(key: str) -> bytes:
        return hashlib.blake2b(key.encode(), digest_size=8).digest()

    keys = [f"stream {number}" for number in range(50)]
    for order in (keys, keys[::-1]):
        followed = Prequential(5, engine)
        for number, key in enumerate(order):
            followed.hold(verdict(key), float(number))
        found = {
            key
            for number, key in enumerate(keys)
            if followed.score([slid(pairs(1), StreamId(0, key))], now=10.0 * (number + 1))
        }
        assert found == set(sorted(keys, key=rank)[:5])


def test_no_more_pairs_are_scored_than_time_allows(engine: Engine) -> None:
    followed = Prequential(1, engine)
    followed.hold(verdict(), 99.0)
    saved = PAIRS_PER_S * SAVED_S
    assert len(of(followed.score([slid(pairs(500))], now=100.0), "theta")) == saved
    assert followed.score([slid(pairs(500))], now=100.0) == []
    assert len(of(followed.score([slid(pairs(500))], now=100.5), "theta")) == PAIRS_PER_S / 2


def test_a_stream_is_not_scored_by_a_mapping_that_subscribers_no_longer_hold(
    engine: Engine,
) -> None:
    """More is published than may be kept."""
    followed = Prequential(1, engine)
    for _ in range(int(HOLDS_PER_S * SAVED_S)):
        followed.hold(verdict(), 100.0)
    assert followed.score([slid(pairs(1))], now=100.0)
    followed.hold(verdict(), 100.0)
    assert followed.score([slid(pairs(1))], now=100.0) == []
    followed.hold(verdict(), 100.6)
    assert followed.score([slid(pairs(1))], now=100.6)


def test_a_partition_that_goes_takes_its_streams_along(engine: Engine) -> None:
    followed = Prequential(2, engine)
    followed.hold(verdict("a", partition=0), 0.0)
    followed.hold(verdict("b", partition=1), 0.0)
    followed.drop(0)
    assert not followed.score([slid(pairs(1), StreamId(0, "a"))], now=10.0)
    assert followed.score([slid(pairs(1), StreamId(1, "b"))], now=10.0)
    followed.hold(verdict("c"), 15.0)  # there is room again
    assert followed.score([slid(pairs(1), StreamId(0, "c"))], now=20.0)


def test_none_are_followed_where_none_are_asked_for(engine: Engine) -> None:
    followed = Prequential(0, engine)
    followed.hold(verdict(), 0.0)
    assert followed.score([slid(pairs(1))], now=10.0) == []


def test_the_loop_scores_replays_not_again_and_metrics_show_r_at_1(engine: Engine) -> None:
    world = World()
    sampled = replace(policy(publish_interval_s=5.0), prequential_streams=4)
    worker = Worker(world, sampled, engine=engine)
    worker.begin()
    metrics, scores = Metrics(), 0
    for _ in range(30):
        world.feed("a")
        report = worker.turn(after_s=0.5)
        metrics.record(report, 0.0)
        scores += len(of(report.scores, "published"))
    assert scores == 30 - 3  # the first mapping is of three pairs
    sample = metrics.registry.get_sample_value
    published = {"mapping": "published"}
    assert sample("adaptd_prequential_loss_count", published) == scores
    counted = sample("adaptd_prequential_pairs_total", published)
    assert counted == scores - (LEAST_RECENT - 1)
    assert 0 <= (sample("adaptd_prequential_hits_total", published) or 0) <= counted
    worker.loop.recover()
    assert all(not report.scores for report in worker.drain())
