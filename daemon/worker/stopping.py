"""Being told to stop: by a signal, once; and stopping in time, whatever hangs.

Nothing here takes a lock in a signal handler: one that interrupts its own holder would wait for
ever, and `threading.Event.set` is such a one.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from threading import Thread
from types import FrameType

LOOK_EVERY_S = 0.05
CUT_SHORT = 1


class Stop:
    """Asked for by the first SIGTERM or SIGINT; the second ends the process as it stands."""

    def __init__(self) -> None:
        self.asked = False

    def listen(self) -> None:
        """Take the signals over; from the main thread."""
        signal.signal(signal.SIGTERM, self._hear)
        signal.signal(signal.SIGINT, self._hear)

    def _hear(self, number: int, frame: FrameType | None) -> None:
        if self.asked:
            os._exit(128 + number)
        self.asked = True

    def wait(self, seconds: float) -> None:
        """Until asked to stop, at most so long."""
        until = time.monotonic() + seconds
        while not self.asked and (left := until - time.monotonic()) > 0:
            time.sleep(min(LOOK_EVERY_S, left))

    def enforce(self, within_s: float, too_late: Callable[[], None]) -> None:
        """End the process `within_s` after it was asked to stop. Whatever is cut short here the
        next worker repeats, as after any crash."""

        def watch() -> None:
            while not self.asked:
                time.sleep(LOOK_EVERY_S)
            time.sleep(within_s)
            too_late()
            os._exit(CUT_SHORT)

        Thread(target=watch, name="stop", daemon=True).start()
