"""How windows get into the store and back. Pure: the store is an argument."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence, Set
from types import MappingProxyType
from typing import NamedTuple

from daemon.errors import Superseded
from daemon.turn.ownership import Ownership
from daemon.turn.pending import Done, Pending
from daemon.turn.ports import Append, LastRead, WindowStore
from daemon.turn.report import Verdict
from daemon.turn.streams import Slid, StreamId, Streams


class Stored(NamedTuple):
    """What came of the appends of a turn."""

    superseded: Set[int] = frozenset()
    """Partitions that another worker has claimed: nothing was appended to those."""
    damaged: Mapping[int, Sequence[str]] = MappingProxyType({})
    """Streams by partition whose windows the store had lost, in part or whole."""


NOTHING_STORED: Pending[Stored] = Done(Stored())
"""The result of an `append_all` of nothing."""


class PartitionAppend(NamedTuple):
    """The pairs to be appended to the windows of one partition, see `WindowStore.append`."""

    partition: int
    epoch: int
    position: int
    appends: Sequence[Append]
    lengths: Mapping[str, int]


def partition_appends(
    partitions: Iterable[int], slid: Iterable[Slid], owned: Ownership, streams: Streams
) -> list[PartitionAppend]:
    """Returns the appends that store what has slid into the windows of these partitions, how far
    each was read, and how many pairs the store has of each window. They keep nothing that the
    loop may change meanwhile."""
    pairs: dict[int, list[Append]] = {partition: [] for partition in partitions}
    lengths: dict[int, dict[str, int]] = {partition: {} for partition in pairs}
    for stream, new, _ in slid:
        pairs[stream.partition] += [Append(stream.key, pair) for pair in new]
        if new and stream.key not in lengths[stream.partition]:
            lengths[stream.partition][stream.key] = streams.mark_stored(stream)
    return [
        PartitionAppend(p, owned[p].epoch, owned[p].next_offset, batch, lengths[p])
        for p, batch in pairs.items()
    ]


def append_all(
    store: WindowStore, writes: Iterable[PartitionAppend], last_reads: Mapping[int, LastRead]
) -> Stored:
    """Appends to every partition, and stores the last record that was read of each, on whatever
    thread it is called. Raises Unavailable."""
    superseded: set[int] = set()
    damaged: dict[int, Sequence[str]] = {}
    for write in writes:
        try:
            appended = store.append(*write)
        except Superseded as e:
            superseded |= e.partitions
        else:
            if appended.damaged:
                damaged[write.partition] = appended.damaged
    store.remember({p: read for p, read in last_reads.items() if p not in superseded})
    return Stored(superseded, damaged)


def restore_damaged(
    store: WindowStore,
    streams: Streams,
    damaged: Mapping[int, Sequence[str]],
    owned: Ownership,
) -> set[int]:
    """Writes damaged windows again as they are in memory. Returns the partitions that another
    worker has claimed: nothing was written to those. Raises Unavailable."""
    superseded: set[int] = set()
    for partition, keys in damaged.items():
        if partition not in owned:
            continue
        windows = {key: streams.window(StreamId(partition, key)) for key in keys}
        try:
            store.restore(partition, owned[partition].epoch, windows)
        except Superseded as e:
            superseded |= e.partitions
    return superseded


def shorten_all(store: WindowStore, verdicts: Iterable[Verdict], owned: Ownership) -> set[int]:
    """Shortens the windows of streams that have changed. Returns the partitions that another worker
    has claimed: nothing was changed in those. Raises Unavailable."""
    since: dict[int, dict[str, int]] = {}
    for verdict in verdicts:
        if verdict.shortened:
            since.setdefault(verdict.stream.partition, {})[verdict.stream.key] = (
                verdict.window_since
            )
    lost: set[int] = set()
    for partition, streams in since.items():
        try:
            store.shorten(partition, owned[partition].epoch, streams)
        except Superseded as e:
            lost |= e.partitions
    return lost


class Loaded(NamedTuple):
    """What came into memory from the store."""

    windows: int
    returned: int
    """Streams that were in memory some time before."""


def load_missing(store: WindowStore, streams: Streams, ids: Iterable[StreamId]) -> Loaded:
    """Adds those of the streams that are not in memory, with the windows that the store has.
    Raises Unavailable."""
    missing: dict[int, list[str]] = {}
    for stream_id in dict.fromkeys(ids):
        if stream_id not in streams:
            missing.setdefault(stream_id.partition, []).append(stream_id.key)
    found = returned = 0
    for partition, keys in missing.items():
        kept = store.load(partition, keys)
        returned += streams.add({StreamId(partition, key): pairs for key, pairs in kept.items()})
        found += sum(map(bool, kept.values()))
    return Loaded(found, returned)
