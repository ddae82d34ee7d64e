"""Work that goes on beside the loop's thread: begun here, waited for there. Pure but for threads
that whoever wires the loop may give it."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol, TypeVar

T = TypeVar("T")


class Aside(Protocol):
    """Begins work and gives back what waits for its end."""

    def __call__(self, work: Callable[[], T], /) -> Callable[[], T]:
        """The returned function returns, or raises, what `work` did."""


def at_once(work: Callable[[], T], /) -> Callable[[], T]:
    """No thread: all is done before the call returns."""
    try:
        result = work()
    except Exception as e:
        failure = e

        def fail() -> T:
            raise failure

        return fail
    return lambda: result


class OneThread:
    """One thread, so that works end in the order in which they were begun."""

    def __init__(self, name: str) -> None:
        self._threads = ThreadPoolExecutor(max_workers=1, thread_name_prefix=name)

    def __call__(self, work: Callable[[], T], /) -> Callable[[], T]:
        """See Aside."""
        return self._threads.submit(work).result

    def close(self) -> None:
        """Wait for what was begun."""
        self._threads.shutdown()
