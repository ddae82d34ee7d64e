"""Whether a partition's log is still the one that offsets were noted of, and where to begin in it.
Pure.

Offsets say nothing about a log that was replaced. A topic that was deleted and made anew begins at
offset 0 again under another id. A log that a broker restored from an older copy keeps its id, but
is shorter than what was read, or holds other records at the same offsets. So three things are kept
beside the offsets: the topic's id, a count of the logs that had the same id (the generation), and a
fingerprint of the last record that was read.

Each log has windows of its own. When it is another one, its windows begin empty and it is read from
its beginning, whatever the group has committed: no record of it is taken for a replay.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

from daemon.turn.ports import Bounds, Claim, Extent, LastRead
from daemon.turn.report import OffsetMoved, OffsetRange, Replaced
from daemon.turn.tenure import Reset, starting_offset

NOTE = "adaptd"
"""The first word of the notes that this daemon puts beside the offsets that it commits."""
MOVED = f"{NOTE}-offsets-move"
"""The note beside an offset that an operator has moved with `adaptd offsets move`."""


class LogId(NamedTuple):
    """What tells two logs of one partition apart."""

    topic_id: str
    generation: int

    def note(self) -> str:
        """Returns the note that is committed beside an offset of this log."""
        return f"{NOTE} {self.topic_id} {self.generation}"


def noted_log(note: str) -> LogId | None:
    """Returns the log that an offset with this note is of, or None when another program, and so an
    operator, has committed the offset."""
    match note.split(" "):
        case [word, topic_id, generation] if word == NOTE and generation.isdecimal():
            return LogId(topic_id, int(generation))
    return None


@dataclass(frozen=True, slots=True)
class PartitionState:
    """What Kafka and the store say of a partition when its tenure begins."""

    topic_id: str
    extent: Extent
    bounds: Bounds
    claim: Claim
    came_later: bool
    """Whether the partition, or its topic, was made after the group had begun."""

    @property
    def log(self) -> LogId:
        """The log that windows and offsets are of from now on."""
        return LogId(self.topic_id, self.claim.generation)

    def replaced(self, *, suspected: bool) -> Replaced | None:
        """Returns how the log is another one than was read before, None if it is the same as far
        as can be known. `suspected`: whether a record showed that it is another one."""
        last = self.claim.last_read
        if last is not None and last.topic_id != self.topic_id:
            return "made_anew"
        if self.claim.position is not None and self.claim.position > self.extent.end:
            return "shorter"
        return "different" if suspected else None

    @property
    def commit_is_void(self) -> bool:
        """Whether the committed offset is one of another log."""
        if self.bounds.committed is None:
            return False
        noted = noted_log(self.bounds.note)
        return self.bounds.committed > self.extent.end or noted not in (None, self.log)

    @property
    def moved(self) -> bool:
        """Whether an operator has committed the offset. A group that an earlier version of this
        daemon has read with has committed without notes, and left no last read."""
        if self.bounds.committed is None or self.commit_is_void:
            return False
        if self.bounds.note == MOVED:
            return True
        earlier_version = self.claim.known and self.claim.last_read is None
        return noted_log(self.bounds.note) is None and not earlier_version


@dataclass(frozen=True, slots=True)
class Start:
    """Where a tenure begins."""

    offset: int
    committed: int | None
    """The group's committed offset; None if it has none in this log."""
    gone: OffsetRange | None
    """Offsets that were not read before retention removed them."""
    moved: OffsetMoved | None
    check: LastRead | None
    """The record to be compared, if the log still has it, before any record counts."""


def start_of(partition: int, state: PartitionState, reset: Reset, *, rebuild: bool) -> Start:
    """Returns where to begin to read the partition, and what was found on the way."""
    bounds, claim, moved = state.bounds, state.claim, state.moved
    if state.commit_is_void:
        bounds = replace(bounds, committed=None)
    if state.commit_is_void or state.came_later or claim.generation:
        reset = "earliest"
    offset = starting_offset(bounds, claim.position, reset, rebuild=rebuild, moved=moved)
    read = bounds.committed if claim.position is None else claim.position
    wanted = max(read or 0, bounds.committed or 0) if moved else read
    gone = None
    if wanted is not None and wanted < bounds.beginning:
        gone = OffsetRange(wanted, bounds.beginning)
    differs = moved and claim.position != bounds.committed
    last = claim.last_read
    check = last if last and not moved and last.offset < state.extent.end else None
    return Start(
        offset,
        bounds.committed,
        gone,
        OffsetMoved(partition, claim.position, offset) if differs else None,
        check if check and check.offset >= state.extent.beginning else None,
    )
