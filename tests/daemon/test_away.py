"""How long a service has been away: from the last good turn, by reason, whatever the timeouts."""

from __future__ import annotations

from daemon.errors import Refused, Unavailable
from daemon.worker.away import AwayTime, Cause

SILENT = Cause("redis", "no_answer")


def test_a_turn_that_gives_up_after_two_minutes_was_two_minutes_without_the_service() -> None:
    away = AwayTime(0.0).answered(100.0).gave_up(Unavailable("redis", "silent"), 220.0)
    assert away.seconds(220.0) == {SILENT: 120.0}
    assert away.seconds(250.0) == {SILENT: 150.0}
    assert away.answered(260.0).seconds(999.0) == {SILENT: 160.0}


def test_nothing_counts_while_turns_end_well() -> None:
    away = AwayTime(0.0).answered(10.0).answered(20.0)
    assert away.seconds(30.0) == {}


def test_each_reason_and_service_counts_for_itself() -> None:
    away = AwayTime(0.0).gave_up(Unavailable("redis", "full", "unwell"), 1.0)
    away = away.gave_up(Refused("kafka", "no right"), 3.0).gave_up(Unavailable("redis", ""), 6.0)
    assert away.answered(10.0).seconds(11.0) == {
        Cause("redis", "unwell"): 1.0,
        Cause("kafka", "refused"): 2.0,
        SILENT: 7.0,
    }


def test_a_service_that_flaps_is_away_for_the_time_that_it_is() -> None:
    away = AwayTime(0.0)
    for turn in range(10):
        away = away.gave_up(Unavailable("redis", ""), turn * 10 + 4.0).answered(turn * 10 + 5.0)
        away = away.answered(turn * 10 + 10.0)
    assert away.seconds(200.0) == {SILENT: 50.0}


def test_a_clock_that_stands_still_takes_nothing_back() -> None:
    away = AwayTime(5.0).gave_up(Unavailable("redis", ""), 5.0)
    assert away.seconds(4.0) == {SILENT: 0.0}
