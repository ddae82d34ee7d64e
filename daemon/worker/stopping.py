"""How the worker is told to stop, by a signal, and ends in time whatever hangs.

Nothing here takes a lock in a signal handler: a handler that interrupts the holder of a lock would
wait for it for ever, and `threading.Event.set` takes one.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from threading import Thread
from types import FrameType

CHECK_INTERVAL_S = 0.05
CUT_SHORT = 1
"""The exit code of a worker that did not end its turn in time."""


class Stop:
    """The request to stop: the first SIGTERM or SIGINT makes it, the second ends the process at
    once."""

    def __init__(self) -> None:
        self.requested = False

    def listen(self) -> None:
        """Handles the signals from now on. Call it in the main thread."""
        signal.signal(signal.SIGTERM, self._on_signal)
        signal.signal(signal.SIGINT, self._on_signal)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if self.requested:
            os._exit(128 + number)
        self.requested = True

    def wait(self, seconds: float) -> None:
        """Returns after so many seconds, or as soon as a stop is requested."""
        until = time.monotonic() + seconds
        while not self.requested and (left := until - time.monotonic()) > 0:
            time.sleep(min(CHECK_INTERVAL_S, left))

    def enforce(self, within_s: float, too_late: Callable[[], None]) -> None:
        """Ends the process `within_s` after the request, having called `too_late`. The next worker
        repeats what was cut short, as after a crash."""

        def watch() -> None:
            while not self.requested:
                time.sleep(CHECK_INTERVAL_S)
            time.sleep(within_s)
            too_late()
            os._exit(CUT_SHORT)

        Thread(target=watch, name="stop", daemon=True).start()
