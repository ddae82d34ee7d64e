"""Health: alive while the loop turns, ready while it does its work."""

from __future__ import annotations

import json

import pytest

from daemon.errors import Unavailable
from daemon.turn.report import Holdings, TurnReport
from daemon.worker.health import Health, Snapshot

STARTED_AT = 1_000.0
"""Unix time."""
BEGAN = 5_000.0
"""On the monotonic clock."""


@pytest.fixture
def health() -> Health:
    snapshot = Snapshot("w", "0.1", "θ-1", "cpu", started_at=STARTED_AT)
    return Health(snapshot, liveness_max_age_s=60.0, now=BEGAN)


def turn(**changes: object) -> TurnReport:
    report = TurnReport("w-1", holdings=Holdings(assigned=3, streams=2, lag={0: 5, 1: 0}))
    for name, value in changes.items():
        setattr(report, name, value)
    return report


@pytest.mark.parametrize(("age_s", "live"), [(0, True), (60, True), (60.1, False), (1e6, False)])
def test_a_worker_lives_while_its_last_turn_is_recent(
    health: Health, age_s: float, live: bool
) -> None:
    assert health.live(BEGAN + age_s)[0] == live
    health.finished(turn(), joined=True, now=BEGAN + 500, at=STARTED_AT + 500)
    assert health.live(BEGAN + 500 + age_s)[0] == live


@pytest.mark.parametrize("jump_s", [-1e9, -3_600.0, 3_600.0, 1e9])
def test_a_jump_of_the_wall_clock_neither_kills_nor_hides(health: Health, jump_s: float) -> None:
    health.finished(turn(), joined=True, now=BEGAN + 10, at=STARTED_AT + jump_s)
    assert health.live(BEGAN + 70)[0]
    assert not health.live(BEGAN + 70.1)[0]


def test_a_turn_that_gave_up_is_a_sign_of_life_and_not_of_readiness(health: Health) -> None:
    health.finished(turn(), joined=True, now=BEGAN, at=STARTED_AT)
    health.gave_up(Unavailable("redis", "no answer"), now=BEGAN + 50)
    assert health.live(BEGAN + 100)[0]
    assert health.ready() == (False, "redis: no answer")
    health.finished(turn(), joined=True, now=BEGAN + 51, at=STARTED_AT + 51)
    assert health.ready()[0]


def test_what_a_worker_still_lacks_to_be_ready(health: Health) -> None:
    assert health.ready() == (False, "no turn finished yet")
    health.finished(turn(), joined=False, now=BEGAN, at=STARTED_AT)
    assert health.ready() == (False, "the consumer group has assigned no partitions yet")
    health.finished(turn(), joined=True, now=BEGAN, at=STARTED_AT)
    assert health.ready() == (True, "3 partitions, θ θ-1")
    health.stopping()
    assert health.ready() == (False, "stopping")


def test_the_status_tells_everything_and_is_json(health: Health) -> None:
    health.finished(turn(events=4, pairs=5), joined=True, now=BEGAN + 1, at=STARTED_AT + 1)
    health.finished(turn(events=1, pairs=1), joined=True, now=BEGAN + 2, at=STARTED_AT + 2)
    status = json.loads(json.dumps(health.status(BEGAN + 3)))
    assert status["totals"] == {
        "events": 5,
        "pairs": 6,
        "dead_letters": 0,
        "adaptations": 0,
        "mappings_published": 0,
    }
    assert (status["live"], status["ready"], status["why"]) == (True, True, "3 partitions, θ θ-1")
    assert (status["last_turn"], status["last_turn_at"]) == ("w-1", STARTED_AT + 2)
    assert status["lag"] == {"0": 5, "1": 0}
    assert (status["assigned_partitions"], status["streams"]) == (3, 2)


def test_a_theta_that_is_refused_is_told_until_it_is_settled(health: Health) -> None:
    refusal = {"version": "θ-2", "reason": "missing", "detail": "no θ 'θ-2' is published"}
    health.finished(turn(), joined=True, now=BEGAN, at=STARTED_AT)
    health.refused(refusal)
    assert health.status(BEGAN)["meta_init_refused"] == refusal
    assert health.ready() == (True, "3 partitions, θ θ-1")
    health.serves("θ-3", "ab" * 32, "cuda:1")
    status = health.status(BEGAN)
    assert (status["meta_init"], status["meta_init_hash"]) == ("θ-3", "ab" * 32)
    assert status["device"] == "cuda:1"
    assert status["meta_init_refused"] is None
    health.refused(refusal)
    health.refused(None)
    assert health.status(BEGAN)["meta_init_refused"] is None


def test_a_snapshot_taken_is_never_changed(health: Health) -> None:
    before = health.snapshot
    health.finished(turn(events=4), joined=True, now=BEGAN + 1, at=STARTED_AT + 1)
    assert before.totals == {}
    assert before.last_turn is None
