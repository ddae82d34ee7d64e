"""Which partitions are this worker's, since when, and how far each may be committed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

from daemon.errors import Superseded
from daemon.turn.ports import Claim, EventSource, Polled, WindowStore
from daemon.turn.renewals import Renewals
from daemon.turn.tenure import Reset, Tenure, starting_offset

SEVERAL = ""
"""Marks a partition whose mappings are of several θs."""


@dataclass(frozen=True, slots=True)
class StartPolicy:
    """Where a tenure begins to read, and when a partition lost to another worker is tried again."""

    offset_reset: Reset
    rebuild_windows: bool
    reclaim_after_s: float


def _nothing_asked() -> bool:
    return False


class Ownership:
    """The group assigns partitions; the store's epochs make sure that one worker at a time acts.

    A partition that another worker claimed while the group still calls it ours is claimed again
    only after `reclaim_after_s`: long enough for whoever is wrong to have heard so from the group.
    """

    def __init__(
        self, source: EventSource, store: WindowStore, policy: StartPolicy, meta_init: str
    ) -> None:
        """`meta_init` is the content hash of the θ that is served."""
        self._source = source
        self._store = store
        self._policy = policy
        self._meta_init = meta_init
        self._claim_at: dict[int, float] = {}
        self._tenures: dict[int, Tenure] = {}
        self._asked: dict[int, int] = {}
        """Offsets whose commit is not answered yet."""
        self._answer: Callable[[], bool] = _nothing_asked

    def __contains__(self, partition: int) -> bool:
        return partition in self._tenures

    def __getitem__(self, partition: int) -> Tenure:
        return self._tenures[partition]

    def __iter__(self) -> Iterator[int]:
        return iter(self._tenures)

    def hear(self, polled: Polled, now: float) -> set[int]:
        """Take in what the group changed; the partitions whose tenure ended."""
        for partition in polled.revoked:
            self._claim_at.pop(partition, None)
        self._claim_at |= dict.fromkeys(polled.assigned, now)
        return self._end(polled.revoked | polled.assigned)

    def claim(self, now: float, now_ms: int) -> dict[int, int]:
        """Begin the tenures that are due; their epochs. Raises Unavailable."""
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
                claim.epoch, start, bounds[partition].committed, renewals.get(partition)
            )
        return {p: self._tenures[p].epoch for p in due if p in self._tenures}

    def _renewals(self, claims: Mapping[int, Claim]) -> dict[int, Renewals]:
        """For partitions whose mappings may be of another θ: every stream that has a window."""
        others = {p: claim for p, claim in claims.items() if claim.meta_init != self._meta_init}
        kept = [partition for partition, claim in others.items() if claim.position is not None]
        streams = self._store.streams(kept) if kept else {}
        return {partition: Renewals(streams.get(partition, ())) for partition in others}

    def mark_renewed(self) -> None:
        """Remember where all mappings are of the θ that is served. Raises Unavailable, Superseded.

        A crash before it only has them renewed once more.
        """
        for partition, tenure in self._tenures.items():
            if not tenure.marked and not tenure.renewals:
                self._store.mark(partition, tenure.epoch, self._meta_init)
                tenure.marked = True

    @property
    def renewals(self) -> int:
        """Streams whose mapping is still to be renewed."""
        return sum(len(tenure.renewals) for tenure in self._tenures.values())

    def serve(self, store: WindowStore, meta_init: str) -> None:
        """What tenures are claimed with from now on; those there are should be forgotten."""
        self._store, self._meta_init = store, meta_init

    def lose(self, partitions: Iterable[int], now: float) -> set[int]:
        """Another worker has claimed these; the partitions whose tenure ended."""
        for partition in partitions:
            if partition in self._claim_at:
                self._claim_at[partition] = now + self._policy.reclaim_after_s
        return self._end(partitions)

    def forget(self) -> set[int]:
        """End every tenure, to claim them anew."""
        return self._end(list(self._tenures))

    def _end(self, partitions: Iterable[int]) -> set[int]:
        ended = {p for p in partitions if self._tenures.pop(p, None) is not None}
        self._asked = {p: offset for p, offset in self._asked.items() if p not in ended}
        return ended

    def verify(self, partitions: Iterable[int]) -> None:
        """Raises Superseded for those that another worker claimed, Unavailable."""
        self._store.verify({p: self._tenures[p].epoch for p in partitions})

    def commit(self) -> Mapping[int, int]:
        """Ask for what has had its effect to be committed; what is committed of what was asked for
        before. Raises Unavailable.

        While the group rebalances nothing can be committed: a later call asks again.
        """
        committed = self.settle()
        offsets = {
            partition: tenure.committable
            for partition, tenure in self._tenures.items()
            if tenure.committable != tenure.committed
        }
        if offsets:
            self._asked, self._answer = offsets, self._source.commit(offsets)
        return committed

    def settle(self) -> Mapping[int, int]:
        """Wait for the answer to what was asked for; what is committed of it. Raises Unavailable.

        Of a tenure that ended meanwhile nothing is said: its successor asked the group."""
        answer, self._answer = self._answer, _nothing_asked
        if not answer():
            return {}
        for partition, offset in self._asked.items():
            self._tenures[partition].committed = offset
        return self._asked
