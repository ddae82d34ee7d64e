"""How the loop decides. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from daemon.turn.batching import BatchPolicy
from daemon.turn.ownership import StartPolicy
from daemon.turn.window import WindowShape
from daemon.wire.paired_event import EventLimits


@dataclass(frozen=True, slots=True)
class LoopPolicy:
    """How the loop decides."""

    shape: WindowShape
    batch: BatchPolicy
    limits: EventLimits
    start: StartPolicy
    publish_interval_s: float
    max_poll_records: int
    max_resident_streams: int
    verify_interval_s: float
    turn_interval_s: float = 0.0
    adapt_every: int = 1
    adapt_latest_s: float = 1.0

    @property
    def slots(self) -> int:
        """Streams in memory at most: the busy are not let go, renewals among them, and a turn takes
        in its records' streams, those due and those renewed before it lets others go."""
        return 1 + self.max_resident_streams + self.max_poll_records + 3 * self.batch.max_batch
