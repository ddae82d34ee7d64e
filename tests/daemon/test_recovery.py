"""A worker that recovers for ever says so, and one that recovers from an outage does not."""

from __future__ import annotations

from typing import Any

from daemon.turn.report import Holdings, TurnReport
from daemon.worker.recovery import RecoveryProgress


def turn(committed: int | None = None, lag: int = 5, **more: Any) -> TurnReport:
    held = Holdings(assigned=1, lag={0: lag})
    return TurnReport(
        "w", committed={} if committed is None else {0: committed}, holdings=held, **more
    )


def test_recoveries_without_progress_are_told() -> None:
    progress = RecoveryProgress()
    progress.finished(turn(100), 0)
    for recovery in range(3):
        assert progress.stalled is None, recovery
        progress.gave_up("redis: lost the epochs")
        progress.gave_up("redis: still")
        progress.finished(turn(40 + recovery), 1)  # reads again, and commits what it had before
    assert progress.stalled == "recovered 3 times and got no further; last: redis: still"
    progress.finished(turn(101), 2)
    assert progress.stalled is None


def test_a_long_outage_is_one_recovery() -> None:
    progress = RecoveryProgress()
    for _ in range(50):
        progress.gave_up("redis: gone")
    progress.finished(turn(), 0)
    assert progress.stalled is None


def test_a_worker_with_nothing_left_to_read_has_got_as_far_as_it_can() -> None:
    progress = RecoveryProgress()
    for _ in range(10):
        progress.gave_up("redis: gone")
        progress.finished(turn(lag=0), 0)
    assert progress.stalled is None


def test_windows_lost_again_are_told_until_it_ends() -> None:
    progress = RecoveryProgress()
    told = []
    for at, restored in [(10, ["a", "b"]), (20, ["c"]), (30, ["a", "c", "d"]), (80, []), (91, [])]:
        progress.finished(turn(at, restored={0: restored} if restored else {}), at)
        told.append(progress.stalled)
    assert [why is not None for why in told] == [False, False, True, True, False]
    assert "2 windows were lost again" in str(told[2])
    progress.finished(turn(95, restored={0: ["a"]}), 95)
    assert progress.stalled is None
