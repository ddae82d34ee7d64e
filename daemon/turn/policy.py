"""The numbers by which the loop decides, all in one value. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from daemon.turn.batching import BatchPolicy
from daemon.turn.ownership import StartPolicy
from daemon.turn.publishing import SLICE_BYTES
from daemon.turn.window import WindowShape
from daemon.wire.paired_event import EventLimits

IDLE_WAIT_S = 0.25
"""The longest that a turn waits for records, and so the longest until a stop request is noticed."""
DECODE_BUDGET_S = 5.0
"""After this long a turn decodes no further event and leaves the rest to the next turn: large
pictures must not make a turn longer than the consumer group and the supervisor allow."""
LONGEST_LULL_S = 0.1
"""A poll may wait so long for its turn."""
VERIFY_INTERVAL_S = 2.0
"""How often a worker asks, busy or idle, whether Kafka and Redis answer, whether its logs are still
the same and whether another worker has claimed a partition. One that was superseded finds out
within this time, well before the shortest session timeout that brokers accept (6 s); a few small
requests in two seconds cost nothing."""

KEEP_HOME_MS = 3_600_000
"""How old the note of a stream's partition may be when the stream comes into memory: an older one
is written again, so that it does not expire while the stream lives."""


@dataclass(frozen=True, slots=True)
class LoopPolicy:
    """How the loop decides. `daemon.config` says why each setting is what it is."""

    shape: WindowShape
    batch: BatchPolicy
    limits: EventLimits
    start: StartPolicy
    publish_interval_s: float
    """The shortest time between two mappings of a stream while the gate's outcome is the same."""
    max_poll_records: int
    max_resident_streams: int
    """How many streams stay in memory between turns."""
    verify_interval_s: float = VERIFY_INTERVAL_S
    turn_interval_s: float = 0.0
    """The shortest time between the beginnings of two turns."""
    publish_slice_bytes: int = SLICE_BYTES
    """After how many bytes of messages their acknowledgement is awaited."""
    adapt_every: int = 1
    """How many events of a stream make it due."""
    adapt_latest_s: float = 1.0
    """How long after its first event a stream with fewer events is due."""
    prequential_streams: int = 0
    """Of how many streams new pairs are scored by what was published."""
    drift: bool = True
    """Whether a stream that has changed loses the pairs from before."""

    @property
    def lull_s(self) -> float:
        """The time between the beginnings of two turns while events are few: they wait as long for
        a batch anyway. 0 where no turn waits for the next, or where batches wait for so long that
        events must be stored before."""
        wait_s = self.batch.max_wait_s
        return wait_s if 0 < self.turn_interval_s <= wait_s <= LONGEST_LULL_S else 0.0

    @property
    def slots(self) -> int:
        """The most streams in memory at any time: those that stay, and those that one turn may add
        before it evicts others. It may add a stream for each record that it polls (one at least),
        a batch of streams that are due, and a batch of renewals. A batch of busy streams, which
        are not evicted, may be beyond those that stay."""
        return 1 + self.max_resident_streams + self.max_poll_records + 3 * self.batch.max_batch
