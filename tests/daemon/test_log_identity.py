"""Offsets that look alike and are of another log; offsets that an operator moved; events gone."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from msgspec import structs

from daemon.errors import Unavailable
from daemon.turn.homes import Newcomer, find_moved
from daemon.turn.log_identity import MOVED, LogId, PartitionState, noted_log, start_of
from daemon.turn.ports import Bounds, Claim, Extent, Home, LastRead
from daemon.turn.report import OffsetRange, StreamMoved
from daemon.turn.streams import StreamId
from daemon.turn.tenure import Reset, Tenure
from daemon.wire.adapted_mapping import AdaptedMapping, content_hash, encode_mapping
from daemon.wire.record import fingerprint
from tests.daemon.lab import D, E, Worker, World, policy

SUBSCRIBE = Path(__file__).parents[2] / "examples" / "subscribe.py"
OURS = LogId("t", 0).note()
READ = LastRead("t", 49, 7)


def state(
    committed: int | None,
    note: str = OURS,
    position: int | None = 50,
    generation: int = 0,
    last_read: LastRead | None = READ,
    **more: Any,
) -> PartitionState:
    """The log holds offsets 10 to 99."""
    claim = Claim(1, position, None, generation, last_read, more.get("known", True))
    bounds = Bounds(10, 100, committed, note)
    return PartitionState("t", Extent(10, 100), bounds, claim, more.get("came_later", False))


def test_a_note_is_read_as_it_was_written_and_no_other_is_ours() -> None:
    assert noted_log(LogId("a-b", 3).note()) == ("a-b", 3)
    for foreign in ("", "adaptd", "x t 0", "adaptd t -1", "adaptd t 0 1", MOVED):
        assert noted_log(foreign) is None


@pytest.mark.parametrize(
    ("given", "reset", "start", "committed", "gone"),
    [
        # an ordinary commit: what the store lacks is read again, what is owed too
        (state(60), "earliest", 50, 60, None),
        (state(40), "earliest", 40, 40, None),
        # an operator's: taken as it is
        (state(60, note=""), "earliest", 60, 60, None),
        (state(20, note=""), "earliest", 20, 20, None),
        (state(60, note=MOVED, last_read=None), "earliest", 60, 60, None),
        (state(60, note="", position=None), "earliest", 60, 60, None),
        # without notes, by an earlier version of this daemon: as an ordinary one
        (state(60, note="", last_read=None), "earliest", 50, 60, None),
        (state(60, note="", last_read=None, position=None), "earliest", 10, 60, None),
        (state(60, note="", last_read=None, position=None, known=False), "earliest", 60, 60, None),
        # of another log: void, and the log is read from its beginning
        (state(60, note=LogId("old", 0).note(), position=None), "latest", 10, None, None),
        (state(60, generation=1, position=None), "latest", 10, None, None),
        (state(500, position=None), "latest", 10, None, None),
        (state(500, note="", position=None), "latest", 10, None, None),
        # partitions that were added later lose nothing by `latest`
        (state(None, position=None, last_read=None, came_later=True), "latest", 10, None, None),
        (state(None, position=None, last_read=None), "latest", 100, None, None),
        # retention was faster
        (state(4, position=4), "earliest", 10, 4, OffsetRange(4, 10)),
        (state(4, position=60), "earliest", 10, 4, None),
        (state(4, position=None), "earliest", 10, 4, OffsetRange(4, 10)),
    ],
)
def test_where_to_begin(
    given: PartitionState,
    reset: Reset,
    start: int,
    committed: int | None,
    gone: OffsetRange | None,
) -> None:
    found = start_of(0, given, reset, rebuild=True)
    assert (found.offset, found.committed, found.gone) == (start, committed, gone)


@pytest.mark.parametrize(
    ("given", "suspected", "how"),
    [
        (state(50), False, None),
        (state(50, last_read=None), False, None),
        (state(50, last_read=LastRead("old", 3, 7)), False, "made_anew"),
        (state(50, position=101), False, "shorter"),
        (state(50, position=100), False, None),
        (state(50), True, "different"),
    ],
)
def test_how_a_log_is_another_one(given: PartitionState, suspected: bool, how: str | None) -> None:
    assert given.replaced(suspected=suspected) == how


def test_a_moved_offset_is_told_once() -> None:
    told = start_of(3, state(60, note=""), "earliest", rebuild=True).moved
    assert told == (3, 50, 60)
    assert start_of(3, state(60, note="", position=60), "earliest", rebuild=True).moved is None


# ---- the whole loop


@pytest.fixture
def world() -> World:
    return World()


def settings() -> Any:
    return policy(verify_interval_s=0.0)


def remake(world: World) -> None:
    world.topic.id += "'"
    world.topic.log.clear()


def settle(worker: Worker) -> list[Any]:
    """Turns until all is done; a turn that finds another log is given up."""
    reports = []
    for _ in range(12):
        try:
            reports.append(worker.turn(after_s=0.01))
        except Unavailable:
            worker.loop.recover()
    return reports


@pytest.mark.parametrize("later", [3, 12, 30])
@pytest.mark.parametrize("running", [True, False])
@pytest.mark.parametrize("how", ["made_anew", "restored", "restored_in_no_time"])
def test_no_event_of_another_log_is_taken_for_a_replay(
    world: World, running: bool, later: int, how: str
) -> None:
    world.feed("a", 20)
    worker = Worker(world, settings())
    worker.drain()
    if how == "made_anew":
        remake(world)
    elif how == "restored_in_no_time":  # no call fails, but connections do not outlive it
        del world.topic.log[1][8:]
        worker.source.reconnected = True
    else:  # a broker that restores its log is away meanwhile
        worker.source.down = True
        settle(worker)
        del world.topic.log[1][8:]
        worker.source.down = False
    world.feed("a", later, seed=1)
    if not running:
        worker = Worker(world, settings(), name="restarted")
    reports = settle(worker)
    log = world.topic.log[1]
    window = world.shelf.windows[1, "a"]
    assert [pair.id.offset for pair in window] == list(range(len(log)))[-8:]
    assert sum(report.pairs for report in reports) == len(log)
    assert [r.how for report in reports for r in report.replaced][-1:] != []
    fresh = World(topic=world.topic.__class__(2, log=world.topic.log))
    Worker(fresh).drain()
    assert [p.x_D.tobytes() for p in window] == [
        p.x_D.tobytes() for p in fresh.shelf.windows[1, "a"]
    ]


def test_a_log_that_is_the_same_is_compared_and_costs_nothing(world: World) -> None:
    world.feed("a", 20)
    Worker(world, settings()).drain()
    world.feed("a", 2)
    reports = Worker(world, settings(), name="restarted").drain()
    assert sum(report.pairs for report in reports) == 2
    assert sum(report.replayed_pairs for report in reports) == 0
    assert not any(report.replaced or report.moved or report.gone for report in reports)


def test_a_broker_that_comes_back_with_the_same_log_costs_one_record(world: World) -> None:
    world.feed("a", 20)
    worker = Worker(world, settings())
    worker.drain()
    world.feed("a", 5)
    for _ in range(3):  # again before the record was compared, too
        worker.source.reconnected = True
        assert not worker.turn(after_s=0.01).offsets
    reports = worker.drain()
    assert sum(report.pairs for report in reports) == 5
    assert sum(report.replayed_pairs for report in reports) == 0
    assert world.topic.committed[1] == 25
    assert not any(report.replaced or report.lost or report.claimed for report in reports)


def test_an_operator_moves_the_group_forward_and_back(world: World) -> None:
    world.feed("a", 10)
    Worker(world).drain()
    world.feed("a", 10, seed=1)
    world.topic.committed[1], world.topic.notes[1] = 15, ""
    reports = Worker(world, name="forward").drain()
    assert [report.moved for report in reports if report.moved] == [[(1, 10, 15)]]
    offsets = [pair.id.offset for pair in world.shelf.windows[1, "a"]]
    assert offsets == [7, 8, 9, 15, 16, 17, 18, 19]
    world.topic.committed[1], world.topic.notes[1] = 2, ""
    published = len(world.mappings("a"))
    reports = Worker(world, name="back").drain()
    assert sum(report.replayed_pairs for report in reports) == 18
    assert sum(report.pairs for report in reports) == 0
    assert [pair.id.offset for pair in world.shelf.windows[1, "a"]] == offsets
    assert len(world.mappings("a")) > published
    assert world.topic.committed[1] == 20


def test_events_that_retention_removed_are_told_once(world: World) -> None:
    world.feed("a", 10)
    worker = Worker(world, settings())
    worker.drain()
    world.feed("a", 10)
    world.topic.beginning[1] = 14  # under the running worker
    reports = [worker.turn(after_s=0.01) for _ in range(5)]
    assert [r.gone for r in reports if r.gone] == [{1: (10, 14)}]
    world.feed("a", 10)
    world.topic.beginning[1] = 24  # and while none runs
    reports = Worker(world, settings(), name="restarted").drain()
    assert [r.gone for r in reports if r.gone] == [{1: (20, 24)}]
    reports = Worker(world, settings(), name="again").drain()
    assert not any(r.gone for r in reports)


def test_gaps_of_markers_are_not_taken_for_retention() -> None:
    tenure, world = Tenure(1, 5, None), World()
    world.feed("a", 20)
    log = world.topic.records(1)
    assert tenure.admit(log[7:9]) is not None
    assert tenure.gone_before(0) is None
    assert tenure.gone_before(7) is None  # asked once, forgotten


def test_a_record_at_the_place_of_the_last_one_is_compared() -> None:
    world = World()
    world.feed("a", 6)
    log = world.topic.records(1)
    last = LastRead("t", 3, fingerprint(log[3]))
    same = Tenure(1, 4, None, check=last)
    assert same.admit(log[3:]) == log[4:]
    other = Tenure(1, 4, None, check=last._replace(fingerprint=1))
    assert other.admit(log[3:]) is None
    compacted = Tenure(1, 4, None, check=last._replace(fingerprint=1))
    assert compacted.admit(log[4:]) == log[4:]
    went_back = Tenure(1, 4, None)
    assert went_back.admit(log[3:]) is None


def test_nothing_takes_the_place_of_a_record_that_is_still_to_be_compared() -> None:
    world = World()
    world.feed("a", 6)
    log = world.topic.records(1)
    tenure = Tenure(1, 1, None, check=LastRead("t", 4, 1))
    assert tenure.admit(log[1:3]) == log[1:3]
    tenure.mark_read("t", log[2])
    assert (tenure.next_offset, tenure.last_read) == (3, None)
    assert tenure.admit(log[3:]) is None  # it is another one
    compared = Tenure(1, 1, None, check=LastRead("t", 4, fingerprint(log[4])))
    assert compared.admit(log[1:]) == log[1:]
    compared.mark_read("t", log[5])
    assert compared.last_read == LastRead("t", 5, fingerprint(log[5]))


# ---- one stream in two partitions


def test_a_stream_in_a_second_partition_is_found_and_old_events_move_nothing() -> None:
    def found(partition: int, ms: int, home: Home | None, *, has_window: bool = False) -> Any:
        newcomer = Newcomer(StreamId(partition, "s"), ms, has_window)
        return find_moved([newcomer], {"s": home} if home else {}, keep_ms=1_000)

    assert found(0, 5, None) == ([], {"s": (0, 5)})
    assert found(0, 5, Home(0, 4)) == ([], {})
    assert found(0, 5_000, Home(0, 4)) == ([], {"s": (0, 5_000)})
    assert found(1, 5, Home(0, 4)) == ([StreamMoved("s", 0, 1)], {"s": (1, 5)})
    assert found(1, 3, Home(0, 4), has_window=True) == ([], {})  # read again after it moved
    assert found(1, 3, Home(0, 4)) == ([StreamMoved("s", 0, 1)], {})  # a backlog


def test_streams_in_two_partitions_are_told_and_renewed_in_the_last_one(world: World) -> None:
    worker = Worker(world)
    world.feed("a", 8)
    worker.drain()
    world.clock.at += 1
    for record in world.topic.records(1):
        world.topic.produce(0, record.key, record.value, timestamp_ms=world.clock.wall_ms())
    reports = worker.drain()
    assert [m for r in reports for m in r.streams_moved] == [StreamMoved("a", 1, 0)]
    assert {m.facts.partition for m in world.mappings("a")} == {0, 1}
    del world.shelf.marks[0], world.shelf.marks[1]  # as if another θ had been served
    count = len(world.mappings("a"))
    Worker(world, name="renews").drain()
    assert {m.facts.partition for m in world.mappings("a")[count:]} == {0}


def with_two_layers(mapping: AdaptedMapping) -> AdaptedMapping:
    """The mapping with tensors that readers can apply, which the small engine's are not."""
    shapes = {"w1": (0, D), "b1": (0,), "w2": (E, 0), "b2": (E,)}
    tensors = {name: np.zeros(shape, np.float32) for name, shape in shapes.items()}
    facts = structs.replace(mapping.facts, content_hash=content_hash(tensors))
    return AdaptedMapping(tensors, facts)


def test_a_reader_keeps_the_mapping_of_the_partition_with_the_newer_event(world: World) -> None:
    """Whatever the epochs: those of two partitions have nothing to do with each other."""
    world.feed("a", 8)
    worker = Worker(world)
    worker.drain()
    world.clock.at += 1
    for record in world.topic.records(1):
        world.topic.produce(0, record.key, record.value, timestamp_ms=world.clock.wall_ms())
    worker.drain()
    world.topic.notes[1], world.topic.committed[1] = "", 3
    Worker(world, partitions=[1], name="late").drain()  # a larger epoch for the old partition
    spec = importlib.util.spec_from_file_location("subscribe", SUBSCRIBE)
    assert spec
    assert spec.loader
    reader = importlib.util.module_from_spec(spec)
    sys.modules["subscribe"] = reader
    spec.loader.exec_module(reader)
    orders: dict[str, tuple[int, int]] = {}
    places: dict[str, tuple[int, int]] = {}
    kept = []
    for mapping in world.mappings("a"):
        value, _ = encode_mapping(with_two_layers(mapping))
        sent = SimpleNamespace(key=b"a", value=value)
        kept += [m.facts for _, m in reader._newer(sent, orders, places=places)]
    facts = [m.facts for m in world.mappings("a")]
    assert facts[-1].partition == 1
    assert facts[-1].epoch > max(f.epoch for f in facts if f.partition == 0)
    assert kept[-1]["partition"] == "0"
