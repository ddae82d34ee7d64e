"""SIGINT and SIGTERM as one exception, for foreground commands that have servers to end."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn


class Interrupted(BaseException):
    """SIGINT or SIGTERM: no Exception, for only the command itself may catch it."""

    def __init__(self, number: int) -> None:
        self.number = number


@contextmanager
def signals_interrupt() -> Iterator[None]:
    """The first SIGINT or SIGTERM raises Interrupted; later ones do not disturb cleaning up."""
    both = (signal.SIGINT, signal.SIGTERM)

    def interrupt(number: int, _frame: FrameType | None) -> NoReturn:
        for each in both:
            signal.signal(each, signal.SIG_IGN)
        raise Interrupted(number)

    before = {number: signal.signal(number, interrupt) for number in both}
    try:
        yield
    finally:
        for number, action in before.items():
            signal.signal(number, action)
