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

    What may block. `poll` for its `timeout_s`; `commit`, `bounds`, `logs` and `verify` for
    `kafka_timeout_ms` (`bounds` in the worst case for each of its requests); `close` for
    CLOSE_TIMEOUT_S. `seek`, `lag` and `joined` look at memory only.

    What may be repeated. All of it: a seek, or a commit of the same offsets, twice is as once;
    `verify` asks nothing while an answer is fresh; `close` can be called twice.

    Speed. A poll takes a whole batch over in one call, and what is done for each record is done by
    C functions (`map`, `starmap`, `groupby`), never by a line of Python.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from itertools import groupby
from typing import Any

from confluent_kafka import (
    OFFSET_INVALID,
    Consumer,
    KafkaError,
    KafkaException,
    Message,
    TopicPartition,
)

from daemon.adapters.kafka_limits import (
    CLOSE_TIMEOUT_S,
    FETCH_WAIT_MS,
    METADATA_MAX_AGE_MS,
    PROOF_OF_LIFE_S,
    heartbeat_interval_ms,
)
from daemon.adapters.librdkafka.client import BoundedCalls, Complaints, connection_properties
from daemon.adapters.librdkafka.logs import LibrdkafkaLogs
from daemon.adapters.librdkafka.records import LibrdkafkaRecord, converted
from daemon.config import Settings
from daemon.turn.pending import Done, Pending
from daemon.turn.ports import Bounds, Polled, TopicLogs

AHEAD_KB = 16 * 1024
"""Records read ahead, over all partitions: bounds memory, and lasts for several polls."""

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

IN_PASSING = frozenset({KafkaError._MAX_POLL_EXCEEDED})
"""Errors that say only what a rebalance callback says as well."""


class LibrdkafkaEventSource:
    """The EventSource port on a Consumer. See the theory of operation above.

    Raises Misconfigured when librdkafka refuses the settings; it connects in the background, so an
    absent broker shows later.
    """

    def __init__(self, settings: Settings, client_id: str) -> None:
        self._topic = settings.kafka_events_topic
        self._timeout_s = settings.kafka_timeout_ms / 1000
        self._complaints = Complaints()
        self._aside = BoundedCalls()
        self._joined = False
        self._mine: set[int] = set()
        self._news: dict[int, bool] = {}
        self._next: dict[int, int] = {}
        self._to_seek: dict[int, int] = {}
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
            messages = self._without_errors(self._fetch(timeout_s, max_records))
        if messages:
            self._answered_at = time.monotonic()
        records: dict[int, list[LibrdkafkaRecord]] = {}
        for partition, run in groupby(messages, Message.partition):
            # not ours any more, or read before a seek that is still to be done
            if partition in self._mine and partition not in self._to_seek:
                records.setdefault(partition, []).extend(converted(list(run)))
        self._next |= {partition: batch[-1].offset + 1 for partition, batch in records.items()}
        return Polled(records, *self._take_news())

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

    def _without_errors(self, messages: list[Message]) -> list[Message]:
        """Returns the messages that are records. An error takes the place of a record, and the
        records behind it may not follow on those before: so one that matters is raised, and the
        next poll begins where this one did."""
        if not any(map(Message.error, messages)):
            return messages
        for message in messages:
            error = message.error()
            if error is not None and error.code() not in IN_PASSING:
                self._rewind(messages)
                where = f"{error.str()} (partition {message.partition()})"
                raise KafkaException(KafkaError(error.code(), where))
        return [message for message in messages if message.error() is None]

    def _rewind(self, messages: Sequence[Message]) -> None:
        for message in reversed(messages):  # each partition's first message decides
            partition, offset = message.partition(), message.offset()
            if partition in self._mine and offset is not None and offset >= 0:
                self._to_seek[partition] = self._next.get(partition, offset)

    def seek(self, partition: int, offset: int) -> None:
        """See EventSource. Does nothing for a partition that was revoked."""
        if partition in self._mine:
            self._to_seek[partition] = self._next[partition] = offset
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
            ends = {p: self._watermarks(p) for p in partitions}
        self._answered_at = time.monotonic()
        return {
            mark.partition: Bounds(
                *ends[mark.partition],
                None if mark.offset < 0 else mark.offset,
                mark.metadata or "",
            )
            for mark in marks
        }

    def logs(self, partitions: Sequence[int]) -> TopicLogs:
        """See EventSource."""
        return self._logs.ask(partitions)

    def _watermarks(self, partition: int) -> tuple[int, int]:
        ask = partial(self._consumer.get_watermark_offsets, self._tp(partition), self._timeout_s)
        try:
            return ask()
        except KafkaException as e:
            if e.args[0].code() != KafkaError._UNKNOWN_PARTITION:
                raise
        # seen after a pause of the broker: librdkafka answers from metadata of before, and asks for
        # new by itself only every five minutes
        self._consumer.list_topics(self._topic, self._timeout_s)
        return ask()

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
        lags: dict[int, int] = {}
        for partition in self._mine & self._next.keys():
            with suppress(KafkaException):
                _, end = self._consumer.get_watermark_offsets(self._tp(partition), cached=True)
                if end >= 0:
                    lags[partition] = max(0, end - self._next[partition])
        return lags

    # ---- life and death

    def joined(self) -> bool:
        """See EventSource."""
        return self._joined

    def verify(self) -> None:
        """See EventSource."""
        if time.monotonic() - self._answered_at < PROOF_OF_LIFE_S:
            return
        with self._complaints.translated("ask for end offsets"), self._rebuilt_without_leaders():
            self._watermarks(min(self._mine, default=0))
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
        self._logs.close()
        with suppress(KafkaException, RuntimeError, OSError):
            self._aside.run(self._consumer.close, CLOSE_TIMEOUT_S)


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
        "fetch.wait.max.ms": FETCH_WAIT_MS,
        "topic.metadata.refresh.interval.ms": METADATA_MAX_AGE_MS,
        "queued.max.messages.kbytes": AHEAD_KB,
        "fetch.max.bytes": AHEAD_KB * 1024,
        "fetch.queue.backoff.ms": 20,  # a second by default, in which a full queue runs dry
    }


def _raise_first(marks: Iterable[TopicPartition]) -> None:
    for mark in marks:
        if mark.error is not None:
            raise KafkaException(mark.error)
