"""Which partitions this worker owns, since when, and how far each may be committed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NoReturn

from daemon.errors import Superseded, Unavailable
from daemon.turn.log_identity import PartitionState, start_of
from daemon.turn.pending import Done, Pending
from daemon.turn.ports import (
    Claim,
    EventSource,
    LastRead,
    Polled,
    TopicLogs,
    WindowStore,
)
from daemon.turn.renewals import Renewals, room_for_renewals
from daemon.turn.report import LogReplaced, OffsetMoved, OffsetRange
from daemon.turn.streams import StreamId
from daemon.turn.tenure import Reset, Tenure
from daemon.wire.record import Record

SEVERAL = ""
"""Marks a partition in the store whose mappings are of several θs."""


@dataclass(slots=True)
class Findings:
    """What was found of the logs, see TurnReport."""

    replaced: list[LogReplaced] = field(default_factory=list)
    moved: list[OffsetMoved] = field(default_factory=list)
    gone: dict[int, OffsetRange] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class StartPolicy:
    """Where a tenure begins to read, and when a partition lost to another worker is claimed
    again."""

    offset_reset: Reset
    rebuild_windows: bool
    reclaim_after_s: float


class Ownership:
    """This worker's tenures. The group assigns partitions; the store's epochs ensure that only one
    worker at a time acts on each.

    A partition that another worker claimed while the group still assigns it to this one is claimed
    again only after `reclaim_after_s`: whichever worker is wrong has heard so from the group by
    then.
    """

    def __init__(
        self, source: EventSource, store: WindowStore, policy: StartPolicy, theta_hash: str
    ) -> None:
        """`theta_hash` is the content hash of the θ that is served."""
        self._source = source
        self._store = store
        self._policy = policy
        self._theta_hash = theta_hash
        self._claim_at: dict[int, float] = {}
        """When each assigned partition may be claimed (seconds, monotonic)."""
        self._tenures: dict[int, Tenure] = {}
        self._requested: dict[int, int] = {}
        """The offsets of the last commit request, without those of tenures that ended since."""
        self._answer: Pending[bool] = Done(False)
        self._topic_id = ""
        self._suspected: set[int] = set()
        """Partitions of which a record has shown that their log is another one."""
        self._findings = Findings()

    def __contains__(self, partition: int) -> bool:
        return partition in self._tenures

    def __getitem__(self, partition: int) -> Tenure:
        return self._tenures[partition]

    def __iter__(self) -> Iterator[int]:
        return iter(self._tenures)

    # ---- how tenures begin and end

    def on_rebalance(self, polled: Polled, now: float) -> set[int]:
        """Takes in what the group assigned and revoked. Returns the partitions whose tenure ended.

        One that is assigned again was revoked in between, so its tenure ends as well."""
        for partition in polled.revoked:
            self._claim_at.pop(partition, None)
        self._claim_at |= dict.fromkeys(polled.assigned, now)
        return self._end(polled.revoked | polled.assigned)

    def claim(self, now: float, now_ms: int) -> dict[int, int]:
        """Begins the tenures that are due, and returns their epochs. Raises Unavailable."""
        due = [p for p, at in self._claim_at.items() if at <= now and p not in self._tenures]
        if not due:
            return {}
        known_partitions = self._use_topic(self._source.logs(()))
        claims = {partition: self._store.claim(partition, now_ms) for partition in due}
        # asked after the claims: from then on no other worker moves a position or an offset
        logs, bounds = self._source.logs(due), self._source.bounds(due)
        self._require_same_topic(logs)
        topic_id, extents = logs.topic_id, logs.extents
        states = {
            p: PartitionState(topic_id, extents[p], bounds[p], claim, p >= known_partitions)
            for p, claim in claims.items()
        }
        renewals = self._renewals(claims)
        for partition, state in states.items():
            try:
                self._begin(partition, state, renewals.get(partition), now_ms)
            except Superseded as e:
                self.lose(e.partitions, now)
        return {p: self._tenures[p].epoch for p in due if p in self._tenures}

    def _begin(
        self, partition: int, state: PartitionState, renewals: Renewals | None, now_ms: int
    ) -> None:
        """Begins a tenure where `start_of` says. Raises Superseded, Unavailable."""
        state = self._anew_if_replaced(partition, state)
        epoch, topic_id = state.claim.epoch, state.topic_id
        policy = self._policy
        start = start_of(partition, state, policy.offset_reset, rebuild=policy.rebuild_windows)
        if renewals is not None:  # before any mapping of our θ comes among the others
            self._store.mark(partition, epoch, SEVERAL)
        # from now on the store knows that before `start` there is nothing to restore
        self._store.append(partition, epoch, start.offset, ())
        if state.claim.last_read is None or state.claim.last_read.topic_id != topic_id:
            self._store.remember({partition: LastRead(topic_id, -1, 0)})
        check = start.check
        self._source.seek(partition, min(start.offset, check.offset) if check else start.offset)
        self._tenures[partition] = Tenure(
            epoch,
            start.offset,
            start.committed,
            renewals,
            marked=renewals is None,
            note=state.log.note(),
            check=check,
            claimed_ms=now_ms,
        )
        self._findings.moved += [start.moved] if start.moved else []
        self._findings.gone |= {partition: start.gone} if start.gone else {}

    def _anew_if_replaced(self, partition: int, state: PartitionState) -> PartitionState:
        """Leaves the partition's windows behind if its log is another one than they are of, and
        notes that for the next report."""
        claim = state.claim
        how = state.replaced(suspected=partition in self._suspected)
        if how is None:
            return state
        last, read_up_to = claim.last_read, claim.position
        if last is not None and how == "made_anew":
            read_up_to = last.offset + 1
        before = last.topic_id if last else state.topic_id
        replaced = LogReplaced(partition, how, before, state.topic_id, read_up_to, state.extent.end)
        if how != "made_anew":  # the windows of a topic made anew have other keys
            generation = self._store.begin_anew(partition, claim.epoch)
            claim = replace(claim, position=None, generation=generation, last_read=None)
        self._suspected.discard(partition)
        self._findings.replaced.append(replaced)
        return replace(state, claim=claim)

    def _use_topic(self, logs: TopicLogs) -> int:
        """Has the store use this topic's windows. Returns how many partitions the topic had when
        the group began with it. Raises Unavailable."""
        if self._tenures:
            self._require_same_topic(logs)
        self._topic_id = logs.topic_id
        return self._store.use_topic(logs.topic_id, logs.partitions)

    def _require_same_topic(self, logs: TopicLogs) -> None:
        if logs.topic_id != self._topic_id:
            detail = f"the events topic was made anew: its id was {self._topic_id}, and is now "
            raise Unavailable("kafka", detail + logs.topic_id, "other_log")

    # ---- whether the logs are still those that were claimed

    def inspect_logs(self) -> None:
        """Asks which logs the owned partitions are. Raises Unavailable when one of them is another
        one than was claimed: the claim that follows begins with it."""
        if not self._tenures:
            return
        logs = self._source.logs(list(self._tenures))
        self._require_same_topic(logs)
        for partition, tenure in self._tenures.items():
            extent = logs.extents[partition]
            if extent.end < tenure.next_offset:
                self._suspect(partition, f"ends at {extent.end}", tenure.next_offset)
            if gone := tenure.gone_before(extent.beginning):
                self._findings.gone[partition] = gone

    def admit(self, polled: Mapping[int, Sequence[Record]]) -> dict[int, Sequence[Record]]:
        """Returns those of the records of owned partitions that are to be decoded. Raises
        Unavailable when they show that a log is another one than was claimed."""
        admitted: dict[int, Sequence[Record]] = {}
        for partition, records in polled.items():
            tenure = self._tenures[partition]
            kept = tenure.admit(records)
            if kept is None:
                where = f"has other records, from offset {records[0].offset} on"
                self._suspect(partition, where, tenure.next_offset)
            elif kept:
                admitted[partition] = kept
        return admitted

    def compare_again(self, partitions: Iterable[int]) -> set[int]:
        """Goes back by one record in each of these partitions that are owned, to see whether their
        logs are still the same. Returns the partitions whose records do not count that were polled
        before that."""
        gone_back: set[int] = set()
        for partition in partitions:
            tenure = self._tenures.get(partition)
            offset = tenure.compare_again() if tenure else None
            if offset is not None:
                self._source.seek(partition, offset)
                gone_back.add(partition)
        return gone_back

    def _suspect(self, partition: int, what: str, read_up_to: int) -> NoReturn:
        self._suspected.add(partition)
        detail = f"partition {partition} was read up to offset {read_up_to}, and now {what}"
        raise Unavailable("kafka", f"{detail}: its log is another one", "other_log")

    def mark_read(self, partition: int, last: Record) -> None:
        """Notes that a partition was decoded up to this record."""
        self._tenures[partition].mark_read(self._topic_id, last)

    def owed_since_ms(self, lag: Mapping[int, int], now_ms: int) -> dict[int, int | None]:
        """Returns, once at the end of a turn, the record time (ms, UTC) of each partition's oldest
        event that is owed a mapping, be it read or not; None where no event is. `lag`: how many
        offsets are not read yet. Leaves out a partition of which that is not known, unless an event
        that was read is owed one."""
        found: dict[int, int | None] = {}
        for partition, tenure in self._tenures.items():
            unread = lag.get(partition)
            if unread is not None:
                tenure.note_unread(unread, now_ms)
            since_ms = tenure.owed_since_ms(unread, now_ms)
            if unread is not None or since_ms is not None:
                found[partition] = since_ms
        return found

    def last_reads(self, partitions: Iterable[int]) -> dict[int, LastRead]:
        """Returns the last record that was read of each of these partitions."""
        reads = {partition: self._tenures[partition].last_read for partition in partitions}
        return {partition: read for partition, read in reads.items() if read is not None}

    def take_findings(self) -> Findings:
        """Returns what was found of the logs since the last call."""
        found, self._findings = self._findings, Findings()
        return found

    def serve(self, store: WindowStore, theta_hash: str) -> None:
        """Uses this store and this θ for the claims to come. Call `forget` before the next one."""
        self._store, self._theta_hash = store, theta_hash

    def verify(self, partitions: Iterable[int], now: float) -> set[int]:
        """Asks the store whether these tenures still hold. Returns the partitions that another
        worker has claimed, whose tenures end. Raises Unavailable."""
        try:
            self._store.verify({p: self._tenures[p].epoch for p in partitions})
        except Superseded as e:
            return self.lose(e.partitions, now)
        return set()

    def lose(self, partitions: Iterable[int], now: float) -> set[int]:
        """Ends the tenures of partitions that another worker has claimed, and returns those that
        had one."""
        for partition in partitions:
            if partition in self._claim_at:
                self._claim_at[partition] = now + self._policy.reclaim_after_s
        return self._end(partitions)

    def forget(self) -> set[int]:
        """Ends every tenure, so that the next `claim` begins them anew. Returns the partitions."""
        return self._end(list(self._tenures))

    def _end(self, partitions: Iterable[int]) -> set[int]:
        ended = {p for p in partitions if self._tenures.pop(p, None) is not None}
        self._requested = {p: o for p, o in self._requested.items() if p not in ended}
        return ended

    # ---- commits

    def commit(self) -> Mapping[int, int]:
        """Requests a commit of every partition's committable offset. Returns the offsets that the
        request before has committed. Raises Unavailable.

        While the group rebalances, brokers refuse commits: a later call requests them again.
        """
        committed = self.await_commit()
        offsets = {
            partition: tenure.committable
            for partition, tenure in self._tenures.items()
            if tenure.committable != tenure.committed
        }
        if offsets:
            notes = {partition: self._tenures[partition].note for partition in offsets}
            self._requested, self._answer = offsets, self._source.commit(offsets, notes)
        return committed

    def await_commit(self) -> Mapping[int, int]:
        """Waits for the answer to the last commit request, and returns the offsets that it has
        committed, by partition. Leaves out tenures that ended meanwhile: the tenures after them
        have asked the group for its offsets. Raises Unavailable."""
        answer, self._answer = self._answer, Done(False)
        if not answer.result():
            return {}
        for partition, offset in self._requested.items():
            self._tenures[partition].committed = offset
        return self._requested

    # ---- renewals: mappings of another θ than the one that is served

    def _renewals(self, claims: Mapping[int, Claim]) -> dict[int, Renewals]:
        """Returns the renewals of the partitions whose mappings may be of another θ: of every
        stream that has a window, and did not move to another partition since."""
        others = {p: claim for p, claim in claims.items() if claim.meta_init != self._theta_hash}
        kept = [partition for partition, claim in others.items() if claim.position is not None]
        streams = self._store.streams(kept) if kept else {}
        homes = self._store.homes([key for keys in streams.values() for key in keys])
        return {
            p: Renewals(
                key for key in streams.get(p, ()) if key not in homes or homes[key].partition == p
            )
            for p in others
        }

    @property
    def renewals_left(self) -> int:
        """How many streams have a mapping that is still to be renewed."""
        return sum(tenure.renewals.left for tenure in self._tenures.values())

    def begin_renewals(self, max_batch: int, changed: int, most: int) -> list[StreamId]:
        """Begins as many renewals as a batch has room for beside so many changed streams, and at
        most `most`, over all partitions together. Returns their streams."""
        tenures = self._tenures.items()
        begun = sum(tenure.renewals.begun for _, tenure in tenures)
        room = min(most, room_for_renewals(max_batch, changed, begun))
        streams: list[StreamId] = []
        for partition, tenure in tenures:
            keys = tenure.renewals.begin(room - len(streams))
            streams += [StreamId(partition, key) for key in keys]
        return streams

    def mark_renewed(self, now: float) -> set[int]:
        """Notes in the store where all mappings are of the θ that is served. Returns the
        partitions that another worker has claimed, whose tenures end. Raises Unavailable.

        A crash before this only has the mappings renewed once more.
        """
        try:
            for partition, tenure in self._tenures.items():
                if not tenure.marked and not tenure.renewals.left:
                    self._store.mark(partition, tenure.epoch, self._theta_hash)
                    tenure.marked = True
        except Superseded as e:
            return self.lose(e.partitions, now)
        return set()
