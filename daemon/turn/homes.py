"""In which partition each stream is, and which streams are seen in a second one. Pure: the store is
an argument.

A stream belongs to one partition, for its order is that of its offsets. It is in two when producers
choose partitions by different rules, or when partitions were added. Its home is the partition where
it was seen last, by the record times of its events.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from daemon.turn.ports import Home, WindowStore
from daemon.turn.report import StreamMoved
from daemon.turn.streams import StreamId


class Newcomer(NamedTuple):
    """A stream that comes into memory with an event."""

    stream: StreamId
    recorded_ms: int
    """The record time (ms, UTC) of the event."""
    has_window: bool
    """Whether its partition has had events of it before."""


def settle_homes(
    store: WindowStore, newcomers: Sequence[Newcomer], keep_ms: int
) -> list[StreamMoved]:
    """Stores where the newcomers are, and returns those that are seen in a second partition. Raises
    Unavailable."""
    homes = store.homes([newcomer.stream.key for newcomer in newcomers])
    moved, settled = find_moved(newcomers, homes, keep_ms)
    if settled:
        store.keep_homes(settled)
    return moved


def find_moved(
    newcomers: Iterable[Newcomer], homes: Mapping[str, Home], keep_ms: int
) -> tuple[list[StreamMoved], dict[str, Home]]:
    """Returns the streams that are seen in a second partition, and the homes to be stored.

    An event from before its stream moved, which is read again, moves nothing. A home that is older
    than `keep_ms` is stored again, so that it does not expire before its stream.
    """
    moved: list[StreamMoved] = []
    settled: dict[str, Home] = {}
    for (partition, key), recorded_ms, has_window in newcomers:
        home = settled.get(key) or homes.get(key)
        later = home is None or recorded_ms >= home.since_ms
        if home is None or home.partition == partition:
            if home is None or recorded_ms - home.since_ms > keep_ms:
                settled[key] = Home(partition, recorded_ms)
            continue
        if later or not has_window:
            moved.append(StreamMoved(key, home.partition, partition))
        if later:
            settled[key] = Home(partition, recorded_ms)
    return moved, settled
