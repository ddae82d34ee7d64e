"""Results that are awaited later: of work on another thread, or of a request to a broker.

`concurrent.futures.Future` is a Pending, and every executor of the standard library an Executor.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


class Pending(Protocol[T_co]):
    """A result that may not be there yet."""

    def result(self) -> T_co:
        """Waits for the result and returns it, or raises what prevented it; each time it is
        called."""


@dataclass(frozen=True, slots=True)
class Done(Generic[T_co]):
    """A Pending whose result was there at once."""

    value: T_co

    def result(self) -> T_co:
        """Returns the value."""
        return self.value


@dataclass(frozen=True, slots=True)
class Later(Generic[T_co]):
    """A Pending that a function waits for."""

    wait: Callable[[], T_co]

    def result(self) -> T_co:
        """Returns what the function returns."""
        return self.wait()


class Executor(Protocol):
    """Runs work, one piece after another, in the order in which it was submitted."""

    def submit(self, work: Callable[[], T], /) -> Pending[T]:
        """Starts the work and returns its result to come."""


class Inline:
    """An Executor without a thread: the work has ended when `submit` returns."""

    def submit(self, work: Callable[[], T], /) -> Pending[T]:
        """Runs the work. What it raises is raised by the result."""
        future: Future[T] = Future()
        try:
            future.set_result(work())
        except Exception as e:
            future.set_exception(e)
        return future
