"""Which streams are due, when to stop waiting, what to publish. Pure: time is an argument.

All times are seconds on one monotonic clock.
"""

from __future__ import annotations

import heapq
import itertools
from dataclasses import dataclass
from enum import Enum

from daemon.turn.streams import LastPublication, StreamId
from model.values.gate import Outcome


@dataclass(frozen=True, slots=True)
class BatchPolicy:
    """When a batch of changed streams is adapted."""

    max_batch: int
    max_wait_s: float


class When(Enum):
    """When an outcome is published, if not at a later time."""

    NOW = "now"
    NEVER = "never"


def when_to_publish(
    now: float, interval_s: float, last: LastPublication | None, outcome: Outcome
) -> When | float:
    """An adapted mapping at most every `interval_s`, else the time when it may be; a change of
    the gate's mind at once; a fallback once per change."""
    if last is None or last.outcome.is_fallback != outcome.is_fallback:
        return When.NOW
    if outcome.is_fallback:
        return When.NEVER
    due = last.at + interval_s
    return When.NOW if now >= due else due


class Schedule:
    """Streams waiting to be adapted, by when they changed, and those whose publication waits.

    Changed streams are taken in the order in which they were told of. Publications fall due at
    times of their own and lie in a heap, whose stale entries are passed over, or serve again when
    a stream is put off to the same time anew.
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
        """Whether it changed and was not adapted since."""
        return stream in self._changed

    @property
    def changed_count(self) -> int:
        """Streams that changed and were not adapted since."""
        return len(self._changed)

    @property
    def deferred_count(self) -> int:
        """Streams whose newest mapping waits for its publish interval."""
        return len(self._deferred)

    def changed(self, stream: StreamId, at: float) -> None:
        """The stream's window changed; an earlier change keeps its place."""
        self._changed.setdefault(stream, at)

    def defer(self, stream: StreamId, until: float) -> None:
        """Adapt and publish the stream again at this time even if nothing more changes."""
        if stream not in self._deferred:
            self._deferred[stream] = until
            if (until, stream) not in self._in_heap:
                heapq.heappush(self._heap, (until, stream))
                self._in_heap.add((until, stream))

    def forget(self, stream: StreamId) -> None:
        """The stream's publication is done, or no longer ours."""
        self._changed.pop(stream, None)
        self._deferred.pop(stream, None)

    def drop(self, partition: int) -> None:
        """Forget a partition's streams, also those that wait though they were evicted."""
        for waiting in (self._changed, self._deferred):
            for stream in [stream for stream in waiting if stream.partition == partition]:
                self.forget(stream)

    def take_due(self, now: float) -> list[StreamId]:
        """At most `max_batch` streams to adapt now; they leave both queues.

        Put-off publications come first: each was a changed stream once, so they are never more
        than those, and under load they would otherwise wait for ever and hold commits back.
        """
        due = self._deferred_due(now)
        return due + self._changed_due(now, self._policy.max_batch - len(due))

    def _deferred_due(self, now: float) -> list[StreamId]:
        due: list[StreamId] = []
        while len(due) < self._policy.max_batch:
            until = self._next_deferred()
            if until is None or until > now:
                break
            due.append(self._pop())
            self.forget(due[-1])
        return due

    def _changed_due(self, now: float, room: int) -> list[StreamId]:
        if not self._changed or self._changed_wait_s(now) > 0:
            return []
        due = list(itertools.islice(self._changed, room))
        for stream in due:
            self.forget(stream)
        return due

    def wait_s(self, now: float, at_most_s: float) -> float:
        """How long the loop may wait for records before something is due."""
        wait = at_most_s
        if self._changed:
            wait = min(wait, self._changed_wait_s(now))
        until = self._next_deferred()
        return wait if until is None else min(wait, max(0.0, until - now))

    def _changed_wait_s(self, now: float) -> float:
        """How long the changed streams still wait for a full batch."""
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
