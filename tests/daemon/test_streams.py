"""Streams in memory: least recently changed first out, the busy spared."""

from __future__ import annotations

import pytest

from daemon.streams import Stream, StreamId, Streams
from daemon.window import Window, WindowShape

SHAPE = WindowShape(support_size=2, query_size=1, min_support=1, source_dim=1, target_dim=1)


def held(*keys: str) -> Streams:
    streams = Streams()
    for key in keys:
        partition = ord(key) % 2
        streams.add(Stream(StreamId(partition, key), Window(SHAPE)))
    return streams


def keys(streams: Streams) -> str:
    return "".join(id.key for id in streams)


def test_the_least_recently_changed_go_first() -> None:
    streams = held(*"abcd")
    streams.touch(StreamId(1, "a"))
    assert streams.evict(2, busy=lambda _id: False) == 2
    assert keys(streams) == "da"


def test_the_busy_are_spared_and_the_next_idle_goes_instead() -> None:
    streams = held(*"abcd")
    assert streams.evict(2, busy=lambda id: id.key in "ab") == 2
    assert keys(streams) == "ab"


def test_when_all_are_busy_none_goes() -> None:
    streams = held(*"abcd")
    assert streams.evict(1, busy=lambda _id: True) == 0
    assert keys(streams) == "abcd"


@pytest.mark.parametrize("most", [4, 5])
def test_as_many_as_may_stay_do(most: int) -> None:
    streams = held(*"abcd")
    assert streams.evict(most, busy=lambda _id: False) == 0
    assert len(streams) == 4


def test_a_partition_is_dropped_whole_and_alone() -> None:
    streams = held(*"abcd")
    assert streams.drop(1) == [StreamId(1, "a"), StreamId(1, "c")]
    assert keys(streams) == "bd"
    assert StreamId(0, "b") in streams
    assert StreamId(1, "a") not in streams
    assert streams.drop(7) == []


def test_an_unknown_stream_cannot_be_touched() -> None:
    with pytest.raises(KeyError):
        held("a").touch(StreamId(0, "z"))
