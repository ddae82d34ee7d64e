"""Since when each partition's oldest event has been owed a mapping, read or not."""

from __future__ import annotations

from daemon.turn.report import TurnReport
from tests.daemon.lab import Worker, World, event, pair_of, partition_of, policy

A, B = partition_of("a"), partition_of("b")


def owed(report: TurnReport) -> dict[int, int | None]:
    return dict(report.holdings.owed_since_ms)


def fetch_nothing(worker: Worker) -> None:
    """From now on polls bring no records, as from a broker that does not serve them."""
    poll = worker.source.poll
    worker.source.poll = lambda timeout_s, most: poll(timeout_s, 0)  # type: ignore[assignment, method-assign]


def begun(world: World, publish_interval_s: float = 0.0, max_poll_records: int = 100) -> Worker:
    chosen = policy(publish_interval_s=publish_interval_s, max_poll_records=max_poll_records)
    worker = Worker(world, chosen)
    worker.begin()
    return worker


def test_nothing_is_owed_where_all_is_read_and_published() -> None:
    world = World()
    worker = begun(world)
    world.feed("a", 5)
    assert owed(worker.drain()[-1]) == {A: None, B: None}


def test_a_stream_with_too_few_pairs_is_owed_nothing() -> None:
    world = World()
    worker = begun(world)
    world.feed("a", 1)
    assert owed(worker.turn()) == {A: None, B: None}


def test_an_event_that_waits_for_its_publish_interval_is_owed_since_its_record() -> None:
    world = World()
    worker = begun(world, publish_interval_s=60.0)
    world.feed("a", 5)
    worker.drain_for(3)
    first = world.clock.wall_ms()
    world.feed("a")
    world.clock.at += 7
    world.feed("a")
    report = worker.turn(after_s=1)
    assert owed(report) == {A: first, B: None}
    assert owed(worker.turn(after_s=60)) == {A: None, B: None}


def test_a_backlog_is_as_old_as_the_newest_record_that_was_read() -> None:
    world = World()
    worker = begun(world, max_poll_records=2)
    recorded = []
    for number in range(6):
        recorded.append(world.clock.wall_ms())
        world.produce("aceg"[number % 4], event(pair_of("a", number)))
        world.clock.at += 10
    ages = [owed(worker.turn())[A] for _ in range(3)]
    assert ages == [recorded[1], recorded[3], None]


def test_what_comes_after_a_quiet_time_is_not_as_old_as_that() -> None:
    """The newest record that was read lies hours back, and what waits came a moment ago."""
    world = World()
    worker = begun(world, max_poll_records=1)
    world.feed("a")
    worker.drain()
    worker.turn(after_s=9_000)
    quiet_until = world.clock.wall_ms()
    world.feed("a", 3)
    fetch_nothing(worker)
    report = worker.turn(after_s=2)
    assert report.holdings.lag[A] == 3
    assert owed(report) == {A: quiet_until, B: None}
    assert owed(worker.turn(after_s=500))[A] == quiet_until


def test_what_waits_for_a_new_owner_is_at_least_as_old_as_its_tenure() -> None:
    world = World()
    world.feed("a", 3)
    world.clock.at += 50
    worker = Worker(world)
    fetch_nothing(worker)
    claimed = world.clock.wall_ms()
    worker.turn()
    report = worker.turn(after_s=100)
    assert report.holdings.lag[A] == 3
    assert owed(report) == {A: claimed, B: None}


def test_a_record_without_a_time_is_owed_since_it_can_be_told() -> None:
    world = World()
    worker = begun(world, publish_interval_s=60.0)
    world.feed("a", 5)
    worker.drain_for(3)
    for impossible in (0, -1, 1, 10**18):
        world.topic.produce(A, b"a", event(pair_of("a", 9)), timestamp_ms=impossible)
    now = world.clock.wall_ms()
    assert owed(worker.turn()) == {A: now, B: None}


def test_nothing_is_said_of_a_partition_whose_end_is_not_known() -> None:
    world = World()
    worker = begun(world)
    worker.source.lag = lambda: {B: 0}  # type: ignore[method-assign]
    assert owed(worker.turn()) == {B: None}
