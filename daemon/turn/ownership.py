"""Which partitions this worker owns, since when, and how far each may be committed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from daemon.errors import Superseded
from daemon.turn.pending import Done, Pending
from daemon.turn.ports import Claim, EventSource, Polled, WindowStore
from daemon.turn.renewals import Renewals, room_for_renewals
from daemon.turn.streams import StreamId
from daemon.turn.tenure import Reset, Tenure, starting_offset

SEVERAL = ""
"""Marks a partition in the store whose mappings are of several θs."""


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
        bounds = self._source.bounds(due)
        claims = {partition: self._store.claim(partition, now_ms) for partition in due}
        renewals = self._renewals(claims)
        for partition, claim in claims.items():
            start = starting_offset(
                bounds[partition],
                claim.position,
                self._policy.offset_reset,
                rebuild=self._policy.rebuild_windows,
            )
            try:
                if partition in renewals:  # before any mapping of our θ comes among the others
                    self._store.mark(partition, claim.epoch, SEVERAL)
                # from now on the store knows that before `start` there is nothing to restore
                self._store.append(partition, claim.epoch, start, ())
            except Superseded as e:
                self.lose(e.partitions, now)
                continue
            self._source.seek(partition, start)
            self._tenures[partition] = Tenure(
                claim.epoch,
                start,
                bounds[partition].committed,
                renewals.get(partition),
                marked=partition not in renewals,
            )
        return {p: self._tenures[p].epoch for p in due if p in self._tenures}

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
            self._requested, self._answer = offsets, self._source.commit(offsets)
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
        stream that has a window."""
        others = {p: claim for p, claim in claims.items() if claim.meta_init != self._theta_hash}
        kept = [partition for partition, claim in others.items() if claim.position is not None]
        streams = self._store.streams(kept) if kept else {}
        return {partition: Renewals(streams.get(partition, ())) for partition in others}

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
