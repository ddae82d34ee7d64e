"""How the loop decides. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from daemon.batching import BatchPolicy
from daemon.ownership import StartPolicy
from daemon.window import WindowShape
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
        """Streams in memory at most: within a turn some more come before others are let go."""
        return self.max_resident_streams + self.max_poll_records + 2 * self.batch.max_batch
