"""A worker's tenure of a partition: its epoch, how far it read, how far it may commit. Pure.

A tenure begins when the worker claims a partition that the group assigned to it, and ends when
the group revokes the partition, when another worker claims it, or when the worker recovers from a
fault. A partition that comes back begins a new tenure with a larger epoch.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Literal

from daemon.turn.ports import Bounds, LastRead
from daemon.turn.renewals import Renewals
from daemon.turn.report import OffsetRange, latency_s
from daemon.wire.record import Record, fingerprint

Reset = Literal["earliest", "latest"]


def starting_offset(
    bounds: Bounds, position: int | None, reset: Reset, *, rebuild: bool, moved: bool = False
) -> int:
    """Returns the offset from which to read a partition when its tenure begins.

    That is usually the committed offset. It is an earlier one when the store knows less than the
    group committed, because the store lost its newest writes: reading those events again restores
    the windows. `position` is the offset after the newest event in the store, or None when the
    store has nothing for the partition: then `rebuild` reads from the beginning. An offset that an
    operator has committed (`moved`) is taken as it is.
    """
    if bounds.committed is None:
        start = _first_offset(bounds, position, reset)
    elif moved:
        start = bounds.committed
    elif position is not None:
        start = min(bounds.committed, position)
    else:
        start = bounds.beginning if rebuild else bounds.committed
    return min(max(start, bounds.beginning), bounds.end)


def _first_offset(bounds: Bounds, position: int | None, reset: Reset) -> int:
    if reset == "earliest":
        return bounds.beginning
    return bounds.end if position is None else position


class Tenure:
    """How far one partition was read, and which streams hold its commit back.

    An offset is committed once every event before it has had its effect: it is in its window, and
    a mapping that reflects it is published, unless none is to be. So a worker that takes over
    reads again exactly the events whose mappings are still owed.
    """

    __slots__ = (
        "_held",
        "_newest_read_ms",
        "check",
        "committed",
        "epoch",
        "gap",
        "last_read",
        "marked",
        "next_offset",
        "note",
        "renewals",
        "start",
        "unread_since_ms",
    )

    def __init__(
        self,
        epoch: int,
        start: int,
        committed: int | None,
        renewals: Renewals | None = None,
        *,
        marked: bool = True,
        note: str = "",
        check: LastRead | None = None,
        claimed_ms: int = 0,
    ) -> None:
        """`renewals`: the streams whose mapping may be of another θ, none by default. `marked`:
        whether the store knows that all mappings of the partition are of the θ that is served.
        `note`: is committed beside its offsets. `check`: the record that the first ones to come are
        compared with, and that none of them before `start` counts beside. `claimed_ms`: when the
        tenure begins (ms, UTC)."""
        self.epoch = epoch
        self.start = start
        self.note = note
        self.check = check
        self.last_read: LastRead | None = None
        self.gap = OffsetRange(0, 0)
        """The largest range of offsets, since retention was looked at, that brought no records."""
        self.next_offset = start
        self.committed = committed
        self.renewals = Renewals() if renewals is None else renewals
        self.marked = marked
        self._held: dict[str, tuple[int, int]] = {}
        """The offset that each stream holds back, and the record time of its event."""
        self.unread_since_ms = claimed_ms
        """The oldest record that is not read yet, if there is one, was recorded about then."""
        self._newest_read_ms: int | None = None

    def admit(self, records: Sequence[Record]) -> Sequence[Record] | None:
        """Returns the records, at least one and in order, that are to be decoded: all but those
        that are read for the check alone. Returns None when they show that the log is not the one
        that was read before: it went back, or has another record where the check's was."""
        check, least = self.check, self.next_offset
        if check is not None:
            least = min(least, check.offset)
            if records[-1].offset >= check.offset:
                self.check = None
                found = next(record for record in records if record.offset >= check.offset)
                if found.offset == check.offset and fingerprint(found) != check.fingerprint:
                    return None
        if records[0].offset < least:
            return None
        if check is not None:
            records = [record for record in records if record.offset >= self.next_offset]
        if records:
            self._note_gap(records)
        return records

    def compare_again(self) -> int | None:
        """Has the last record that was read compared again before any further record counts.
        Returns the offset to read from for that, None where there is nothing to compare, or where
        a record that is still to come is compared anyway."""
        self.check = self.check or self.last_read
        if self.check is None or self.check.offset >= self.next_offset:
            return None
        return self.check.offset

    def _note_gap(self, records: Sequence[Record]) -> None:
        """Keeps the largest range of offsets that are not among the records. Such a gap is left by
        retention, and far smaller ones by compaction and by the markers of transactions."""
        first, last = records[0].offset, records[-1].offset
        gaps = [(self.next_offset, first)]
        if last - first >= len(records):
            gaps += [(a.offset + 1, b.offset) for a, b in pairwise(records)]
        self.gap = max(self.gap, *(OffsetRange(*gap) for gap in gaps), key=lambda gap: gap.length)

    def mark_read(self, topic_id: str, last: Record) -> None:
        """Notes that everything up to this record was decoded. It takes the check's place only once
        that is done: a later tenure must not miss what this one has not compared yet."""
        self.next_offset = last.offset + 1
        self._newest_read_ms = last.timestamp
        if self.check is None:
            self.last_read = LastRead(topic_id, last.offset, fingerprint(last))

    def note_unread(self, unread: int, now_ms: int) -> None:
        """Notes, at the end of a turn, how many offsets are not read yet. The oldest of them came
        after the newest record that was read, and after the last time that there were none."""
        if not unread:
            self.unread_since_ms = now_ms
        elif self._newest_read_ms and latency_s(self._newest_read_ms, now_ms) is not None:
            self.unread_since_ms = self._newest_read_ms
        self._newest_read_ms = None

    def gone_before(self, beginning: int) -> OffsetRange | None:
        """Returns the offsets that retention removed before they were read, if there are any since
        the last call. `beginning`: the log's first offset now."""
        gap, self.gap = self.gap, OffsetRange(0, 0)
        end = min(gap.end, beginning)
        return OffsetRange(gap.start, end) if gap.start < end else None

    def hold(self, stream: str, offset: int, recorded_ms: int = 0) -> None:
        """Holds the offset of an event that was recorded then (ms, UTC; 0 if that is not known)
        back until the stream is released. Offsets come in order, so the first one held is the
        oldest."""
        self._held.setdefault(stream, (offset, recorded_ms))

    def release(self, stream: str) -> None:
        """Lets every offset go that is held back for the stream."""
        self._held.pop(stream, None)

    def owed_since_ms(self, unread: int | None, now_ms: int) -> int | None:
        """Returns the record time (ms, UTC) of the oldest event that is held back or not read yet;
        None where there is none. `unread`: how many offsets are not read yet, None if that is not
        known: then only those held back count."""
        for _, recorded_ms in self._held.values():
            known = latency_s(recorded_ms, now_ms) is not None
            return recorded_ms if known else self.unread_since_ms
        return self.unread_since_ms if unread else None

    @property
    def committable(self) -> int:
        """The offset that may be committed: the first one that a successor would have to read."""
        return next((offset for offset, _ in self._held.values()), self.next_offset)
