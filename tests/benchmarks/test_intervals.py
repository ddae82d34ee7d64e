"""Publish intervals out of runs."""

import pytest

from benchmarks.stream.drain import Drain
from benchmarks.stream.plan import StreamPlan
from benchmarks.stream.stream import STAGE_S, PublishIntervals, seconds_per_event
from benchmarks.stream.worker_process import Sample

PUBLISHING = STAGE_S % "publish"
PLAN = StreamPlan(streams=1_000, do_nothing_share=0.1, first_interval_ms=700, longest_steady_s=10.0)


def drain(events: int, mappings: int, publishing_s: float = 0.0) -> Drain:
    """In two seconds."""
    start = Sample(10.0, 500, {}, {PUBLISHING: 3.0})
    end = Sample(12.0, 500 + events, {}, {PUBLISHING: 3.0 + publishing_s})
    return Drain(start, end, mappings, 700)


def test_a_scenario_begins_with_the_plan_s_interval_and_others_have_none() -> None:
    intervals = PublishIntervals(PLAN)
    assert intervals.of("every_fourth") == 700
    assert intervals.of("do_nothing") is None
    intervals.learn("do_nothing", drain(2_000, 400))
    assert intervals.of("do_nothing") is None


def test_the_interval_gives_as_many_mappings_as_the_do_nothing_worker_made() -> None:
    intervals = PublishIntervals(PLAN)
    intervals.learn("do_nothing", drain(2_000, mappings=400))  # 0.2 per event
    intervals.learn("every_fourth", drain(2_000, mappings=400))  # 1,000 events/s: 200 mappings/s
    assert intervals.of("every_fourth") == 5_000


def test_it_is_no_longer_than_a_run() -> None:
    intervals = PublishIntervals(PLAN)
    intervals.learn("every_fourth", drain(20, mappings=2))
    assert intervals.of("every_fourth") == 10_000


def test_half_the_mappings_take_half_the_time_to_publish() -> None:
    run = drain(1_000, mappings=200, publishing_s=1.0)  # 2 ms an event, 1 ms of it publishing
    assert seconds_per_event(run, 0.2) == pytest.approx(0.002)
    assert seconds_per_event(run, 0.1) == pytest.approx(0.0015)


def test_a_run_without_mappings_says_nothing_of_publishing() -> None:
    assert seconds_per_event(drain(1_000, mappings=0), 0.1) == pytest.approx(0.002)
