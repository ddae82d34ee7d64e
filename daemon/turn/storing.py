"""How windows get into the store and back. Pure: the store is an argument."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from daemon.errors import Superseded
from daemon.turn.ownership import Ownership
from daemon.turn.pending import Done, Pending
from daemon.turn.ports import Append, LastRead, WindowStore
from daemon.turn.streams import Slid, StreamId, Streams

NOTHING_STORED: Pending[set[int]] = Done(set())
"""The result of an `append_all` of nothing."""


class PartitionAppend(NamedTuple):
    """The pairs to be appended to the windows of one partition, see `WindowStore.append`."""

    partition: int
    epoch: int
    position: int
    appends: Sequence[Append]


def partition_appends(
    partitions: Iterable[int], slid: Iterable[Slid], owned: Ownership
) -> list[PartitionAppend]:
    """Returns the appends that store what has slid into the windows of these partitions, and how
    far each was read. They keep nothing that the loop may change meanwhile."""
    pairs: dict[int, list[Append]] = {partition: [] for partition in partitions}
    for stream, new, _ in slid:
        pairs[stream.partition] += [Append(stream.key, pair) for pair in new]
    return [
        PartitionAppend(partition, owned[partition].epoch, owned[partition].next_offset, batch)
        for partition, batch in pairs.items()
    ]


def append_all(
    store: WindowStore, writes: Iterable[PartitionAppend], last_reads: Mapping[int, LastRead]
) -> set[int]:
    """Appends to every partition, and stores the last record that was read of each, on whatever
    thread it is called. Returns the partitions that another worker has claimed: nothing was
    appended to those. Raises Unavailable."""
    lost: set[int] = set()
    for write in writes:
        try:
            store.append(*write)
        except Superseded as e:
            lost |= e.partitions
    store.remember({p: read for p, read in last_reads.items() if p not in lost})
    return lost


def load_missing(store: WindowStore, streams: Streams, ids: Iterable[StreamId]) -> int:
    """Adds those of the streams that are not in memory, with the windows that the store has.
    Returns how many windows were found. Raises Unavailable."""
    missing: dict[int, list[str]] = {}
    for stream_id in dict.fromkeys(ids):
        if stream_id not in streams:
            missing.setdefault(stream_id.partition, []).append(stream_id.key)
    found = 0
    for partition, keys in missing.items():
        kept = store.load(partition, keys)
        streams.add({StreamId(partition, key): pairs for key, pairs in kept.items()})
        found += sum(map(bool, kept.values()))
    return found
