"""Paired events from Kafka, by kafka-python.

Rebalance callbacks come on the client's IO thread, which also sends the heartbeats: they only
note what changed, and the loop acts on it after its next poll. Records are never deserialised by
the client, where an error would wedge the consumer.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from threading import Event, Lock
from typing import Any

from kafka import ConsumerRebalanceListener, KafkaConsumer, TopicPartition
from kafka.coordinator.assignors.cooperative_sticky import CooperativeStickyAssignor
from kafka.coordinator.base import MemberState
from kafka.errors import (
    CommitFailedError,
    IllegalStateError,
    KafkaError,
    RebalanceInProgressError,
)
from kafka.future import Future
from kafka.structs import OffsetAndMetadata

from daemon.adapters.kafka_python.client import QUIET, connection, translated
from daemon.config import Settings
from daemon.errors import Unavailable
from daemon.turn.pending import Done, Later, Pending
from daemon.turn.ports import Bounds, Polled

CLOSE_TIMEOUT_MS = 2_000
PROOF_OF_LIFE_S = 2.0


class _Changes(ConsumerRebalanceListener):  # type: ignore[misc]  # kafka-python has no types
    """Notes what the group did until the loop asks."""

    def __init__(self) -> None:
        self.joined = False
        self._lock = Lock()
        self._assigned: dict[int, bool] = {}

    def on_partitions_assigned(self, assigned: Iterable[TopicPartition]) -> None:
        self.joined = True
        self._note(assigned, True)

    def on_partitions_revoked(self, revoked: Iterable[TopicPartition]) -> None:
        self._note(revoked, False)

    def on_partitions_lost(self, lost: Iterable[TopicPartition]) -> None:
        self.joined = False
        self._note(lost, False)

    def _note(self, partitions: Iterable[TopicPartition], assigned: bool) -> None:
        with self._lock:
            self._assigned |= {tp.partition: assigned for tp in partitions}

    def take(self) -> tuple[frozenset[int], frozenset[int]]:
        """Partitions (assigned, revoked) since the last call; the last word counts."""
        with self._lock:
            noted, self._assigned = self._assigned, {}
        assigned = frozenset(p for p, here in noted.items() if here)
        return assigned, frozenset(noted) - assigned


class _Join:
    """A join in flight that never looks done, so that kafka-python awaits it to the end."""

    is_done = False

    def __init__(self, join: Any) -> None:
        self._join = join

    def __getattr__(self, name: str) -> Any:
        return getattr(self._join, name)

    def __await__(self) -> Any:
        return self._join.__await__()


class KafkaSource:
    """The paired-events topic, read in a consumer group with the cooperative protocol."""

    def __init__(self, settings: Settings, client_id: str) -> None:
        self._topic = settings.kafka_events_topic
        self._timeout_ms = settings.kafka_timeout_ms
        self._changes = _Changes()
        self._next: dict[int, int] = {}
        self._answered_at = time.monotonic()
        self._insist_on_commit = False
        with translated("connect"):
            self._consumer = KafkaConsumer(
                **connection(settings),
                **QUIET,
                client_id=client_id,
                group_id=settings.kafka_group_id,
                enable_auto_commit=False,
                auto_offset_reset="earliest",  # the loop seeks; this is for offsets gone by
                allow_auto_create_topics=False,
                session_timeout_ms=settings.kafka_session_timeout_ms,
                heartbeat_interval_ms=min(3_000, settings.kafka_session_timeout_ms // 3),
                max_poll_interval_ms=settings.kafka_max_poll_interval_ms,
                max_poll_records=settings.kafka_max_poll_records,
                fetch_max_wait_ms=100,
                # a new instance for each consumer: a shared one makes partitions flap
                partition_assignment_strategy=(CooperativeStickyAssignor(),),
            )
            self._consumer.subscribe([self._topic], listener=self._changes)

    def _tp(self, partition: int) -> TopicPartition:
        return TopicPartition(self._topic, partition)

    def poll(self, timeout_s: float, max_records: int) -> Polled:
        """See EventSource."""
        with translated("poll"):
            batches = self._consumer.poll(int(timeout_s * 1000), max_records)
        self._insist_on_joining()
        if batches:
            self._answered_at = time.monotonic()
        assigned, revoked = self._changes.take()
        self._next |= {tp.partition: batch[-1].offset + 1 for tp, batch in batches.items()}
        records = {tp.partition: batch for tp, batch in batches.items()}
        return Polled({p: r for p, r in records.items() if p not in revoked}, assigned, revoked)

    def _insist_on_joining(self) -> None:
        """A join that a change of metadata began (at the start, or when the topic gets more
        partitions) and that outlasts one poll is forgotten by kafka-python 3.0.12: the next poll
        sees no need to join, and the worker has no partitions and no heartbeat, for ever. So the
        need is kept up until a poll has taken the join in. And one that ends between two polls
        is thrown away and begun anew, which has every other member join anew as well: so the next
        poll must take it for unfinished."""
        coordinator = self._consumer._coordinator
        if coordinator._join_task is not None:
            coordinator.request_rejoin()
            if not isinstance(coordinator._join_task, _Join):
                coordinator._join_task = _Join(coordinator._join_task)

    def bounds(self, partitions: Sequence[int]) -> Mapping[int, Bounds]:
        """See EventSource."""
        tps = [self._tp(p) for p in partitions]
        with translated("read offsets"):
            beginning = self._consumer.beginning_offsets(tps, timeout_ms=self._timeout_ms)
            end = self._consumer.end_offsets(tps, timeout_ms=self._timeout_ms)
            committed = {
                tp: self._consumer.committed(tp, timeout_ms=self._timeout_ms) for tp in tps
            }
        self._answered_at = time.monotonic()
        return {tp.partition: Bounds(beginning[tp], end[tp], committed[tp]) for tp in tps}

    def seek(self, partition: int, offset: int) -> None:
        """See EventSource. Of a partition just revoked the loop hears after its next poll."""
        with suppress(ValueError, KeyError):  # the IO thread may take it away at any moment
            self._consumer.seek(self._tp(partition), offset)
            self._next[partition] = offset

    def commit(self, offsets: Mapping[int, int]) -> Pending[bool]:
        """See EventSource. The broker takes some milliseconds to answer, and the loop goes on
        meanwhile; after a request that failed, the next is repeated until it is answered.

        Not by commit_async: kafka-python 3.0.12 looks for the coordinator on our thread there, with
        what its IO thread may change meanwhile, and where it finds none the future it returns is
        the search's, not the commit's."""
        marks = {self._tp(p): OffsetAndMetadata(o, "", -1) for p, o in offsets.items()}
        with translated("commit"):
            if self._insist_on_commit:
                done = self._commit_now(marks)
                return Done(done)
            coordinator, ended = self._consumer._coordinator, Event()
            asked = coordinator._manager.call_soon(coordinator._send_offset_commit_request, marks)
        asked.add_callback(self._heard).add_both(lambda _: ended.set())
        return Later(lambda: self._is_committed(asked, ended))

    def _heard(self, _: object = None) -> None:
        self._answered_at = time.monotonic()

    def _commit_now(self, marks: Mapping[TopicPartition, OffsetAndMetadata]) -> bool:
        try:
            self._consumer.commit(marks, timeout_ms=self._timeout_ms)
        except (CommitFailedError, RebalanceInProgressError):
            return False
        self._insist_on_commit = False
        self._heard()
        return True

    def _is_committed(self, asked: Future, ended: Event) -> bool:
        in_time = ended.wait(self._timeout_ms / 1000)
        self._insist_on_commit = not (in_time and asked.succeeded())
        if not in_time:
            raise Unavailable("kafka", f"commit: no answer in {self._timeout_ms} ms")
        return not self._insist_on_commit

    def lag(self) -> Mapping[int, int]:
        """See EventSource."""
        lags: dict[int, int] = {}
        for tp in self._consumer.assignment():
            with suppress(IllegalStateError):  # revoked since the line above
                end = self._consumer.highwater(tp)
                if end is not None and tp.partition in self._next:
                    lags[tp.partition] = max(0, end - self._next[tp.partition])
        return lags

    def joined(self) -> bool:
        """See EventSource. The listener hears nothing of an assignment of no partitions."""
        stable = self._consumer._coordinator.state is MemberState.STABLE
        return self._changes.joined or stable

    def verify(self) -> None:
        """See EventSource."""
        if time.monotonic() - self._answered_at < PROOF_OF_LIFE_S:
            return
        tps = list(self._consumer.assignment()) or [self._tp(0)]
        with translated("ask for end offsets"):
            self._consumer.end_offsets(tps[:1], timeout_ms=self._timeout_ms)
        self._answered_at = time.monotonic()

    def close(self) -> None:
        """See EventSource."""
        with suppress(KafkaError, OSError):
            self._consumer.close(autocommit=False, timeout_ms=CLOSE_TIMEOUT_MS)
