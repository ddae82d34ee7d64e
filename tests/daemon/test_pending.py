"""Submitted work ends in order, and its outcome is told where it is awaited."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from threading import Event

import pytest

from daemon.turn.pending import Done, Executor, Inline


@pytest.fixture(params=["inline", "a thread"])
def executor(request: pytest.FixtureRequest) -> Iterator[Executor]:
    if request.param == "inline":
        yield Inline()
    else:
        with ThreadPoolExecutor(max_workers=1) as thread:
            yield thread


def test_results_come_in_the_order_of_submission(executor: Executor) -> None:
    done: list[int] = []

    def work(number: int) -> int:
        done.append(number)
        return number

    pending = [executor.submit(partial(work, number)) for number in range(5)]
    assert [each.result() for each in pending] == done == [0, 1, 2, 3, 4]


def test_a_failure_is_raised_each_time_the_result_is_asked_for(executor: Executor) -> None:
    def fail() -> int:
        raise ValueError("no")

    pending = executor.submit(fail)
    for _ in range(2):
        with pytest.raises(ValueError, match="no"):
            pending.result()


def test_a_thread_works_while_the_caller_goes_on() -> None:
    may_end = Event()
    with ThreadPoolExecutor(max_workers=1) as thread:
        pending = thread.submit(lambda: may_end.wait(10))
        may_end.set()  # were the work done within `submit`, nobody would set this
        assert pending.result()


def test_what_is_done_has_its_result() -> None:
    assert Done(3).result() == 3
