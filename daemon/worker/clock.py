"""The machine's clocks, as the loop's Clock."""

from __future__ import annotations

import time


class SystemClock:
    """The real time, see `daemon.turn.ports.Clock`."""

    def now(self) -> float:
        """Returns seconds on a monotonic clock."""
        return time.monotonic()

    def sleep(self, seconds: float) -> None:
        """Returns after so many seconds."""
        time.sleep(seconds)

    def wall_ms(self) -> int:
        """Returns milliseconds since 1970, UTC."""
        return time.time_ns() // 1_000_000
