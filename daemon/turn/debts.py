"""Which streams are owed a mapping, since when, and which offsets wait for it. Pure.

An event whose window can be cut owes its stream a mapping that reflects it. The debt is settled
when that mapping is published, or released when none is to be. Until then the event's offset is
held back from being committed, so that a worker that takes over reads the event again.

    mark_owed -> pop_due -> choose -> settle
"""

from __future__ import annotations

import math
from collections.abc import Iterable

from daemon.turn.batching import Schedule, When, when_to_publish
from daemon.turn.decoding import Decoded
from daemon.turn.ownership import Ownership
from daemon.turn.policy import LoopPolicy
from daemon.turn.report import Publication, Verdict, latency_s
from daemon.turn.streams import LastPublication, Stream, StreamId, Streams
from model.values.gate import Outcome


class Debts:
    """The mappings owed to the streams in memory. Times are seconds on one monotonic clock."""

    def __init__(self, policy: LoopPolicy, streams: Streams, owned: Ownership) -> None:
        self._policy = policy
        self._streams = streams
        self._owned = owned
        self._schedule = Schedule(policy.batch)

    @property
    def changed_count(self) -> int:
        """How many streams have changed and were not adapted since."""
        return self._schedule.changed_count

    @property
    def deferred_count(self) -> int:
        """How many streams wait for the time of their next publication."""
        return self._schedule.deferred_count

    def is_changed(self, stream_id: StreamId) -> bool:
        """Returns whether the stream has changed and was not adapted since."""
        return self._schedule.is_changed(stream_id)

    def wait_s(self, now: float, at_most_s: float) -> float:
        """Returns how long the loop may wait before a stream is due."""
        return self._schedule.wait_s(now, at_most_s)

    def batch_wait_s(self, now: float, at_most_s: float) -> float:
        """Returns how long the loop may wait before the batch of changed streams is due. Streams
        whose publish interval ends meanwhile are gathered too."""
        return self._schedule.batch_wait_s(now, at_most_s)

    def mark_owed(self, event: Decoded, now: float, wall_ms: int) -> None:
        """Owes the event's stream a mapping that reflects it. A replayed event counts too: the
        worker that read it first may have died before it published.

        The stream is due when a mapping of it may be published: nobody receives what is adapted
        before. Until its first publication that is at once."""
        stream = self._streams[event.stream]
        stream.fresh += 1
        enough = stream.fresh >= self._policy.adapt_every or stream.last is None
        wait_s = 0.0 if enough else self._policy.adapt_latest_s
        due = max(now + wait_s, self._may_publish_at(stream))
        if due <= now:
            self._schedule.changed(stream.id, now - self._waited_s(event, wall_ms))
        else:
            self._schedule.defer(stream.id, due)
        self._owned[stream.id.partition].hold(stream.id.key, event.offset, event.recorded_ms)
        if stream.unpublished_since_ms is None:
            stream.unpublished_since_ms = event.recorded_ms

    def _may_publish_at(self, stream: Stream) -> float:
        """Returns the earliest time at which what the gate will probably say can be published. Of a
        stream whose fallback was published that is any time: the event may change the outcome."""
        if stream.last is None or stream.last.outcome.is_fallback:
            return -math.inf
        return stream.last.at + self._policy.publish_interval_s

    def _waited_s(self, event: Decoded, wall_ms: int) -> float:
        """Returns how much of its wait for a batch the event has spent in Kafka: at most all of
        it, for the producer's clock may be wrong; none if the producer did not set the time."""
        waited_ms = wall_ms - event.recorded_ms if event.recorded_ms else 0
        return min(max(0, waited_ms) / 1000, self._policy.batch.max_wait_s)

    def mark_renewing(self, ids: Iterable[StreamId], now: float) -> None:
        """Makes streams due although they did not change: their mapping is of another θ."""
        for stream_id in ids:
            if self._streams.ready(stream_id):
                self._schedule.changed(stream_id, now)
            else:
                self._owned[stream_id.partition].renewals.finish(stream_id.key)

    def pop_due(self, now: float, most: int, *, at_once: bool) -> list[StreamId]:
        """Returns at most `most` streams to adapt now; they are due no longer. Some may be
        evicted. `at_once`: changed streams do not wait for a full batch."""
        return self._schedule.pop_due(now, most, at_once=at_once)

    def release_lost(self, ids: Iterable[StreamId]) -> list[StreamId]:
        """Returns the streams whose windows can be cut; the others are owed no more. Those were
        evicted while they waited, and meanwhile the store has lost their windows, or let them
        expire. A later claim finds out about lost ones and has their events read again."""
        kept = []
        for stream_id in ids:
            if self._streams.ready(stream_id):
                kept.append(stream_id)
            else:
                self._release(self._streams[stream_id])
        return kept

    def is_expected(self, stream_id: StreamId, now: float) -> bool:
        """Returns whether the stream's mapping will be published unless the gate changes its
        mind."""
        stream = self._streams[stream_id]
        outcome = stream.last.outcome if stream.last else Outcome.ADAPTED
        return not outcome.is_fallback and self._when(stream, outcome, now) is When.NOW

    def choose(self, verdicts: Iterable[Verdict], now: float) -> list[Verdict]:
        """Returns the verdicts whose mappings are to be published now. Of the others, those to be
        published later are deferred, and those not to be published are owed no more."""
        return [verdict for verdict in verdicts if self._decide(verdict, now)]

    def _decide(self, verdict: Verdict, now: float) -> bool:
        """Returns whether to publish now, and sees to it if not."""
        stream = self._streams[verdict.stream]
        match self._when(stream, verdict.outcome, now):
            case When.NOW:
                return True
            case When.NEVER:
                self._release(stream)
            case later:
                self._schedule.defer(stream.id, later)
        return False

    def _when(self, stream: Stream, outcome: Outcome, now: float) -> When | float:
        return when_to_publish(now, self._policy.publish_interval_s, stream.last, outcome)

    def postpone(self, verdicts: Iterable[Verdict], now: float) -> None:
        """Makes streams due in the next turn whose mappings were to be published in this one."""
        for verdict in verdicts:
            self._schedule.defer(verdict.stream, now)

    def settle(self, verdict: Verdict, chosen_at: float, acknowledged_ms: int) -> Publication:
        """Notes that Kafka has acknowledged the verdict's mapping at this time (ms, UTC), and
        returns the publication. `chosen_at`: when its next publish interval begins."""
        stream = self._streams[verdict.stream]
        since_ms = stream.unpublished_since_ms
        stream.last = LastPublication(chosen_at, verdict.outcome)
        renewed = self._release(stream) and since_ms is None
        latency = latency_s(since_ms, acknowledged_ms)  # since_ms is None for a renewal
        return Publication(stream.id, verdict.version, verdict.outcome, latency, renewed)

    def _release(self, stream: Stream) -> bool:
        """Ends what is owed to the stream. Returns whether a renewal of its mapping was due."""
        stream.unpublished_since_ms = None
        tenure = self._owned[stream.id.partition]
        tenure.release(stream.id.key)
        return tenure.renewals.finish(stream.id.key)

    def drop(self, partition: int) -> None:
        """Forgets the streams of a partition whose tenure has ended, evicted ones included."""
        self._schedule.drop(partition)
