"""Mappings go to Kafka in slices: what was acknowledged counts, and a slow broker stops no turn."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daemon.errors import Unavailable
from daemon.turn.ports import Outbox
from daemon.turn.publishing import PUBLISH_BUDGET_S, PublishingPace, size_of
from daemon.turn.renewals import RENEWING_TURN_S, RenewalPace
from daemon.wire.record import Message
from tests.daemon.lab import Worker, World, policy

KEYS = [f"stream-{number}" for number in range(8)]


def message(size: int) -> Message:
    return Message("t", None, bytes(size), ())


@given(st.lists(st.integers(0, 40)), st.integers(1, 100))
def test_slices_keep_the_order_and_only_their_last_message_exceeds_them(
    sizes: list[int], slice_bytes: int
) -> None:
    outgoing = [(message(size), number) for number, size in enumerate(sizes)]
    slices = list(PublishingPace(8, slice_bytes).slices(outgoing))
    assert [other for slice_ in slices for _, other in slice_] == list(range(len(sizes)))
    for slice_ in slices:
        assert slice_
        assert sum(size_of(m) for m, _ in slice_[:-1]) < slice_bytes


def test_a_message_is_made_only_when_the_slices_before_it_were_taken() -> None:
    made: list[int] = []

    def making() -> Iterator[tuple[Message, int]]:
        for number in range(6):
            made.append(number)
            yield message(10), number

    for count, _ in enumerate(PublishingPace(8, 20).slices(making()), 1):
        assert len(made) == 2 * count


def test_slices_shrink_at_failures_and_grow_again_to_what_they_were() -> None:
    pace = PublishingPace(8, 16)
    sizes = []
    for happened in [pace.failed] * 6 + [pace.acknowledged] * 6:
        happened()
        sizes.append(pace.slice_bytes)
    assert sizes == [8, 4, 2, 1, 1, 1, 2, 4, 8, 16, 16, 16]


def test_a_turn_that_runs_out_of_time_makes_the_next_ones_smaller() -> None:
    pace = PublishingPace(256)
    pace.ended(published=20, left=236)
    assert pace.mappings == 20
    pace.ended(published=3, left=0)  # no more were due: says nothing
    assert pace.mappings == 20
    for expected in (40, 80, 160, 256, 256):
        pace.ended(published=pace.mappings, left=0)
        assert pace.mappings == expected
    pace.ended(published=0, left=5)
    assert pace.mappings == 1


def test_renewals_leave_turns_short() -> None:
    pace = RenewalPace(max_batch=64)
    assert pace.most == 16
    for _ in range(3):
        pace.ended(RENEWING_TURN_S / 10)
    assert pace.most == 64
    pace.ended(RENEWING_TURN_S * 0.75)
    assert pace.most == 64
    for expected in (32, 16, 8, 4, 2, 1, 1):
        pace.ended(RENEWING_TURN_S * 2)
        assert pace.most == expected


class Hindered:
    """An Outbox that calls `before` before each send."""

    def __init__(self, port: Outbox, before: Callable[[Sequence[Message]], None]) -> None:
        self._port, self._before = port, before
        self.sizes: list[int] = []

    def send(self, messages: Sequence[Message]) -> None:
        self._before(messages)
        self._port.send(messages)
        self.sizes.append(len(messages))

    def close(self) -> None:
        self._port.close()


def hindered(
    world: World, before: Callable[[Sequence[Message]], None], **settings: float
) -> tuple[Worker, Hindered]:
    port = Hindered(world.outbox, before)
    return Worker(world, policy(**settings), outbox=lambda _: port), port  # type: ignore[arg-type]


@pytest.fixture
def world() -> World:
    world = World()
    for key in KEYS:
        world.feed(key, 4)
    return world


def test_a_turn_of_few_bytes_is_one_slice(world: World) -> None:
    worker, port = hindered(world, lambda _: None)
    worker.drain()
    assert port.sizes == [len(KEYS)]


def test_each_slice_is_acknowledged_alone(world: World) -> None:
    worker, port = hindered(world, lambda _: None, publish_slice_bytes=1)
    worker.drain()
    assert port.sizes == [1] * len(KEYS)
    whole = World()
    for key in KEYS:
        whole.feed(key, 4)
    Worker(whole).drain()
    assert [m.value for m in world.outbox.sent] != []
    assert {m.key for m in world.outbox.sent} == {m.key for m in whole.outbox.sent}


def test_what_was_acknowledged_is_committed_though_a_later_slice_fails(world: World) -> None:
    left = iter([True] * 5 + [False])

    def down(_: Sequence[Message]) -> None:
        if not next(left, True):
            raise Unavailable("kafka", "timed out")

    worker, port = hindered(world, down, publish_slice_bytes=1)
    worker.begin()
    with pytest.raises(Unavailable):
        worker.drain()
    acknowledged = sum(port.sizes)
    assert acknowledged == 5
    assert sum(world.topic.committed.values()) > 0
    worker.loop.recover()
    worker.drain()
    again = sum(port.sizes) - len(KEYS)
    assert again < acknowledged, "every mapping was made and sent once more"
    assert set(world.newest()) == set(KEYS)


def test_a_backlog_drains_past_a_broker_that_takes_one_mapping_in_a_delivery_timeout() -> None:
    """Whatever is larger times out."""
    world = World()
    for key in KEYS:
        world.feed(key, 20)

    def slow(messages: Sequence[Message]) -> None:
        if len(messages) > 1:
            raise Unavailable("kafka", "timed out")

    worker, _ = hindered(world, slow, publish_slice_bytes=64_000)
    for _ in range(60):
        try:
            worker.turn(after_s=0.01)
        except Unavailable:
            worker.loop.recover()
    assert set(world.newest()) == set(KEYS)
    assert sum(world.topic.committed.values()) == 20 * len(KEYS)


def test_a_slow_broker_lengthens_no_turn_and_the_rest_is_published_in_the_next_ones(
    world: World,
) -> None:
    def slow(_: Sequence[Message]) -> None:
        world.clock.sleep(PUBLISH_BUDGET_S * 0.4)

    worker, _ = hindered(world, slow, publish_slice_bytes=1)
    worker.begin()
    first = worker.turn()
    assert len(first.published) == 3  # at 0, 2 and 4 s; at 6 s the time is over
    second = worker.turn()
    assert len(second.verdicts) == 3, "streams were adapted that could not be published"
    worker.drain()
    assert set(world.newest()) == set(KEYS)
    assert sum(world.topic.committed.values()) == 4 * len(KEYS)


def test_another_worker_that_claims_between_two_slices_is_not_spoken_over(world: World) -> None:
    other = Worker(world, partitions=[])
    turns = iter(range(100))

    def claimed(_: Sequence[Message]) -> None:
        if next(turns) == 0:
            for partition in (0, 1):
                other.store.claim(partition, world.clock.wall_ms() + 1)

    worker, port = hindered(world, claimed, publish_slice_bytes=1)
    worker.begin()
    report = worker.turn()
    assert port.sizes == [1]
    assert report.lost == {0, 1}
