"""Paired events from Kafka, by librdkafka: the faster client, where the settings ask for it.

Theory of operation
    Threads. librdkafka reads ahead and sends the heartbeats on threads of its own, which touch
    nothing here. The loop's thread calls every public method, and all callbacks (`_on_assign` and
    the like, `error_cb`) come on it too, within `consume` and `poll`: so there is no lock. Only a
    commit and the close run on `_aside`, a thread that can be given up.

    Rebalances. The callbacks note what changed; the next poll that succeeds returns the notes. A
    partition is ours from `_on_assign` to `_on_revoke` or `_on_lost` (`_mine`).

    Seeks. librdkafka refuses to seek in a partition that was assigned a moment ago and is not
    fetched yet. So a seek is first noted in `_to_seek`; until it has been done, by `seek` itself or
    by a later poll, records of the partition are dropped: they were read before it.

    What cannot be parsed. The partition makes a detour (detours.py): another client reads a stretch
    of it from there on, and librdkafka is told to go on behind that.

    The end. Polls ask for end offsets at intervals, on a thread of their own, and take the answer
    in when it has come. librdkafka's position is that of the last record; that it has passed what
    brings none, it says only by the event that the end is reached.

    What may block. `poll` for its `timeout_s`, on a detour for three times `kafka_timeout_ms`;
    `commit`, `bounds`, `logs` and `verify` for `kafka_timeout_ms` (`bounds` in the worst case for
    each of its requests); `close` for CLOSE_TIMEOUT_S. `seek`, `lag` and `joined` look at memory
    only.

    What may be repeated. All of it: a seek, or a commit of the same offsets, twice is as once;
    `verify` asks nothing while an answer is fresh; `close` can be called twice.

    Speed. A poll takes a whole batch over in one call, and what is done for each record is done by
    C functions (`map`, `starmap`, `groupby`), never by a line of Python.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from itertools import groupby
from typing import Any, cast

from confluent_kafka import (
    OFFSET_BEGINNING,
    OFFSET_END,
    OFFSET_INVALID,
    Consumer,
    KafkaError,
    KafkaException,
    Message,
    TopicPartition,
)

from daemon.adapters.end_offsets import EndOffsets
from daemon.adapters.kafka_limits import (
    CLOSE_TIMEOUT_S,
    FETCH_BYTES,
    FETCH_WAIT_MS,
    METADATA_MAX_AGE_MS,
    PROOF_OF_LIFE_S,
    heartbeat_interval_ms,
)
from daemon.adapters.librdkafka.client import (
    BoundedCalls,
    Complaints,
    completed_aside,
    connection_properties,
)
from daemon.adapters.librdkafka.detours import UNREADABLE, Detours, OpensReader
from daemon.adapters.librdkafka.logs import LibrdkafkaLogs
from daemon.adapters.librdkafka.records import converted
from daemon.config import Settings
from daemon.turn.pending import Done, Pending
from daemon.turn.ports import Bounds, Polled, TopicLogs
from daemon.wire.record import Record

NO_LEADER_S = 8.0
"""Longer than a partition is usually without a leader while the brokers elect one."""

REBALANCING = frozenset(
    {
        KafkaError.REBALANCE_IN_PROGRESS,
        KafkaError.ILLEGAL_GENERATION,
        KafkaError.UNKNOWN_MEMBER_ID,
        KafkaError._ASSIGNMENT_LOST,
    }
)
"""Errors of a commit while the group rebalances, or after it went on without this member."""

IN_PASSING = frozenset({KafkaError._MAX_POLL_EXCEEDED, KafkaError._PARTITION_EOF})
"""What a rebalance callback says as well, and that a partition's end was reached."""


class LibrdkafkaEventSource:
    """The EventSource port on a Consumer. See the theory of operation above.

    Raises Misconfigured when librdkafka refuses the settings; it connects in the background, so an
    absent broker shows later.
    """

    def __init__(self, settings: Settings, client_id: str, open_reader: OpensReader) -> None:
        """`open_reader` makes the client that reads what librdkafka cannot."""
        self._topic = settings.kafka_events_topic
        self._timeout_s = settings.kafka_timeout_ms / 1000
        self._complaints = Complaints()
        self._aside = BoundedCalls()
        self._joined = False
        self._mine: set[int] = set()
        self._news: dict[int, bool] = {}
        self._next: dict[int, int] = {}
        self._to_seek: dict[int, int] = {}
        self._detours = Detours(open_reader(settings, f"{client_id}-aside"))
        self._ends = EndOffsets(lambda ps: completed_aside(lambda: self._offsets(ps, OFFSET_END)))
        self._answered_at = time.monotonic()
        self._logs = LibrdkafkaLogs(settings, f"{client_id}-logs")
        self._no_leader_since: float | None = None
        self._properties = connection_properties(settings, client_id) | _reading(settings)
        self._consumer = self._subscribed()

    def _subscribed(self) -> Consumer:
        with self._complaints.translated("connect"):
            consumer = Consumer(self._properties | {"error_cb": self._complaints.on_error})
            consumer.subscribe(
                [self._topic],
                on_assign=self._on_assign,
                on_revoke=self._on_revoke,
                on_lost=self._on_lost,
            )
        return consumer

    def _tp(self, partition: int, offset: int = OFFSET_INVALID) -> TopicPartition:
        return TopicPartition(self._topic, partition, offset)

    # ---- the group: called back within a poll; the notes are kept until a poll succeeds

    def _on_assign(self, consumer: Consumer, assigned: Iterable[TopicPartition]) -> None:
        if consumer is self._consumer:  # not one that was replaced, and closes late
            self._joined = True
            self._note(assigned, True)

    def _on_revoke(self, consumer: Consumer, revoked: Iterable[TopicPartition]) -> None:
        if consumer is self._consumer:
            self._note(revoked, False)

    def _on_lost(self, consumer: Consumer, lost: Iterable[TopicPartition]) -> None:
        if consumer is self._consumer:
            self._joined = False
            self._note(lost, False)

    def _note(self, tps: Iterable[TopicPartition], assigned: bool) -> None:
        for tp in tps:
            self._news[tp.partition] = assigned
            self._to_seek.pop(tp.partition, None)
            self._next.pop(tp.partition, None)
            self._detours.forget(tp.partition)
            (self._mine.add if assigned else self._mine.discard)(tp.partition)

    def _take_news(self) -> tuple[frozenset[int], frozenset[int]]:
        """Returns the partitions (assigned, revoked) since the last call; the last word counts."""
        news, self._news = self._news, {}
        assigned = frozenset(p for p, here in news.items() if here)
        return assigned, frozenset(news) - assigned

    # ---- records

    def poll(self, timeout_s: float, max_records: int) -> Polled:
        """See EventSource."""
        with self._complaints.translated("poll"):
            self._seek_what_waits()
            messages = self._fetch(0.0 if self._detours else timeout_s, max_records)
            self._raise_what_matters(messages)
            now = time.monotonic()
            if self._ends.refresh(self._mine & self._next.keys(), now) or messages:
                self._answered_at = now
        records: dict[int, list[Record]] = {}
        for partition, run in groupby(messages, _partition):
            if self._is_read(partition):
                records.setdefault(partition, []).extend(self._taken(partition, list(run)))
        self._detours.begin_where_stalled(self._read_positions(), self.lag(), now)
        self._read_detours(max_records - sum(map(len, records.values())), records)
        read = {p: batch for p, batch in records.items() if batch}
        news = self._take_news()
        lost = frozenset(self._mine) if self._complaints.take_disconnected() else frozenset()
        return Polled(read, *news, self._read_positions(), lost)

    def _is_read(self, partition: int) -> bool:
        """Whether what comes of a partition counts: it is ours, and was not read before a seek
        that is still to be done, nor behind a place that librdkafka cannot read."""
        return (
            partition in self._mine
            and partition not in self._to_seek
            and partition not in self._detours
        )

    def _read_positions(self) -> dict[int, int]:
        return {p: at for p, at in self._next.items() if p in self._mine}

    def _taken(self, partition: int, messages: Sequence[Message]) -> Sequence[Record]:
        """Returns the records among a partition's messages, and notes how far they go."""
        if not any(map(Message.error, messages)):
            return self._records(partition, messages)
        taken: list[Record] = []
        for is_end, run in groupby(messages, _is_end):
            if is_end:
                self._next[partition] = _offset(list(run)[-1])
            else:
                taken += self._records(partition, list(run))
            if not self._is_read(partition):  # behind what cannot be read nothing counts
                break
        return taken

    def _records(self, partition: int, messages: Sequence[Message]) -> Sequence[Record]:
        """Returns the records before the first that cannot be read, where a detour begins."""
        records = converted(messages)
        if records and self._detours.is_passed(partition, records[0].offset):
            self._to_seek[partition] = self._next[partition]
            return []
        if records:
            self._next[partition] = records[-1].offset + 1
        if len(records) < len(messages) and partition in self._next:  # else the claim seeks soon
            self._detours.begin(partition, self._next[partition])
        return records

    def _read_detours(self, max_records: int, records: dict[int, list[Record]]) -> None:
        for partition, read, after in self._detours.read(max_records):
            records.setdefault(partition, []).extend(read)
            self._next[partition] = self._to_seek[partition] = after

    def _fetch(self, timeout_s: float, max_records: int) -> list[Message]:
        """Returns at once with what was read ahead, or waits for a first record. (`consume` alone
        would wait until it has `max_records` or the time is up.)"""
        messages = self._consumer.consume(max_records, 0)
        if not messages and timeout_s > 0:
            first = self._consumer.poll(timeout_s)
            if first is not None:
                messages = [first]
                if max_records > 1:
                    messages += self._consumer.consume(max_records - 1, 0)
        return messages

    def _raise_what_matters(self, messages: Sequence[Message]) -> None:
        """Raises an error that stands in place of a record, unless it is one in passing or says
        that the record cannot be parsed. The records behind it may not follow on those before: so
        the next poll begins where this one did."""
        if not any(map(Message.error, messages)):
            return
        for message in messages:
            error = message.error()
            if error is not None and error.code() not in IN_PASSING | UNREADABLE:
                self._rewind(messages)
                where = f"{error.str()} (partition {message.partition()})"
                raise KafkaException(KafkaError(error.code(), where))

    def _rewind(self, messages: Sequence[Message]) -> None:
        for message in reversed(messages):  # each partition's first message decides
            partition, offset = message.partition(), message.offset()
            if partition in self._mine and offset is not None and offset >= 0:
                self._to_seek[partition] = self._next.get(partition, offset)

    def seek(self, partition: int, offset: int) -> None:
        """See EventSource. Does nothing for a partition that was revoked."""
        if partition in self._mine:
            self._to_seek[partition] = self._next[partition] = offset
            self._detours.forget(partition)
            with suppress(KafkaException):  # the next poll tries again, and says so if it fails
                self._seek_what_waits()

    def _seek_what_waits(self) -> None:
        """Does the noted seeks that librdkafka accepts by now; see the theory of operation."""
        for partition, offset in list(self._to_seek.items()):
            try:
                self._consumer.seek(self._tp(partition, offset))
            except KafkaException as e:
                if e.args[0].code() != KafkaError._STATE:
                    raise
            else:
                del self._to_seek[partition]

    # ---- offsets

    def bounds(self, partitions: Sequence[int]) -> Mapping[int, Bounds]:
        """See EventSource."""
        with self._complaints.translated("read offsets"):
            marks = self._consumer.committed([self._tp(p) for p in partitions], self._timeout_s)
            _raise_first(marks)
            beginnings = self._offsets(partitions, OFFSET_BEGINNING)
            ends = self._offsets(partitions, OFFSET_END)
        self._answered_at = time.monotonic()
        self._ends.note(ends, self._answered_at)
        return {
            mark.partition: Bounds(
                beginnings[mark.partition],
                ends[mark.partition],
                None if mark.offset < 0 else mark.offset,
                mark.metadata or "",
            )
            for mark in marks
        }

    def logs(self, partitions: Sequence[int]) -> TopicLogs:
        """See EventSource."""
        return self._logs.ask(partitions)

    def _offsets(self, partitions: Collection[int], which: int) -> dict[int, int]:
        """Asks for the first offsets, or for the ends at our isolation level: one request to each
        leader. (`get_watermark_offsets` asks twice for each partition, and does not look for
        leaders that it does not know.)"""
        asked = [self._tp(p, which) for p in partitions]
        found = self._consumer.offsets_for_times(asked, self._timeout_s)
        _raise_first(found)
        return {tp.partition: tp.offset for tp in found}

    def commit(
        self, offsets: Mapping[int, int], notes: Mapping[int, str] | None = None
    ) -> Pending[bool]:
        """See EventSource. It waits at once: while librdkafka waits for the answer of a broker that
        is gone, it answers nobody else, not even out of its memory (seen in 2.16)."""
        done = self._is_committed(offsets, notes or {})
        return Done(done)

    def _is_committed(self, offsets: Mapping[int, int], notes: Mapping[int, str]) -> bool:
        if not offsets.keys() <= self._mine:
            return False
        with self._complaints.translated("commit"):
            try:
                self._aside.run(lambda: self._commit(offsets, notes), self._timeout_s)
            except KafkaException as e:
                if e.args[0].code() in REBALANCING:
                    return False
                raise
        self._answered_at = time.monotonic()
        return True

    def _commit(self, offsets: Mapping[int, int], notes: Mapping[int, str]) -> None:
        marks = [
            TopicPartition(self._topic, p, offset, metadata=notes.get(p, ""))
            for p, offset in offsets.items()
        ]
        _raise_first(self._consumer.commit(offsets=marks, asynchronous=False))

    def lag(self) -> Mapping[int, int]:
        """See EventSource."""
        return self._ends.lag(self._read_positions(), time.monotonic())

    # ---- life and death

    def joined(self) -> bool:
        """See EventSource."""
        return self._joined

    def verify(self) -> None:
        """See EventSource."""
        if time.monotonic() - self._answered_at < PROOF_OF_LIFE_S:
            return
        with self._complaints.translated("ask for end offsets"), self._rebuilt_without_leaders():
            self._offsets([min(self._mine, default=0)], OFFSET_END)
        self._answered_at = time.monotonic()

    @contextmanager
    def _rebuilt_without_leaders(self) -> Iterator[None]:
        """Replaces the consumer when it has known no leader of a partition for a while.

        librdkafka believes no leader whose epoch is smaller than one it has seen, and waits for a
        larger one for ever. A broker that was restored from an older copy counts from an older
        epoch on (seen in 2.16).
        """
        try:
            yield
        except KafkaException as e:
            now = time.monotonic()
            if e.args[0].code() != KafkaError._UNKNOWN_PARTITION:
                self._no_leader_since = None
            elif self._no_leader_since is None:
                self._no_leader_since = now
            elif now - self._no_leader_since > NO_LEADER_S:
                self._no_leader_since = None
                self._rebuild()
            raise
        self._no_leader_since = None

    def _rebuild(self) -> None:
        self.close()
        self._note([self._tp(partition) for partition in self._mine], False)
        self._joined, self._aside = False, BoundedCalls()
        self._consumer = self._subscribed()

    def close(self) -> None:
        """See EventSource. librdkafka itself would wait for a broker that does not answer."""
        self._detours.close()
        self._logs.close()
        with suppress(KafkaException, RuntimeError, OSError):
            self._aside.run(self._consumer.close, CLOSE_TIMEOUT_S)


_partition = cast("Callable[[Message], int]", Message.partition)
_offset = cast("Callable[[Message], int]", Message.offset)


def _is_end(message: Message) -> bool:
    error = message.error()
    return error is not None and error.code() == KafkaError._PARTITION_EOF


def _reading(settings: Settings) -> dict[str, Any]:
    return {
        "group.id": settings.kafka_group_id,
        "partition.assignment.strategy": "cooperative-sticky",
        "session.timeout.ms": settings.kafka_session_timeout_ms,
        "heartbeat.interval.ms": heartbeat_interval_ms(settings),
        "max.poll.interval.ms": settings.kafka_max_poll_interval_ms,
        "enable.auto.commit": False,
        "enable.auto.offset.store": False,
        "auto.offset.reset": "earliest",  # the loop seeks; this is for offsets gone by
        "check.crcs": True,
        "isolation.level": settings.kafka_isolation_level,
        "enable.partition.eof": True,  # it also says how far what brings no record was passed
        "fetch.wait.max.ms": FETCH_WAIT_MS,
        "topic.metadata.refresh.interval.ms": METADATA_MAX_AGE_MS,
        "queued.max.messages.kbytes": FETCH_BYTES // 1024,
        "fetch.max.bytes": FETCH_BYTES,
        "fetch.queue.backoff.ms": 20,  # a second by default, in which a full queue runs dry
    }


def _raise_first(marks: Iterable[TopicPartition]) -> None:
    for mark in marks:
        if mark.error is not None:
            raise KafkaException(mark.error)
