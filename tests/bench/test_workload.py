from collections import Counter

import msgspec
import numpy as np
import pytest

from daemon.bench.plan import Plan
from daemon.bench.workload import Workload
from daemon.wire.paired_event import PairedEvent, Vector

WORKLOAD = Workload(source_dim=8, target_dim=4, streams=10, partitions=4, rounds=3, seed=5)


def test_the_same_seed_gives_the_same_events() -> None:
    assert list(WORKLOAD.events(50)) == list(WORKLOAD.events(50))


def test_another_part_has_other_events() -> None:
    assert list(WORKLOAD.events(50)) != list(WORKLOAD.events(50, part=1))


def test_the_first_rounds_have_every_stream_once() -> None:
    keys = [event.key for event in WORKLOAD.events(30)]
    assert all(len(set(keys[start : start + 10])) == 10 for start in (0, 10, 20))


def test_a_stream_stays_in_its_partition() -> None:
    partitions: dict[bytes, set[int]] = {}
    for event in WORKLOAD.events(200):
        partitions.setdefault(event.key, set()).add(event.partition)
    assert all(len(found) == 1 for found in partitions.values())
    assert set().union(*partitions.values()) == {0, 1, 2, 3}


def test_the_count_by_stream_is_that_of_the_events() -> None:
    both = [*WORKLOAD.events(70), *WORKLOAD.events(20, part=1)]
    assert WORKLOAD.pairs_by_stream(70, 20) == Counter(event.key.decode() for event in both)


def test_an_event_is_what_the_daemon_reads() -> None:
    value = next(WORKLOAD.events(1)).value
    (pair,) = msgspec.msgpack.decode(value, type=PairedEvent).pairs
    assert isinstance(pair.source, Vector)
    assert isinstance(pair.target, Vector)
    assert (pair.source.shape, pair.target.shape) == ([8], [4])
    assert np.isfinite(np.frombuffer(pair.source.data, np.float32)).all()
    assert WORKLOAD.event_bytes() == len(value)


@pytest.mark.parametrize("streams", [1, 7, 2_000])
def test_no_stream_is_ready_before_the_filling_is_over(streams: int) -> None:
    plan = Plan(streams=streams, steady_events=10)
    counts = plan.workload(8).pairs_by_stream(plan.filling_events)
    assert set(counts.values()) == {4}
    assert plan.events == plan.filling_events + streams + 10
