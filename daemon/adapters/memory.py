"""In-memory doubles of the Kafka and Redis adapters, for tests and simulations; the daemon never
uses them.

They do at once, on the caller's thread, what the services do in time, and pass the same contract
suites (tests/contracts). What outlives a worker is an object of its own, which several doubles may
share: MemoryTopic (Kafka's log and a group's commits), MemoryShelf (Redis' keys), and the list of
records behind MemoryMetaInits. With `down = True` every call that would need the service raises
Unavailable.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from daemon.canary.port import EvidenceRead
from daemon.errors import Misconfigured, Superseded, Unavailable
from daemon.turn.pending import Done, Pending
from daemon.turn.ports import (
    NO_LENGTHS,
    Append,
    Appended,
    Bounds,
    Claim,
    Extent,
    Home,
    LastRead,
    Polled,
    TopicLogs,
)
from daemon.turn.window import Pair
from daemon.wire.catalogue import Catalogue, PublishedTheta
from daemon.wire.meta_init import with_record
from daemon.wire.record import Headers, Message, RawRecord, Record


@dataclass(frozen=True, slots=True)
class MemoryRecord:
    """The Record port (daemon/wire/record.py) as plain values."""

    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: Headers = ()


@dataclass
class MemoryTopic:
    """A topic: records by partition, and the offsets that one consumer group has committed, with
    the notes beside them. An offset is the index of its record; those before `beginning` are gone.
    """

    partitions: int
    log: dict[int, list[MemoryRecord | RawRecord | None]] = field(
        default_factory=lambda: defaultdict(list)
    )
    committed: dict[int, int] = field(default_factory=dict)
    notes: dict[int, str] = field(default_factory=dict)
    beginning: dict[int, int] = field(default_factory=lambda: defaultdict(int))
    id: str = "topic"

    def records(self, partition: int) -> list[MemoryRecord | RawRecord]:
        """Returns the records that readers get, in order."""
        return [record for record in self.log[partition] if record is not None]

    def produce(
        self,
        partition: int,
        key: bytes | None,
        value: bytes | None,
        *,
        headers: Headers = (),
        timestamp_ms: int = 0,
    ) -> int:
        """Appends one record. Returns its offset."""
        records = self.log[partition]
        records.append(MemoryRecord(len(records), timestamp_ms, key, value, headers))
        return len(records) - 1

    def pass_over(self, partition: int) -> None:
        """Appends an offset that brings no record, as a transaction's marker does."""
        self.log[partition].append(None)

    def damage(self, partition: int, offset: int) -> None:
        """Makes a record one that the client cannot parse."""
        fault = "it is damaged"
        self.log[partition][offset] = RawRecord(offset, -1, None, b"", fault=fault)


class MemoryEventSource:
    """The EventSource port on a MemoryTopic. `assign` and `revoke` play the consumer group.

    Without `partitions` it begins with all of them.
    """

    def __init__(self, topic: MemoryTopic, partitions: Sequence[int] | None = None) -> None:
        self._topic = topic
        self._positions: dict[int, int] = {}
        self._assigned: set[int] = set()
        self._revoked: set[int] = set()
        self.down = self.reconnected = False
        self.assign(range(topic.partitions) if partitions is None else partitions)

    def assign(self, partitions: Sequence[int]) -> None:
        """Gives partitions to this member, at their committed offsets; the next poll says so."""
        for partition in partitions:
            self._positions[partition] = self._topic.committed.get(partition, 0)
            self._assigned.add(partition)
            self._revoked.discard(partition)

    def revoke(self, partitions: Sequence[int]) -> None:
        """Takes partitions away from this member; the next poll says so."""
        for partition in partitions:
            self._positions.pop(partition, None)
            self._revoked.add(partition)
            self._assigned.discard(partition)

    def poll(self, timeout_s: float, max_records: int) -> Polled:
        """See EventSource. Never waits, whatever `timeout_s`."""
        self.verify()
        assigned, self._assigned = frozenset(self._assigned), set()
        revoked, self._revoked = frozenset(self._revoked), set()
        records: dict[int, Sequence[Record]] = {}
        for partition, position in sorted(self._positions.items()):
            beginning, end = self._topic.beginning[partition], len(self._topic.log[partition])
            if not beginning <= position <= end:  # as the clients do
                position = self._positions[partition] = beginning
            batch = self._topic.log[partition][position : position + max_records]
            max_records -= len(batch)
            self._positions[partition] += len(batch)
            if found := [record for record in batch if record is not None]:
                records[partition] = found
        lost, self.reconnected = frozenset(self._positions if self.reconnected else ()), False
        return Polled(records, assigned, revoked, dict(self._positions), lost)

    def bounds(self, partitions: Sequence[int]) -> Mapping[int, Bounds]:
        """See EventSource."""
        self.verify()
        topic = self._topic
        return {
            p: Bounds(*self._extent(p), topic.committed.get(p), topic.notes.get(p, ""))
            for p in partitions
        }

    def _extent(self, partition: int) -> Extent:
        return Extent(self._topic.beginning[partition], len(self._topic.log[partition]))

    def logs(self, partitions: Sequence[int]) -> TopicLogs:
        """See EventSource."""
        self.verify()
        extents = {p: self._extent(p) for p in partitions}
        return TopicLogs(self._topic.id, self._topic.partitions, extents)

    def seek(self, partition: int, offset: int) -> None:
        """See EventSource."""
        if partition in self._positions:
            self._positions[partition] = offset

    def commit(
        self, offsets: Mapping[int, int], notes: Mapping[int, str] | None = None
    ) -> Pending[bool]:
        """See EventSource."""
        self.verify()
        self._topic.committed |= offsets
        self._topic.notes |= dict.fromkeys(offsets, "") | dict(notes or {})
        return Done(True)

    def lag(self) -> Mapping[int, int]:
        """See EventSource."""
        return {p: len(self._topic.log[p]) - at for p, at in self._positions.items()}

    def joined(self) -> bool:
        """See EventSource."""
        return True

    def verify(self) -> None:
        """See EventSource."""
        if self.down:
            raise Unavailable("kafka", "down")

    def close(self) -> None:
        """See EventSource."""


class MemoryOutbox:
    """The Outbox port; `sent` holds every message in order.

    Refuses values of more than `max_bytes` as a topic does.
    """

    def __init__(self, max_bytes: int | None = None) -> None:
        self.sent: list[Message] = []
        self.down = False
        self._max_bytes = max_bytes

    def send(self, messages: Sequence[Message]) -> None:
        """See Outbox."""
        if self.down:
            raise Unavailable("kafka", "down")
        if self._max_bytes and any(len(m.value or b"") > self._max_bytes for m in messages):
            raise Unavailable("kafka", f"a message has more than {self._max_bytes} bytes")
        self.sent += messages

    def close(self) -> None:
        """See Outbox."""


@dataclass
class MemoryShelf:
    """What Redis would hold: by partition the epoch, position, θ, generation and last read, each
    stream's window, and with which topic (id and number of partitions) the group began."""

    epochs: dict[int, int] = field(default_factory=dict)
    positions: dict[int, int] = field(default_factory=dict)
    windows: dict[tuple[int, str], list[Pair]] = field(default_factory=dict)
    marks: dict[int, str] = field(default_factory=dict)
    generations: dict[int, int] = field(default_factory=dict)
    last_reads: dict[int, LastRead] = field(default_factory=dict)
    homes: dict[str, Home] = field(default_factory=dict)
    topic_id: str | None = None
    first: tuple[str, int] | None = None

    def forget(self, partition: int) -> None:
        """Drops the partition's windows and its position."""
        self.positions.pop(partition, None)
        for stream in [stream for stream in self.windows if stream[0] == partition]:
            del self.windows[stream]


class MemoryWindowStore:
    """The WindowStore port on a MemoryShelf; each window holds at most `window_size` pairs."""

    def __init__(self, window_size: int, shelf: MemoryShelf | None = None) -> None:
        self.shelf = shelf or MemoryShelf()
        self._window_size = window_size
        self._positions: dict[int, int | None] = {}
        self.down = False

    def _check(self) -> None:
        if self.down:
            raise Unavailable("redis", "down")

    def use_topic(self, topic_id: str, partitions: int) -> int:
        """See WindowStore."""
        self._check()
        shelf = self.shelf
        if shelf.topic_id not in (None, topic_id):
            for partition in list(shelf.epochs):
                shelf.forget(partition)
            shelf.epochs, shelf.marks, shelf.generations, shelf.homes = {}, {}, {}, {}
        shelf.topic_id = topic_id
        shelf.first = shelf.first or (topic_id, partitions)
        return shelf.first[1] if shelf.first[0] == topic_id else 0

    def claim(self, partition: int, now_ms: int) -> Claim:
        """See WindowStore."""
        self._check()
        shelf, known = self.shelf, partition in self.shelf.epochs
        epoch = max(shelf.epochs.get(partition, 0) + 1, now_ms)
        shelf.epochs[partition] = epoch
        self._positions[partition] = shelf.positions.get(partition)
        return Claim(
            epoch,
            self._positions[partition],
            shelf.marks.get(partition),
            shelf.generations.get(partition, 0),
            shelf.last_reads.get(partition),
            known,
        )

    def begin_anew(self, partition: int, epoch: int) -> int:
        """See WindowStore."""
        self.verify({partition: epoch})
        self.shelf.forget(partition)
        self._positions[partition] = None
        generation = self.shelf.generations.get(partition, 0) + 1
        self.shelf.generations[partition] = generation
        return generation

    def remember(self, last_reads: Mapping[int, LastRead]) -> None:
        """See WindowStore."""
        self._check()
        self.shelf.last_reads |= last_reads

    def homes(self, streams: Sequence[str]) -> Mapping[str, Home]:
        """See WindowStore."""
        self._check()
        return {
            stream: self.shelf.homes[stream] for stream in streams if stream in self.shelf.homes
        }

    def keep_homes(self, homes: Mapping[str, Home]) -> None:
        """See WindowStore."""
        self._check()
        self.shelf.homes |= homes

    def append(
        self,
        partition: int,
        epoch: int,
        position: int,
        appends: Sequence[Append],
        lengths: Mapping[str, int] = NO_LENGTHS,
    ) -> Appended:
        """See WindowStore."""
        self.verify({partition: epoch})
        before = self._positions[partition]
        if self.shelf.positions.get(partition) != before:
            raise Unavailable("redis", "lost its newest writes", "lost_writes")
        lengths_before = {
            stream: len(self.shelf.windows.get((partition, stream), ())) for stream in lengths
        }
        with_record = position if before is None else max(before, position)
        self._positions[partition] = self.shelf.positions[partition] = with_record
        refused = [append for append in appends if not self._keep(partition, append)]
        unlike = {stream for stream in lengths if lengths_before[stream] != lengths[stream]}
        unlike |= {append.stream for append in refused} & lengths.keys()
        self._delete(partition, unlike)
        damaged = [stream for stream in lengths if stream in unlike]
        return Appended([append.pair.id for append in refused], damaged)

    def _delete(self, partition: int, damaged: Collection[str]) -> None:
        for stream in damaged:
            del self.shelf.windows[partition, stream]
        if damaged:
            del self.shelf.positions[partition]

    def restore(self, partition: int, epoch: int, windows: Mapping[str, Sequence[Pair]]) -> None:
        """See WindowStore."""
        self.verify({partition: epoch})
        for stream, pairs in windows.items():
            self.shelf.windows[partition, stream] = list(pairs)
        if (position := self._positions[partition]) is not None:
            self.shelf.positions[partition] = position

    def _keep(self, partition: int, append: Append) -> bool:
        window = self.shelf.windows.setdefault((partition, append.stream), [])
        if window and append.pair.id <= window[-1].id:
            return False
        window.append(append.pair)
        del window[: -self._window_size]
        return True

    def shorten(self, partition: int, epoch: int, since: Mapping[str, int]) -> None:
        """See WindowStore."""
        self.verify({partition: epoch})
        if self.shelf.positions.get(partition) != self._positions[partition]:
            raise Unavailable("redis", "lost its newest writes", "lost_writes")
        for stream, offset in since.items():
            window = self.shelf.windows.get((partition, stream), [])
            window[:] = [pair for pair in window if pair.id.offset >= offset]

    def load(self, partition: int, streams: Sequence[str]) -> Mapping[str, Sequence[Pair]]:
        """See WindowStore."""
        self._check()
        return {s: list(self.shelf.windows.get((partition, s), [])) for s in streams}

    def streams(self, partitions: Sequence[int]) -> Mapping[int, Sequence[str]]:
        """See WindowStore."""
        self._check()
        return {p: [s for at, s in self.shelf.windows if at == p] for p in partitions}

    def mark(self, partition: int, epoch: int, meta_init: str) -> None:
        """See WindowStore."""
        self.verify({partition: epoch})
        self.shelf.marks[partition] = meta_init

    def verify(self, epochs: Mapping[int, int]) -> None:
        """See WindowStore."""
        self._check()
        owners = {p: self.shelf.epochs.get(p, 0) for p in epochs}
        if superseded := [p for p, owner in owners.items() if owner > epochs[p]]:
            raise Superseded(superseded)
        if any(owner < epochs[p] for p, owner in owners.items()):
            raise Unavailable("redis", "was emptied", "lost_writes")

    def close(self) -> None:
        """See WindowStore."""


class MemoryMetaInits:
    """The MetaInits port on a list of records, all in one partition.

    `exists` says whether the topic is there before its first record. Records of more than
    `max_bytes` are neither written nor fetched.
    """

    def __init__(
        self, log: list[MemoryRecord] | None = None, max_bytes: int = 2**25, *, exists: bool = True
    ) -> None:
        self.log = [] if log is None else log
        self.exists = exists
        self.down = False
        self._max_bytes = max_bytes

    def _check(self) -> None:
        if self.down:
            raise Unavailable("kafka", "down")

    def catalogue(self) -> Catalogue:
        """See MetaInits."""
        self._check()
        found = Catalogue(exists=self.exists or bool(self.log))
        for record in self.log:
            found = with_record(found, record)
        return found

    def fetch(self, published: PublishedTheta) -> bytes | None:
        """See MetaInits."""
        self._check()
        if published.nbytes > self._max_bytes:
            return None
        record = self.log[published.offset]
        return record.value if record.key == published.version.encode() else None

    def write(self, key: str, value: bytes | None, headers: Headers = ()) -> None:
        """See MetaInits."""
        self._check()
        if len(value or b"") > self._max_bytes:
            raise Misconfigured(f"a record of {len(value or b'')} bytes is too large")
        self.log.append(MemoryRecord(len(self.log), len(self.log), key.encode(), value, headers))

    def close(self) -> None:
        """See MetaInits."""


class MemoryEvidence:
    """The EvidenceLog port on a list of records. `missing` says that there is no such topic."""

    def __init__(self, log: list[MemoryRecord] | None = None) -> None:
        self.log = [] if log is None else log
        self.down = self.missing = False
        self._since_ms: int | None = None
        self._next = 0

    def fault(self) -> str | None:
        """See EvidenceLog."""
        self._check()
        return "topic 'meta-evidence' does not exist" if self.missing else None

    def _check(self) -> None:
        if self.down:
            self.close()
            raise Unavailable("kafka", "down")

    def read(self, since_ms: int) -> EvidenceRead:
        """See EvidenceLog."""
        self._check()
        if self.missing:
            self.close()
            raise Misconfigured("topic 'meta-evidence' does not exist")
        begins = self._since_ms != since_ms
        if begins:
            later = (at for at, record in enumerate(self.log) if record.timestamp >= since_ms)
            self._since_ms, self._next = since_ms, next(later, len(self.log))
        records, self._next = self.log[self._next :], len(self.log)
        return EvidenceRead(records, begins)

    def close(self) -> None:
        """See EvidenceLog."""
        self._since_ms = None
