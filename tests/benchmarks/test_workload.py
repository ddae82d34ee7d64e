from collections import Counter
from itertools import islice

import msgspec
import numpy as np
import pytest

from benchmarks.stream.plan import StreamPlan
from benchmarks.stream.workload import PHASES, Workload, stream_name, stream_number
from daemon.wire.paired_event import PairedEvent, Vector

STREAMS = 12
WORKLOAD = Workload(dim=8, streams=STREAMS, partitions=4, window_size=3, seed=5)
HEAD = WORKLOAD.head_count


def keys(first: int, count: int) -> list[bytes]:
    return [event.key for event in WORKLOAD.events(first, count)]


def test_the_same_seed_gives_the_same_events_wherever_they_begin() -> None:
    whole = list(WORKLOAD.events(0, 60))
    assert list(WORKLOAD.events(0, 60)) == whole
    assert list(WORKLOAD.events(25, 35)) == whole[25:]


def test_first_every_window_is_filled_at_once() -> None:
    filling = list(WORKLOAD.events(0, STREAMS))
    assert len({event.key for event in filling}) == STREAMS
    decoder = msgspec.msgpack.Decoder(PairedEvent)
    assert {len(decoder.decode(event.value).pairs) for event in filling} == {3}
    assert len(decoder.decode(next(WORKLOAD.events(STREAMS, 1)).value).pairs) == 1


def test_streams_enter_the_rounds_in_every_phase_alike() -> None:
    extra = Counter(keys(STREAMS, HEAD - STREAMS))
    phases = Counter(extra.get(stream_name(s).encode(), 0) for s in range(STREAMS))
    assert phases == dict.fromkeys(range(PHASES), STREAMS // PHASES)


def test_any_as_many_neighbouring_events_as_streams_are_of_different_streams() -> None:
    later = keys(HEAD, 4 * STREAMS)
    for start in range(3 * STREAMS):
        assert len(set(later[start : start + STREAMS])) == STREAMS


def test_a_stream_stays_in_its_partition() -> None:
    partitions: dict[bytes, set[int]] = {}
    for event in WORKLOAD.events(0, 200):
        partitions.setdefault(event.key, set()).add(event.partition)
    assert all(len(found) == 1 for found in partitions.values())
    assert set().union(*partitions.values()) == {0, 1, 2, 3}


def test_a_window_is_what_a_reader_of_the_partition_would_keep() -> None:
    decoder = msgspec.msgpack.Decoder(PairedEvent)
    windows: dict[bytes, list[tuple[bytes, bytes]]] = {}
    offsets: Counter[int] = Counter()
    for event in WORKLOAD.events(0, 100):
        pairs = decoder.decode(event.value).pairs
        kept = windows.setdefault(event.key, [])
        for pair in pairs:
            assert isinstance(pair.source, Vector)
            assert isinstance(pair.target, Vector)
            kept.append((pair.source.data, pair.target.data))
        del kept[:-3]
        stream = stream_number(event.key.decode())
        x_WD, y_WD = WORKLOAD.window(stream, offsets[event.partition])
        expected = [(x.tobytes(), y.tobytes()) for x, y in zip(x_WD, y_WD, strict=True)]
        assert kept == expected
        offsets[event.partition] += 1


@pytest.mark.parametrize("streams", [1, 509, 512, 2_000])
def test_the_pairs_of_a_window_differ(streams: int) -> None:
    workload = Workload(dim=4, streams=streams, partitions=1, window_size=20, seed=0)
    later = islice(range(workload.head_count, 10**9), 0, 25 * streams, streams)
    sources = {workload.pairs_at(index)[0].tobytes() for index in later}
    # 509 sources, and streams that are a multiple of 509 meet one alone
    assert len(sources) == (1 if streams == 509 else 25)


def test_an_event_is_what_the_daemon_reads() -> None:
    workload = StreamPlan(streams=5).workload()
    value = next(workload.events(5, 1)).value
    (pair,) = msgspec.msgpack.decode(value, type=PairedEvent).pairs
    assert isinstance(pair.source, Vector)
    assert isinstance(pair.target, Vector)
    assert (pair.source.shape, pair.target.shape) == ([512], [512])
    assert len(pair.source.data) + len(pair.target.data) == 4096
    assert np.isfinite(np.frombuffer(pair.source.data, np.float32)).all()
