"""Which streams are due, how long to wait for more of them, and when to publish. Pure: time is an
argument, in seconds on one monotonic clock.
"""

from __future__ import annotations

import heapq
import math
from dataclasses import dataclass
from enum import Enum

from daemon.turn.streams import LastPublication, StreamId
from model.values.gate import Outcome


@dataclass(frozen=True, slots=True)
class BatchPolicy:
    """When a batch of changed streams is adapted: once it is full, or once its oldest stream has
    waited long enough."""

    max_batch: int
    max_wait_s: float


class When(Enum):
    """When a mapping is published, where that is not a later time."""

    NOW = "now"
    NEVER = "never"


def when_to_publish(
    now: float, interval_s: float, last: LastPublication | None, outcome: Outcome
) -> When | float:
    """Returns NOW, NEVER, or the later time at which to publish a mapping of this outcome.

    An adapted mapping is published at most once in `interval_s`, the fallback once until an
    adapted mapping follows it, and either at once when the gate is found to have changed its mind.
    """
    if last is None or last.outcome.is_fallback != outcome.is_fallback:
        return When.NOW
    if outcome.is_fallback:
        return When.NEVER
    due = last.at + interval_s
    return When.NOW if now >= due else due


class Schedule:
    """The streams that wait: changed ones for a batch, deferred ones for a time of their own.

    Changed streams are due in the order in which they were first marked. Deferred streams lie in a
    heap by the time at which they are due. An entry of the heap whose stream is no longer deferred
    to that time is stale: it is skipped, or used again when the stream is deferred to that time.
    Of both, whichever has waited longest comes first, so that neither starves the other.
    """

    def __init__(self, policy: BatchPolicy) -> None:
        self._policy = policy
        self._changed: dict[StreamId, float] = {}
        self._deferred: dict[StreamId, float] = {}
        self._heap: list[tuple[float, StreamId]] = []
        self._in_heap: set[tuple[float, StreamId]] = set()

    def __contains__(self, stream: StreamId) -> bool:
        return stream in self._changed or stream in self._deferred

    def is_changed(self, stream: StreamId) -> bool:
        """Returns whether the stream changed and was not adapted since."""
        return stream in self._changed

    @property
    def changed_count(self) -> int:
        """How many streams changed and were not adapted since."""
        return len(self._changed)

    @property
    def deferred_count(self) -> int:
        """How many streams are to be adapted and published at a later time."""
        return len(self._deferred)

    def changed(self, stream: StreamId, at: float) -> None:
        """Notes that the stream's window changed at this time; an earlier note counts instead."""
        self._changed.setdefault(stream, at)

    def defer(self, stream: StreamId, until: float) -> None:
        """Makes the stream due at this time even if it does not change again; an earlier time
        counts instead."""
        if until < self._deferred.get(stream, math.inf):
            self._deferred[stream] = until
            if (until, stream) not in self._in_heap:
                heapq.heappush(self._heap, (until, stream))
                self._in_heap.add((until, stream))

    def forget(self, stream: StreamId) -> None:
        """Removes the stream from both queues."""
        self._changed.pop(stream, None)
        self._deferred.pop(stream, None)

    def drop(self, partition: int) -> None:
        """Removes the streams of a partition from both queues, evicted streams included."""
        for waiting in (self._changed, self._deferred):
            for stream in [stream for stream in waiting if stream.partition == partition]:
                self.forget(stream)

    def pop_due(
        self, now: float, most: int | None = None, *, at_once: bool = False
    ) -> list[StreamId]:
        """Removes at most `most` streams that are due from both queues (None: `max_batch`), and
        returns them: those that have waited longest. Changed ones wait for a batch unless they
        shall go `at_once`, deferred ones only for their time.
        """
        most = self._policy.max_batch if most is None else most
        changed = bool(self._changed) and (at_once or self._changed_wait_s(now) <= 0)
        due: list[StreamId] = []
        while len(due) < most:
            until = self._next_deferred()
            if until is not None and until > now:
                until = None
            marked = next(iter(self._changed.items()), None) if changed else None
            if marked is not None and (until is None or marked[1] < until):
                due.append(marked[0])
            elif until is not None:
                due.append(self._pop())
            else:
                break
            self.forget(due[-1])
        return due

    def wait_s(self, now: float, at_most_s: float) -> float:
        """Returns how long the loop may wait for records before a stream is due."""
        wait = self.batch_wait_s(now, at_most_s)
        until = self._next_deferred()
        return wait if until is None else min(wait, max(0.0, until - now))

    def batch_wait_s(self, now: float, at_most_s: float) -> float:
        """Returns how long the loop may wait before the changed streams are due."""
        return min(at_most_s, self._changed_wait_s(now)) if self._changed else at_most_s

    def _changed_wait_s(self, now: float) -> float:
        """Returns how long the changed streams still wait for a full batch."""
        if len(self._changed) >= self._policy.max_batch:
            return 0.0
        oldest = min(self._changed.values())  # of fewer than a batch
        return max(0.0, oldest + self._policy.max_wait_s - now)

    def _next_deferred(self) -> float | None:
        while self._heap and self._deferred.get(self._heap[0][1]) != self._heap[0][0]:
            self._pop()
        return self._heap[0][0] if self._heap else None

    def _pop(self) -> StreamId:
        entry = heapq.heappop(self._heap)
        self._in_heap.discard(entry)
        return entry[1]
