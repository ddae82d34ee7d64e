"""Work beside the loop's thread ends in order, and its outcome is told where it is waited for."""

from __future__ import annotations

import threading
from functools import partial

import pytest

from daemon.turn.aside import Aside, OneThread, at_once


@pytest.fixture(params=["at once", "a thread"])
def aside(request: pytest.FixtureRequest) -> object:
    if request.param == "at once":
        yield at_once
    else:
        thread = OneThread("test")
        yield thread
        thread.close()


def test_the_result_is_told_when_it_is_asked_for(aside: Aside) -> None:
    done: list[int] = []

    def work(number: int) -> int:
        done.append(number)
        return number

    waits = [aside(partial(work, number)) for number in range(5)]
    assert [wait() for wait in waits] == done == [0, 1, 2, 3, 4]


def test_a_failure_is_told_when_it_is_asked_for_and_not_before(aside: Aside) -> None:
    def fail() -> int:
        raise ValueError("no")

    wait = aside(fail)
    for _ in range(2):
        with pytest.raises(ValueError, match="no"):
            wait()


def test_a_thread_works_while_the_caller_goes_on() -> None:
    thread, may_end = OneThread("test"), threading.Event()
    wait = thread(lambda: (may_end.wait(10), threading.current_thread().name)[1])
    may_end.set()  # were it done in the call itself, nobody would set this
    assert wait() == "test_0"
    thread.close()
