"""Paired events from Kafka, by kafka-python: a member of a consumer group, cooperative protocol.

Theory of operation
    Threads. Two. The loop's thread calls every public method. The client's own IO thread holds the
    sockets, sends the heartbeats, and calls the rebalance listener; it goes on however long a turn
    takes. Both write `_RebalanceNotes`, under its lock, and `_answered_at`, a float that either
    sets when the broker has answered.

    Rebalances. Between two polls the client may take partitions away or add some, at any moment.
    The listener only notes it (a blocking call on the IO thread would stop the heartbeats, and the
    client refuses it); `poll` returns the notes, and the loop acts on them. Until that poll the
    loop does not know: a seek of a partition that has gone does nothing, a commit for it is
    refused, and `poll` drops records of partitions that its own notes call revoked.

    Joining. kafka-python loses joins that last longer than a poll; `mended.keep_join`, called after
    every poll, says how and prevents it.

    What may block. `poll` for its `timeout_s`; `commit` not at all, but for the commit after one
    that failed; the result that it returns, `bounds`, `logs`, `verify` and that next commit for
    `kafka_timeout_ms` (`bounds` and `logs` in the worst case for each of their requests); `close`
    for a few seconds. `seek`, `lag` and `joined` look at memory only: polls ask for the end offsets
    at intervals, on the IO thread, and take the answer in when it has come.

    What cannot be parsed comes as a RawRecord with a fault, see unreadable.py. What a broker does
    not send stops one partition and no other, see unsent.py.

    Brokers that moved. A consumer knows brokers by the addresses that it was last told. When none
    of them leads to a broker any more it goes on trying them and never asks the bootstrap servers
    again (seen in 3.0.12). So `verify` has a consumer that nobody has answered for REBUILD_AFTER_S
    replaced by a new one.

    What may be repeated. All of it. A seek, or a commit of the same offsets, twice is as once;
    `verify` asks nothing while an answer is fresh; `close` can be called twice.

Records come as bytes: a deserializer that raises within the client would wedge it for good. Every
error of the client leaves as Unavailable or Misconfigured.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from threading import Event, Lock

from kafka import ConsumerRebalanceListener, KafkaConsumer, TopicPartition
from kafka.coordinator.assignors.cooperative_sticky import CooperativeStickyAssignor
from kafka.errors import CommitFailedError, RebalanceInProgressError
from kafka.future import Future
from kafka.structs import OffsetAndMetadata

from daemon.adapters.end_offsets import EndOffsets
from daemon.adapters.kafka_limits import (
    FETCH_BYTES,
    FETCH_WAIT_MS,
    METADATA_MAX_AGE_MS,
    PROOF_OF_LIFE_S,
    REBUILD_AFTER_S,
    heartbeat_interval_ms,
)
from daemon.adapters.kafka_python.client import (
    QUIET,
    connect,
    kafka_errors_translated,
    note_of,
)
from daemon.adapters.kafka_python.groupless import close_consumer
from daemon.adapters.kafka_python.links import Links
from daemon.adapters.kafka_python.logs import KafkaPythonLogs
from daemon.adapters.kafka_python.mended import is_member, keep_join, send_commit
from daemon.adapters.kafka_python.offsets import ask_ends, positions
from daemon.adapters.kafka_python.unreadable import read_past_what_is_unreadable
from daemon.adapters.kafka_python.unsent import Unsent
from daemon.config import Settings
from daemon.errors import Unavailable
from daemon.turn.pending import Done, Later, Pending
from daemon.turn.ports import Bounds, Polled, TopicLogs


class _RebalanceNotes(ConsumerRebalanceListener):  # type: ignore[misc]  # kafka-python has no types
    """Notes what the group assigned and revoked, on the IO thread, until the loop takes the notes.

    A partition may come and go several times between two polls, and be revoked twice in a row: the
    last word on it counts.
    """

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
        """Returns the partitions (assigned, revoked) since the last call, and forgets them."""
        with self._lock:
            noted, self._assigned = self._assigned, {}
        assigned = frozenset(p for p, here in noted.items() if here)
        return assigned, frozenset(noted) - assigned


class KafkaPythonEventSource:
    """The EventSource port on a KafkaConsumer. See the theory of operation above.

    Raises Unavailable when the broker does not answer at the start, Misconfigured when it refuses
    the credentials or the settings.
    """

    def __init__(self, settings: Settings, client_id: str) -> None:
        self._settings, self._client_id = settings, client_id
        self._topic = settings.kafka_events_topic
        self._timeout_ms = settings.kafka_timeout_ms
        self._notes, self._links = _RebalanceNotes(), Links()
        self._rebuild_after_s = max(REBUILD_AFTER_S, 2 * settings.kafka_timeout_ms / 1000)
        self._positions: dict[int, int] = {}
        self._ends = EndOffsets(lambda ps: ask_ends(self._consumer, [self._tp(p) for p in ps]))
        self._answered_at = time.monotonic()
        self._insist_on_commit = False
        self._logs = KafkaPythonLogs(settings, f"{client_id}-logs")
        self._consumer = self._joining(self._notes)
        self._unsent = Unsent(self._consumer)

    def _joining(self, notes: _RebalanceNotes) -> KafkaConsumer:
        """Returns a new consumer that joins the group. Raises Unavailable, Misconfigured."""
        settings = self._settings
        with kafka_errors_translated("connect"):
            consumer = connect(
                KafkaConsumer,
                settings,
                **QUIET,
                client_id=self._client_id,
                group_id=settings.kafka_group_id,
                enable_auto_commit=False,
                auto_offset_reset="earliest",  # the loop seeks; this is for offsets gone by
                allow_auto_create_topics=False,
                isolation_level=settings.kafka_isolation_level,
                session_timeout_ms=settings.kafka_session_timeout_ms,
                heartbeat_interval_ms=heartbeat_interval_ms(settings),
                max_poll_interval_ms=settings.kafka_max_poll_interval_ms,
                max_poll_records=settings.kafka_max_poll_records,
                fetch_max_wait_ms=FETCH_WAIT_MS,
                fetch_max_bytes=FETCH_BYTES,
                metadata_max_age_ms=METADATA_MAX_AGE_MS,
                # a new instance for each consumer: a shared one makes partitions flap
                partition_assignment_strategy=(CooperativeStickyAssignor(),),
            )
            read_past_what_is_unreadable(consumer)
            consumer.subscribe([self._topic], listener=notes)
        return consumer

    def _tp(self, partition: int) -> TopicPartition:
        return TopicPartition(self._topic, partition)

    def poll(self, timeout_s: float, max_records: int) -> Polled:
        """See EventSource."""
        with kafka_errors_translated("poll"):
            self._unsent.resume()
            batches = self._consumer.poll(int(timeout_s * 1000), max_records)
            self._unsent.raise_if_all()
            keep_join(self._consumer)
            # before the notes are taken: they then tell of every change that these may reflect
            self._positions = positions(self._consumer)
            reconnected = self._links.changed(self._consumer)
            if self._ends.refresh(self._positions, time.monotonic()) or batches:
                self._answered_at = time.monotonic()
        assigned, revoked = self._notes.take()
        records = {tp.partition: batch for tp, batch in batches.items()}
        return Polled(
            {p: r for p, r in records.items() if p not in revoked},
            assigned,
            revoked,
            {p: at for p, at in self._positions.items() if p not in revoked},
            reconnected - revoked,
        )

    def bounds(self, partitions: Sequence[int]) -> Mapping[int, Bounds]:
        """See EventSource."""
        tps = [self._tp(p) for p in partitions]
        with kafka_errors_translated("read offsets"):
            beginning = self._consumer.beginning_offsets(tps, timeout_ms=self._timeout_ms)
            end = self._consumer.end_offsets(tps, timeout_ms=self._timeout_ms)
            marks = {
                tp: self._consumer.committed(tp, metadata=True, timeout_ms=self._timeout_ms)
                for tp in tps
            }
        self._answered_at = time.monotonic()
        self._ends.note({tp.partition: offset for tp, offset in end.items()}, self._answered_at)
        return {
            tp.partition: Bounds(
                beginning[tp],
                end[tp],
                mark.offset if mark else None,
                note_of(mark) if mark else "",
            )
            for tp, mark in marks.items()
        }

    def logs(self, partitions: Sequence[int]) -> TopicLogs:
        """See EventSource."""
        return self._logs.ask(partitions)

    def seek(self, partition: int, offset: int) -> None:
        """See EventSource. Does nothing for a partition that was revoked a moment ago: the IO
        thread may take it away even within this call, and the next poll says so."""
        with kafka_errors_translated("seek"), suppress(ValueError, KeyError):
            self._consumer.seek(self._tp(partition), offset)
            self._positions[partition] = offset

    def commit(
        self, offsets: Mapping[int, int], notes: Mapping[int, str] | None = None
    ) -> Pending[bool]:
        """See EventSource. The broker takes some milliseconds to answer, and the loop goes on
        meanwhile. After a commit that failed, the next waits here and is repeated until it is
        answered."""
        noted = notes or {}
        marks = {
            self._tp(p): OffsetAndMetadata(offset, noted.get(p, ""), -1)
            for p, offset in offsets.items()
        }
        with kafka_errors_translated("commit"):
            if self._insist_on_commit:
                done = self._commit_now(marks)
                return Done(done)
            asked, ended = send_commit(self._consumer, marks), Event()
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
        return self._ends.lag(self._positions, time.monotonic())

    def joined(self) -> bool:
        """See EventSource."""
        return self._notes.joined or is_member(self._consumer)

    def verify(self) -> None:
        """See EventSource."""
        if time.monotonic() - self._answered_at < PROOF_OF_LIFE_S:
            return
        tps = list(self._consumer.assignment()) or [self._tp(0)]
        try:
            with kafka_errors_translated("ask for end offsets"):
                self._consumer.end_offsets(tps[:1], timeout_ms=self._timeout_ms)
        except Unavailable:
            if time.monotonic() - self._answered_at < self._rebuild_after_s:
                raise
            self._rebuild()
        self._answered_at = time.monotonic()

    def _rebuild(self) -> None:
        """Takes a new consumer in place of one that no broker answers any more. All that it had is
        lost to the group. Raises Unavailable, Misconfigured, and then keeps the old one."""
        had = self._consumer.assignment() | {self._tp(partition) for partition in self._positions}
        notes = _RebalanceNotes()
        notes.on_partitions_lost(had)  # before the new one's first assignment
        rebuilt = self._joining(notes)
        self.close()
        self._consumer, self._notes, self._links = rebuilt, notes, Links()
        self._unsent = Unsent(rebuilt)
        self._positions = {}
        self._insist_on_commit = False

    def close(self) -> None:
        """See EventSource."""
        self._logs.close()
        close_consumer(self._consumer)
