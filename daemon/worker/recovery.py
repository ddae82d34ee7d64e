"""Whether recovery gets a worker anywhere. Pure.

A worker whose Redis keeps losing things can be busy for ever: it recovers, reads the same events
again, and loses the result once more, while each turn by itself goes well. So turns that end well
are not enough to call it ready.
"""

from __future__ import annotations

from daemon.turn.report import TurnReport
from daemon.turn.streams import StreamId

MOST_RECOVERIES = 3
"""After so many without progress something is wrong that recovery does not mend."""
RESTORED_AGAIN_S = 60.0
"""For so long after windows were lost again that had just been restored, more losses are likely."""


class RecoveryProgress:
    """Takes in how turns end, and says what keeps the worker from getting further.

    There is progress when a partition is committed beyond any offset committed before, or when
    nothing is left to be read.
    """

    def __init__(self) -> None:
        self._furthest: dict[int, int] = {}
        self._recoveries = 0
        self._well = True
        self._why = ""
        self._restored: set[StreamId] = set()
        self._restored_at = 0.0
        self._again: tuple[float, int] | None = None

    def gave_up(self, why: str) -> None:
        """Takes in a turn that ended early. Several in a row are one recovery."""
        if self._well:
            self._recoveries += 1
        self._well, self._why = False, why

    def finished(self, report: TurnReport, at: float) -> None:
        """Takes in a turn that ended well, `at` seconds."""
        self._well = True
        further = {
            partition: offset
            for partition, offset in report.committed.items()
            if offset > self._furthest.get(partition, -1)
        }
        self._furthest |= further
        held = report.holdings
        nothing_left = held.lag and not (any(held.lag.values()) or held.changed)
        if further or nothing_left:
            self._recoveries = 0
        self._note_restored(report, at)

    def _note_restored(self, report: TurnReport, at: float) -> None:
        if self._restored and at - self._restored_at > RESTORED_AGAIN_S:
            self._restored, self._again = set(), None
        now = {StreamId(p, key) for p, keys in report.restored.items() for key in keys}
        if now:
            self._restored_at = at
        if again := len(now & self._restored):
            self._again = at, again
        elif self._again is not None and at - self._again[0] > RESTORED_AGAIN_S:
            self._again = None
        self._restored |= now

    @property
    def stalled(self) -> str | None:
        """What keeps the worker from getting further, in a line; None when nothing does."""
        if self._recoveries >= MOST_RECOVERIES:
            return f"recovered {self._recoveries} times and got no further; last: {self._why}"
        if self._again is not None:
            return (
                f"redis: {self._again[1]} windows were lost again soon after they were restored; "
                "does it evict keys (maxmemory-policy)?"
            )
        return None
