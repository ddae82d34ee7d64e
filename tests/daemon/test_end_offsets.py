"""The lag from ends that are asked for now and then."""

from __future__ import annotations

from collections.abc import Collection
from concurrent.futures import Future

from daemon.adapters.end_offsets import ASK_INTERVAL_S, STALE_S, EndOffsets


class Broker:
    def __init__(self) -> None:
        self.asked: list[Future[dict[int, int]]] = []

    def __call__(self, partitions: Collection[int]) -> Future[dict[int, int]]:
        self.asked.append(Future())
        return self.asked[-1]


def test_an_end_is_known_once_it_is_answered() -> None:
    broker = Broker()
    ends = EndOffsets(broker)
    assert not ends.refresh([0, 1], 0.0)
    assert ends.lag({0: 3}, 0.0) == {}
    broker.asked[0].set_result({0: 10})
    assert ends.refresh([0, 1], 0.1)
    assert ends.lag({0: 3, 1: 5}, 0.1) == {0: 7}
    assert ends.lag({0: 10}, 0.1) == {0: 0}


def test_one_question_at_a_time_and_each_only_when_it_is_due() -> None:
    broker = Broker()
    ends = EndOffsets(broker)
    for now in (0.0, 0.5, 5.0):
        ends.refresh([0], now)
    assert len(broker.asked) == 1
    broker.asked[0].set_result({0: 1})
    ends.refresh([0], 5.1)
    assert len(broker.asked) == 2
    broker.asked[1].set_exception(TimeoutError())
    assert not ends.refresh([0], 5.2)
    ends.refresh([0], 5.1 + ASK_INTERVAL_S)
    assert len(broker.asked) == 3


def test_nothing_is_asked_without_partitions() -> None:
    broker = Broker()
    EndOffsets(broker).refresh([], 0.0)
    assert broker.asked == []


def test_a_position_beyond_the_end_that_was_heard_moves_it() -> None:
    ends = EndOffsets(Broker())
    ends.note({0: 10}, 0.0)
    assert ends.lag({0: 12}, 0.5) == {0: 0}
    assert ends.lag({0: 4}, 0.6) == {0: 8}
    ends.note({0: 3}, 1.0)  # the log is another one
    assert ends.lag({0: 3}, 1.0) == {0: 0}


def test_an_end_that_was_heard_long_ago_is_not_known() -> None:
    ends = EndOffsets(Broker())
    ends.note({0: 10}, 0.0)
    assert ends.lag({0: 4}, STALE_S) == {0: 6}
    assert ends.lag({0: 4}, STALE_S + 1) == {}
