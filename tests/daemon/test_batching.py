"""Laws of the schedule: nothing is lost, nothing waits too long, no batch is too large."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daemon.turn.batching import BatchPolicy, Schedule, When, when_to_publish
from daemon.turn.streams import LastPublication, StreamId
from model.values.gate import Outcome

POLICY = BatchPolicy(max_batch=3, max_wait_s=0.5)


def stream(number: int) -> StreamId:
    return StreamId(number % 2, str(number))


actions = st.lists(
    st.tuples(
        st.sampled_from(["change", "defer", "forget", "take"]),
        st.integers(0, 6),
        st.floats(0, 0.4, allow_nan=False),
    )
)


@given(actions)
def test_what_is_put_in_comes_out_once_in_batches_within_the_limit(
    steps: list[tuple[str, int, float]],
) -> None:
    schedule, now, waiting = Schedule(POLICY), 0.0, set[StreamId]()
    for action, number, dt in steps:
        now += dt
        match action:
            case "change":
                schedule.changed(stream(number), now)
                waiting.add(stream(number))
            case "defer":
                schedule.defer(stream(number), now + 3 * dt)
                waiting.add(stream(number))
            case "forget":
                schedule.forget(stream(number))
                waiting.discard(stream(number))
            case "take":
                due = schedule.pop_due(now)
                assert len(due) <= POLICY.max_batch
                assert len(set(due)) == len(due)
                assert set(due) <= waiting
                waiting -= set(due)
        assert {s for s in map(stream, range(7)) if s in schedule} == waiting
        assert schedule.changed_count <= len(waiting)
        assert schedule.deferred_count <= len(waiting)
    while waiting:
        due = schedule.pop_due(now + 100)
        assert due
        assert len(due) <= POLICY.max_batch
        waiting -= set(due)
    assert schedule.pop_due(now + 100) == []
    assert schedule.wait_s(now, 9) == 9


@given(st.lists(st.floats(0, 3, allow_nan=False), min_size=1, max_size=3))
def test_no_stream_waits_longer_than_max_wait(gaps: list[float]) -> None:
    """A loop that waits as long as it is told to, and no longer."""
    schedule, now, asked = Schedule(POLICY), 0.0, dict[StreamId, float]()
    for number, gap in enumerate(gaps):
        until = now + gap
        while now < until:
            now += min(max(schedule.wait_s(now, at_most_s=10), 1e-9), until - now)
            for due in schedule.pop_due(now):
                assert now - asked.pop(due) <= POLICY.max_wait_s + 1e-9
        schedule.changed(stream(number), now)
        asked[stream(number)] = now
    now += schedule.wait_s(now, at_most_s=10) + 1e-9
    assert all(now - at <= POLICY.max_wait_s + 1e-8 for at in asked.values())
    assert set(schedule.pop_due(now)) == set(asked)


def test_a_full_batch_does_not_wait() -> None:
    schedule = Schedule(POLICY)
    schedule.changed(stream(0), 1.0)
    schedule.changed(stream(1), 1.0)
    assert schedule.wait_s(1.0, 9) == pytest.approx(0.5)
    assert schedule.pop_due(1.0) == []
    schedule.changed(stream(2), 1.0)
    assert schedule.wait_s(1.0, 9) == 0
    assert schedule.pop_due(1.0) == [stream(0), stream(1), stream(2)]


def test_a_stream_that_changes_again_keeps_its_place() -> None:
    schedule = Schedule(POLICY)
    schedule.changed(stream(0), 1.0)
    schedule.changed(stream(1), 1.2)
    schedule.changed(stream(0), 1.4)
    assert schedule.wait_s(1.4, 9) == pytest.approx(0.1)
    assert schedule.pop_due(1.5) == [stream(0), stream(1)]


def test_a_put_off_publication_comes_at_its_time_though_nothing_changes() -> None:
    schedule = Schedule(POLICY)
    schedule.defer(stream(0), until=4.0)
    assert schedule.wait_s(3.0, 9) == 1.0
    assert schedule.wait_s(5.0, 9) == 0.0
    assert schedule.pop_due(3.9) == []
    assert schedule.pop_due(4.0) == [stream(0)]
    assert stream(0) not in schedule


def test_a_stream_put_off_twice_to_the_same_time_comes_once() -> None:
    schedule = Schedule(POLICY)
    for _ in range(2):
        schedule.defer(stream(0), until=4.0)
        schedule.forget(stream(0))
    schedule.defer(stream(0), until=4.0)
    assert schedule.pop_due(4.0) == [stream(0)]
    assert schedule.pop_due(4.0) == []


def test_under_load_put_off_publications_are_not_starved() -> None:
    """Their streams hold commits back: with every batch full of changed streams they would for
    ever."""
    schedule = Schedule(POLICY)
    schedule.defer(stream(99), until=1.0)
    for turn in range(5):
        for number in range(6):
            schedule.changed(stream(number), float(turn))
        if stream(99) in schedule.pop_due(float(turn)):
            break
    else:
        pytest.fail("five full batches, and the publication still waits")


def test_changed_streams_are_not_starved_by_put_off_ones_either() -> None:
    schedule, taken = Schedule(POLICY), set[StreamId]()
    for number in range(12):
        schedule.defer(stream(number), until=0.0)
    schedule.changed(stream(50), 0.0)
    for turn in range(1, 6):
        taken |= set(schedule.pop_due(float(turn)))
    assert stream(50) in taken


def test_a_new_stream_is_not_starved_by_streams_that_are_put_off_again_and_again() -> None:
    """More of them are due than a batch takes: each is put off again as soon as it is published."""
    schedule = Schedule(POLICY)
    for number in range(12):
        schedule.defer(stream(number), until=0.0)
    schedule.changed(stream(50), 0.5)
    for turn in range(1, 8):
        due = schedule.pop_due(float(turn))
        if stream(50) in due:
            break
        for again in due:
            schedule.defer(again, until=turn + 0.5)
    else:
        pytest.fail("seven full batches, and the new stream still waits")


def test_of_two_times_the_earlier_counts() -> None:
    schedule = Schedule(POLICY)
    for until in (4.0, 3.0, 5.0):
        schedule.defer(stream(0), until)
    assert schedule.pop_due(2.9) == []
    assert schedule.pop_due(3.0) == [stream(0)]
    assert schedule.pop_due(9.0) == []


def test_streams_put_off_in_every_turn_take_no_more_memory() -> None:
    schedule = Schedule(POLICY)
    for turn in range(1_000):
        schedule.changed(stream(1), turn / 1_000)
        schedule.forget(stream(1))
        schedule.defer(stream(1), until=86_400.0)
    assert len(schedule._heap) == 1


@pytest.mark.parametrize(
    ("last", "outcome", "expected"),
    [
        (None, Outcome.ADAPTED, When.NOW),
        (None, Outcome.WORSE, When.NOW),
        (None, Outcome.NOT_FINITE, When.NOW),
        (LastPublication(9.5, Outcome.ADAPTED), Outcome.RIDGE, 10.5),
        (LastPublication(9.9, Outcome.RIDGE), Outcome.WORSE, When.NOW),
        (LastPublication(9.5, Outcome.ADAPTED), Outcome.ADAPTED, 10.5),
        (LastPublication(9.0, Outcome.ADAPTED), Outcome.ADAPTED, When.NOW),
        (LastPublication(9.9, Outcome.ADAPTED), Outcome.WORSE, When.NOW),
        (LastPublication(9.9, Outcome.ADAPTED), Outcome.NOT_FINITE, When.NOW),
        (LastPublication(9.9, Outcome.WORSE), Outcome.ADAPTED, When.NOW),
        (LastPublication(0.0, Outcome.WORSE), Outcome.WORSE, When.NEVER),
        (LastPublication(0.0, Outcome.WORSE), Outcome.NOT_FINITE, When.NEVER),
        (LastPublication(0.0, Outcome.NOT_FINITE), Outcome.NOT_FINITE, When.NEVER),
    ],
)
def test_when_an_outcome_is_published(
    last: LastPublication | None, outcome: Outcome, expected: When | float
) -> None:
    assert when_to_publish(now=10.0, interval_s=1.0, last=last, outcome=outcome) == expected


def test_a_partition_that_goes_takes_all_that_waits_along() -> None:
    schedule = Schedule(BatchPolicy(max_batch=10, max_wait_s=0.0))
    for partition in (0, 1):
        schedule.changed(StreamId(partition, "changed"), 1.0)
        schedule.defer(StreamId(partition, "deferred"), 2.0)
    schedule.drop(0)
    assert schedule.pop_due(3.0) == [StreamId(1, "changed"), StreamId(1, "deferred")]
    assert schedule.changed_count == schedule.deferred_count == 0
