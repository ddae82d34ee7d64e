"""A candidate is judged beside the served θ, and nothing that is published changes by a bit."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from daemon.canary.assignment import shadows
from daemon.errors import Unavailable
from daemon.turn.ports import AdaptationEngine, Outbox
from daemon.turn.shadow import JUDGEMENTS, Shadow, loss_difference
from daemon.turn.window import WindowShape
from daemon.wire.evidence import Heard, decode_evidence
from daemon.wire.record import Message
from model.losses import Loss
from model.meta.fresh import fresh_theta_of_kind
from model.serving.engine import Engine
from model.theta.meta_init import MetaInit, fresh_meta_init
from model.values.episode import Adaptation, Episode
from tests.canary.lab import CANARY
from tests.daemon.lab import LINEAR, POLICY, TOPICS, D, E, LinearEngine, Worker, World

TOPIC = "evidence"
KEYS = [f"tenant-{i}" for i in range(16)]
ACTIVE = replace(CANARY, against_hash=LINEAR.theta.content_hash)
JUDGING = [key for key in KEYS if shadows(ACTIVE, key)]


class Scaling(LinearEngine):
    """A candidate whose θ′ is off by a factor; with `broken` it raises, with NaN it explodes."""

    def __init__(self, factor: float, broken: bool = False) -> None:
        self._factor, self._broken = np.float32(factor), broken

    def adapt(self, episodes: Sequence[Episode]) -> list[Adaptation]:
        if self._broken:
            raise RuntimeError("no such kernel")
        scaled = [replace(e, y_support_SE=e.y_support_SE * self._factor) for e in episodes]
        return [replace(a, finite=bool(np.isfinite(self._factor))) for a in super().adapt(scaled)]


def shadow(
    candidate: AdaptationEngine,
    active: AdaptationEngine = LINEAR,
    shape: WindowShape = POLICY.shape,
) -> Shadow:
    return Shadow(ACTIVE, lambda key: shadows(ACTIVE, key), (active, candidate), shape, TOPIC)


def run(
    candidate: AdaptationEngine | None,
    active: AdaptationEngine = LINEAR,
    events: int = 16,
    outbox: type[Outbox] | None = None,
) -> tuple[World, Worker]:
    world = World()
    worker = Worker(world, engine=active)
    worker.begin()
    if candidate:
        worker.loop.shadow(shadow(candidate, active))
    for number in range(events):
        for key in KEYS:
            world.feed(key, seed=number)
        worker.drain()
    return world, worker


def heard(world: World) -> list[Heard]:
    return [decode_evidence(_Record(m)) for m in world.of(TOPIC)]


class _Record:
    offset, timestamp, headers = 0, 0, ()

    def __init__(self, sent: Message) -> None:
        self.key, self.value = sent.key, sent.value


def test_every_judging_stream_speaks_once_and_no_other() -> None:
    world, _ = run(Scaling(0.5))
    said = heard(world)
    assert sorted(h.stream for h in said) == sorted(JUDGING)
    for _, _, evidence in said:
        assert evidence.n == JUDGEMENTS * POLICY.shape.query_size
        assert -1 <= evidence.d < 0  # half the targets: worse
        assert evidence.d == pytest.approx((evidence.cold + evidence.full) / 2)
        assert evidence.canary == CANARY.epoch


def test_a_candidate_that_is_the_active_one_is_exactly_as_good() -> None:
    world, _ = run(Scaling(1.0))
    assert {h.evidence.full for h in heard(world)} == {0.0}
    assert {h.evidence.cold for h in heard(world)} == {0.0}


def engines() -> list[tuple[Engine, Engine]]:
    def engine(theta: MetaInit) -> Engine:
        return Engine(theta, "cpu", support_capacity=6, query_capacity=2)

    attention = fresh_theta_of_kind(
        (D, 8, E), "attention", "maml", Loss.from_config({"kind": "mse"}), "gelu", "none", 2, 3
    )
    mlp = replace(fresh_meta_init(D, E, 8, seed=1), facts={"training": "stands for a trained θ"})
    return [
        (engine(mlp), engine(fresh_meta_init(D, E, 8, seed=2))),
        (engine(attention), engine(mlp)),
        (engine(mlp), engine(attention)),
    ]


@pytest.mark.parametrize("case", range(3))
def test_what_is_published_is_the_same_to_the_bit(case: int) -> None:
    active, candidate = engines()[case]
    alone, _ = run(None, active, events=14)
    beside, _ = run(candidate, active, events=14)
    assert beside.of(TOPIC)
    assert beside.of(TOPICS.mappings) == alone.of(TOPICS.mappings)
    assert beside.topic.committed == alone.topic.committed


def test_what_breaks_the_candidate_ends_the_trial_and_not_the_turn() -> None:
    world = World()
    worker = Worker(world)
    worker.begin()
    worker.loop.shadow(shadow(Scaling(1.0, broken=True)))
    for key in KEYS:
        world.feed(key, 6)
    faults = [r.shadow.fault for r in worker.drain() if r.shadow.fault]
    assert faults == ["RuntimeError: no such kernel"]
    assert set(world.newest()) == set(KEYS)


class Refusing:
    """An outbox that does not take evidence."""

    def __init__(self, port: Outbox, failing: list[bool]) -> None:
        self._port, self._failing = port, failing

    def send(self, messages: Sequence[Message]) -> None:
        if self._failing[0] and any(m.topic == TOPIC for m in messages):
            raise Unavailable("kafka", "no such topic")
        self._port.send(messages)

    def close(self) -> None:
        self._port.close()


def test_a_topic_that_takes_no_evidence_ends_the_trial_and_not_the_turn() -> None:
    world, failing = World(), [True]
    worker = Worker(world, outbox=lambda port: Refusing(port, failing))
    worker.begin()
    worker.loop.shadow(shadow(Scaling(0.5)))
    reasons = []
    for number in range(16):
        for key in KEYS:
            world.feed(key, seed=number)
        reasons += [r.shadow.reason for r in worker.drain() if r.shadow.fault]
    assert reasons == ["no_evidence"]
    assert not world.of(TOPIC)
    alone, _ = run(None)
    assert world.of(TOPICS.mappings) == alone.of(TOPICS.mappings)


class Counting:
    """An outbox that fails once, at its n-th call."""

    def __init__(self, port: Outbox, failing: int = -1) -> None:
        self._port, self._failing = port, failing
        self.topics: list[str] = []

    def send(self, messages: Sequence[Message]) -> None:
        self.topics.append(messages[0].topic)
        if len(self.topics) == self._failing:
            raise Unavailable("kafka", "away")
        self._port.send(messages)

    def close(self) -> None:
        self._port.close()


def test_streams_whose_evidence_was_lost_begin_again() -> None:
    world, _, outbox = run_counting(-1)
    mappings_before_evidence = outbox.topics.index(TOPIC)  # the call before it, from 1
    assert sorted(h.stream for h in heard(world)) == sorted(JUDGING)
    failed, recovered, _ = run_counting(mappings_before_evidence)
    assert recovered == 1
    assert sorted(h.stream for h in heard(failed)) == sorted(JUDGING)


def run_counting(failing: int) -> tuple[World, int, Counting]:
    """Returns the world, how often the worker recovered, and the outbox."""
    world, recovered = World(), 0
    outbox = Counting(world.outbox, failing)
    worker = Worker(world, outbox=lambda _: outbox)
    worker.begin()
    worker.loop.shadow(shadow(Scaling(0.5)))
    for number in range(30):
        for key in KEYS:
            world.feed(key, seed=number)
        try:
            worker.drain()
        except Unavailable:
            worker.loop.recover()
            recovered += 1
    return world, recovered, outbox


def test_judging_takes_the_share_of_the_time_that_it_was_given() -> None:
    judging = shadow(Scaling(0.5))
    judging.spent(10.0, judging_s=0.9, adapting_s=1.0)  # 0.3 earned
    nothing: Any = ([], [], lambda cut: None, lambda cut: 0)
    assert judging._left_s == pytest.approx(-0.6)
    assert judging.judge(*nothing) == ([], 0)
    judging.spent(20.0, 0.0, 1.0)  # 0.3 for the adapting, 0.1 for the time
    assert judging._left_s == pytest.approx(-0.2)
    judging.spent(1_000.0, 0.0, 1.0)
    assert judging._left_s == 1.0


@pytest.mark.parametrize(
    ("active", "candidate", "found"),
    [
        (1.0, 1.0, 0.0),
        (3.0, 1.0, 0.5),
        (1.0, 3.0, -0.5),
        (1.0, 0.0, 1.0),
        (0.0, 0.0, 0.0),
        (1.0, math.nan, -1.0),
        (math.inf, 1.0, 1.0),
        (math.nan, math.inf, 0.0),
        (1e308, 1.7e308, 0.0),
        (None, 1.0, None),
        (1.0, None, None),
    ],
)
def test_the_difference_is_bounded_whatever_the_losses(
    active: float | None, candidate: float | None, found: float | None
) -> None:
    assert loss_difference(active, candidate) == found


def test_adaptations_that_are_not_finite_are_as_bad_as_can_be_and_counted() -> None:
    world, _ = run(Scaling(math.nan))
    assert heard(world)
    for _, _, evidence in heard(world):
        assert evidence.d == evidence.cold == evidence.full == -1.0
        assert evidence.failed == 2 * JUDGEMENTS
