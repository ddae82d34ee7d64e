"""Whole turns on in-memory ports and a small engine, by a clock that stands still."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar, cast

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from daemon.adapters.memory import MemoryOutbox, MemoryShelf
from daemon.errors import Unavailable
from daemon.turn.decoding import decode_record
from daemon.turn.ports import EventSource, Polled, Side, Windows
from daemon.turn.report import STAGES, OffsetRange, TurnReport, Verdict
from daemon.turn.streams import StreamId
from daemon.wire.record import Message
from model.values.arrays import FloatArray
from model.values.episode import Adaptation, Cut, Episode
from model.values.gate import Outcome
from tests.daemon.lab import (
    LINEAR,
    D,
    E,
    LinearEngine,
    Worker,
    World,
    event,
    pair_of,
    partition_of,
    policy,
    winner_by,
)


class Moody(LinearEngine):
    """Adaptations with the query losses that a test says."""

    def __init__(self) -> None:
        self.after = 0.5
        self.finite = True

    def adapt(self, episodes: Sequence[Episode]) -> list[Adaptation]:
        fitted = super().adapt(episodes)
        winner = winner_by(1.0, self.after)
        return [
            Adaptation(a.tensors, 1.0, 1.0, 1.0, self.after, self.finite, winner=winner)
            for a in fitted
        ]


@pytest.fixture
def moody() -> Moody:
    return Moody()


@pytest.fixture
def world() -> World:
    return World()


def versions(world: World, key: str) -> list[int]:
    return [mapping.facts.version for mapping in world.mappings(key)]


def test_a_stream_is_adapted_once_it_has_enough_pairs(world: World) -> None:
    worker = Worker(world)
    worker.begin()
    for count in (1, 2, 3):
        world.feed("a")
        report = worker.turn()
        assert len(report.published) == (count == 3)
    (mapping,) = world.mappings("a")
    assert (mapping.facts.support_pairs, mapping.facts.query_pairs) == (3, 1)
    assert mapping.facts.version == 2
    assert mapping.facts.epoch == world.shelf.epochs[1]
    assert mapping.facts.outcome is Outcome.ADAPTED
    assert mapping.facts.query_loss_after < mapping.facts.query_loss_before


def test_a_mapping_is_what_the_engine_makes_of_the_window(world: World) -> None:
    worker = Worker(world)
    worker.begin()
    world.feed("a", 20)
    worker.turn()
    x, y = (np.stack(side) for side in zip(*(pair_of("a", n) for n in range(12, 20)), strict=True))
    (expected,) = LINEAR.adapt([Episode(x[:6], y[:6], x[6:], y[6:])])
    (mapping,) = world.mappings("a")
    for name, tensor in expected.tensors.items():
        assert mapping.tensors[name].tobytes() == tensor.tobytes()
    assert mapping.facts.query_loss_after == expected.query_loss_after


def test_a_turn_reports_what_it_did(world: World) -> None:
    worker = Worker(world)
    worker.begin()
    world.feed("a", 3)
    world.produce("a", b"junk")
    world.feed("b", 1)
    report = worker.turn()
    assert tuple(report.stages) == STAGES
    assert report.offsets == {0: OffsetRange(0, 1), 1: OffsetRange(0, 4)}
    assert (report.events, report.pairs, report.replayed_pairs) == (4, 4, 0)
    assert report.dead_letters == {"schema": 1}
    assert [(p.stream, p.version) for p in report.published] == [(StreamId(1, "a"), 2)]
    assert (report.holdings.assigned, report.holdings.streams) == (2, 2)
    assert report.holdings.window_bytes == 2 * 8 * 4 * (D + E)
    assert world.topic.committed == {0: 1, 1: 4}
    assert worker.turn().committed == {0: 1, 1: 4}  # by now it is known
    assert not report.idle
    assert worker.turn().idle


def test_changed_streams_wait_for_a_full_batch_and_no_longer_than_allowed(world: World) -> None:
    worker = Worker(world, policy(max_wait_s=0.5, max_batch=3))
    worker.begin()
    world.feed("a", 3)
    assert worker.turn().verdicts == []
    world.feed("b", 3)
    assert worker.turn(after_s=0.4).verdicts == []
    assert len(worker.turn(after_s=0.2).published) == 2
    for key in "abc":
        world.feed(key, 3)
    assert len(worker.turn().published) == 3


def test_more_streams_than_a_batch_takes_come_in_the_next_turns(world: World) -> None:
    worker = Worker(world, policy(max_batch=2))
    worker.begin()
    for key in "abcde":
        world.feed(key, 3)
    reports = [worker.turn() for _ in range(4)]
    assert [len(report.published) for report in reports] == [2, 2, 1, 0]
    assert {m.facts.stream for m in world.mappings()} == set("abcde")


def test_a_stream_is_published_at_most_once_an_interval_and_its_last_change_too(
    world: World, moody: Moody
) -> None:
    worker = Worker(world, policy(publish_interval_s=10.0), engine=moody)
    worker.begin()
    world.feed("a", 3)
    worker.turn()
    for _ in range(5):
        world.feed("a")
        report = worker.turn(after_s=1.0)
        assert report.published == []
        assert report.holdings.deferred == 1
    assert world.topic.committed[1] == 3  # a successor must make up for what is still owed
    report = worker.turn(after_s=5.0)
    assert [published.version for published in report.published] == [7]
    assert report.published[0].latency_s == pytest.approx(10.0)
    assert world.topic.committed[1] == 8
    assert versions(world, "a") == [2, 7]


def test_a_change_of_the_gates_mind_is_published_when_it_is_found_and_a_fallback_once(
    world: World, moody: Moody
) -> None:
    worker = Worker(world, policy(publish_interval_s=10.0), engine=moody)
    worker.begin()
    world.feed("a", 2)
    for after_s, after, finite, adapted, published in [
        (0.1, 0.5, True, True, True),
        (0.1, 2.0, True, False, False),  # within the interval: nobody would receive it
        (9.9, 2.0, True, True, True),  # worse
        (0.1, 2.0, True, True, False),  # still worse: once is enough
        (0.1, 2.0, False, True, False),  # a fallback for another reason is the same θ
        (0.1, 0.5, True, True, True),  # good again: at once
        (0.1, 0.5, True, False, False),  # within the interval
    ]:
        moody.after, moody.finite = after, finite
        world.feed("a")
        report = worker.turn(after_s=after_s)
        assert (bool(report.verdicts), bool(report.published)) == (adapted, published)
    outcomes = [mapping.facts.outcome.value for mapping in world.mappings("a")]
    assert outcomes == ["adapted", "worse", "adapted"]


@given(st.data())
@settings(max_examples=50, deadline=None)
def test_what_is_published_is_what_adapting_on_every_event_makes(data: st.DataObject) -> None:
    """To the bit, and the last event of every stream is reflected in the end."""
    steps = data.draw(
        st.lists(
            st.tuples(st.sampled_from("abcd"), st.integers(1, 4), st.floats(0, 0.7)),
            min_size=1,
            max_size=30,
        )
    )
    draw = data.draw
    seldom = policy(
        publish_interval_s=draw(st.sampled_from([0.05, 1.0])),
        max_wait_s=draw(st.sampled_from([0.0, 0.02])),
        max_batch=draw(st.sampled_from([1, 8])),
        max_resident_streams=draw(st.sampled_from([2, 100])),
        adapt_every=draw(st.sampled_from([1, 3])),
    )
    sparing, eager = World(), World()
    worker, every = Worker(sparing, seldom), Worker(eager)
    worker.begin()
    every.begin()
    reports, expected = list[TurnReport](), dict[tuple[str, int], object]()
    for key, count, after_s in steps:
        for _ in range(count):
            sparing.feed(key)
            eager.feed(key)
            for verdict in every.turn().verdicts:
                expected[key, verdict.version] = made_of(verdict)
        reports.append(worker.turn(after_s))
    reports += worker.drain()
    for mapping in sparing.mappings():
        facts = mapping.facts
        assert (facts.outcome, bits(mapping.tensors)) == expected[facts.stream, facts.version]
    newest = [{k: bits(m.tensors) for k, m in w.newest().items()} for w in (sparing, eager)]
    assert newest[0] == newest[1]
    assert sparing.topic.committed == eager.topic.committed
    for report in reports:  # nothing is adapted in vain but what turns out to be θ again
        published = {publication.stream for publication in report.published}
        assert all(v.outcome.is_fallback or v.stream in published for v in report.verdicts)


def made_of(verdict: Verdict) -> tuple[Outcome, Mapping[str, bytes]]:
    fallback = verdict.outcome.is_fallback
    return verdict.outcome, bits(LINEAR.theta_mapping() if fallback else verdict.adaptation.tensors)


def bits(tensors: Mapping[str, FloatArray]) -> Mapping[str, bytes]:
    return {name: tensor.tobytes() for name, tensor in tensors.items()}


def test_a_fallback_is_theta_and_releases_the_commit(world: World, moody: Moody) -> None:
    worker = Worker(world, engine=moody)
    moody.after = 9.0
    worker.begin()
    world.feed("a", 3)
    worker.turn()
    world.feed("a", 2)
    worker.turn()
    (mapping,) = world.mappings("a")
    theta: Mapping[str, FloatArray] = LINEAR.theta_mapping()
    assert {n: t.tobytes() for n, t in mapping.tensors.items()} == {
        n: t.tobytes() for n, t in theta.items()
    }
    assert world.topic.committed[1] == 5


def test_one_exploding_stream_gets_the_fallback_and_its_neighbours_the_same_bits() -> None:
    calm, shaken = World(), World()
    for world in (calm, shaken):
        for key in "abc":
            world.feed(key, 5)
        if world is shaken:
            world.feed("d", 5, scale=1e30)
        worker = Worker(world)
        worker.begin()
        worker.turn()
    assert shaken.newest()["d"].facts.outcome is Outcome.NOT_FINITE
    for key, mapping in calm.newest().items():
        assert shaken.newest()[key].facts.content_hash == mapping.facts.content_hash


BAD = {
    "schema": b"junk",
    "undecodable": b"",
    "wrong_dimension": event((np.zeros(7, np.float32), np.zeros(E, np.float32))),
    "not_finite": event((np.full(4, np.nan, np.float32), np.zeros(E, np.float32))),
    "wrong_pair_count": event(*[pair_of("a", 1)] * 5),
    "oversize": bytes(10_001),
    "no_value": None,
}


def header(message: Message, name: str) -> str:
    return (dict(message.headers)[name] or b"").decode()


def test_bad_events_become_dead_letters_and_the_good_ones_count(world: World) -> None:
    worker = Worker(world)
    worker.begin()
    for value in BAD.values():
        world.feed("a")
        world.produce("a", value)
    report = worker.turn()
    letters = world.of("letters")
    assert [header(m, "adaptd-reason") for m in letters] == list(BAD)
    offsets = [int(header(m, "adaptd-offset")) for m in letters]
    assert offsets == list(range(1, 15, 2))
    assert {m.key for m in letters} == {b"a"}
    assert report.dead_letters == dict.fromkeys(BAD, 1)
    assert report.events == len(BAD)
    assert world.newest()["a"].facts.version == 12
    assert world.topic.committed[1] == 14


def test_what_brings_no_record_is_passed_in_kafka_and_in_redis(world: World) -> None:
    worker = Worker(world)
    worker.begin()
    place = partition_of("a")
    for _ in range(3):
        world.feed("a")
        world.topic.pass_over(place)
        worker.turn()
    report = worker.turn()
    assert world.topic.committed[place] == 6
    assert world.shelf.positions[place] == 6
    assert report.holdings.lag[place] == 0
    for _ in range(2):
        world.topic.pass_over(place)
    assert worker.turn().offsets == {place: OffsetRange(6, 8)}
    worker.turn()
    assert (world.topic.committed[place], world.shelf.positions[place]) == (8, 8)


def test_the_commit_does_not_pass_an_event_whose_mapping_is_owed(world: World) -> None:
    worker = Worker(world, policy(publish_interval_s=5.0))
    worker.begin()
    place = partition_of("a")
    world.feed("a", 3)
    worker.turn()
    world.feed("a")
    world.topic.pass_over(place)
    for _ in range(3):
        worker.turn()
    assert world.topic.committed[place] == 3
    for _ in range(3):
        worker.turn(after_s=6.0)
    assert world.topic.committed[place] == 5


def test_a_record_that_the_client_cannot_parse_is_a_dead_letter(world: World) -> None:
    worker = Worker(world)
    worker.begin()
    place = partition_of("a")
    world.feed("a", 4)
    world.topic.damage(place, 1)
    report = worker.turn()
    assert report.dead_letters == {"unreadable": 1}
    assert report.events == 3
    assert len(world.mappings("a")) == 1
    worker.turn()
    assert world.topic.committed[place] == 4


def test_a_decoder_that_fails_in_a_new_way_costs_one_event(world: World) -> None:
    class Brittle(LinearEngine):
        def prepare(self, side: Side, modality: str, content: object) -> NDArray[Any]:
            if np.asarray(content)[0] == 13.0:
                raise KeyError("a bug")
            return super().prepare(side, modality, content)

    worker = Worker(world, engine=Brittle())
    worker.begin()
    world.feed("a", 3)
    world.produce("a", event((np.full(4, 13.0, np.float32), np.zeros(E, np.float32))))
    world.feed("a", 1)
    report = worker.turn()
    (letter,) = world.of("letters")
    headers = dict(letter.headers)
    assert headers["adaptd-reason"] == b"decoder_failed"
    assert headers["adaptd-detail"] == b"source of pair 0: KeyError: 'a bug'"
    assert report.events == 4
    assert world.topic.committed[1] == 5


def test_dead_letters_that_flow_back_into_the_events_topic_come_to_rest(world: World) -> None:
    """Whatever copies the topic of dead letters into the events topic: a connector, an operator."""
    worker = Worker(world)
    worker.begin()
    world.produce("a", b"junk")
    returned, reasons = 0, Counter[str]()
    for _ in range(10):
        reasons += worker.turn(after_s=0.01).dead_letters
        for letter in world.of("letters")[returned:]:
            world.topic.produce(1, letter.key, letter.value, headers=letter.headers)
            returned += 1
    assert reasons == {"schema": 3, "repeated_dead_letter": 1}
    assert [dict(m.headers).get("adaptd-attempts") for m in world.of("letters")] == [
        None,
        b"2",
        b"3",
    ]
    assert world.topic.committed[1] == 4


def test_a_dead_letter_that_is_mended_is_an_event_like_any_other(world: World) -> None:
    worker = Worker(world)
    worker.begin()
    world.produce("a", b"junk")
    worker.turn()
    (letter,) = world.of("letters")
    world.topic.produce(1, letter.key, event(pair_of("a", 1)), headers=letter.headers)
    assert worker.turn(after_s=0.01).events == 1


def test_a_stream_is_adapted_again_after_so_many_events(world: World) -> None:
    worker = Worker(world, policy(adapt_every=3, adapt_latest_s=1e6))
    worker.begin()
    for _ in range(10):
        world.feed("a")
        worker.turn()
    assert versions(world, "a") == [2, 5, 8]  # as soon as it is ready, then every third
    assert world.topic.committed[1] == 9  # the event that waits is read again after a restart


def test_fewer_events_than_that_wait_no_longer_than_they_may(world: World) -> None:
    worker = Worker(world, policy(adapt_every=100, adapt_latest_s=2.0))
    worker.begin()
    world.feed("a", 3)
    worker.turn()
    world.feed("a", 2)
    worker.turn(after_s=5.0)
    world.feed("a")
    assert worker.turn(after_s=1.9).verdicts == []
    report = worker.turn(after_s=0.1)
    assert versions(world, "a") == [2, 5]
    assert report.published[0].latency_s == 7.0  # since the oldest that waited was recorded
    assert worker.turn(after_s=9.0).verdicts == []
    assert world.topic.committed[1] == 6


def test_turns_begin_apart_but_what_is_due_is_not_kept_waiting(world: World) -> None:
    worker = Worker(world, policy(turn_interval_s=0.2, max_wait_s=0.25))
    worker.begin()
    began = world.clock.now()
    worker.turn()
    assert world.clock.now() == pytest.approx(began + 0.2)
    world.feed("a", 3)
    worker.turn()
    assert world.mappings() == []
    worker.turn()
    assert world.clock.now() == pytest.approx(began + 0.4 + 0.05)  # no longer than max_wait
    assert versions(world, "a") == [2]
    worker.turn(after_s=5.0)
    assert world.clock.now() == pytest.approx(began + 5.45)  # one that is late sleeps no more


class Trickle:
    """A source whose events come one by one, 5 ms apart, of ten streams in turn."""

    def __init__(self, world: World, port: EventSource) -> None:
        self._world, self._port, self._came = world, port, itertools.count()
        self._next_s = world.clock.now()

    def poll(self, timeout_s: float, max_records: int) -> Polled:
        while self._next_s <= self._world.clock.now():
            key, number = f"s{next(self._came) % 10}", int(1000 * self._next_s)
            value = event(pair_of(key, number))
            partition = partition_of(key)
            self._world.topic.produce(partition, key.encode(), value, timestamp_ms=number)
            self._next_s += 0.005
        return self._port.poll(timeout_s, max_records)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._port, name)


def turns_of_trickle(world: World, publish_interval_s: float) -> list[TurnReport]:
    """The turns of a second in which events come one by one."""
    worker = Worker(
        world,
        policy(
            turn_interval_s=0.02,
            max_wait_s=0.05,
            max_batch=100,
            publish_interval_s=publish_interval_s,
        ),
        source=lambda port: cast(EventSource, Trickle(world, port)),
    )
    reports, begins = [], world.clock.now() + 1.0
    while world.clock.now() < begins + 1.0:
        report = worker.turn(after_s=0.001)  # what a turn takes
        reports += [report] if world.clock.now() >= begins else []
    return reports


def test_few_events_gather_before_a_turn_and_are_adapted_in_it(world: World) -> None:
    reports = turns_of_trickle(world, publish_interval_s=0.0)
    assert len(reports) <= 21
    latencies = [each.latency_s or 0.0 for report in reports for each in report.published]
    assert len(latencies) >= 190
    assert max(latencies) <= 0.052
    assert sum(latencies) / len(latencies) < 0.03


def test_streams_whose_publish_interval_ends_gather_for_a_turn_too(world: World) -> None:
    reports = turns_of_trickle(world, publish_interval_s=0.5)
    assert len(reports) <= 21
    assert 18 <= sum(len(report.published) for report in reports) <= 20  # ten streams, twice


def test_an_event_alone_is_adapted_in_the_turn_that_reads_it(world: World) -> None:
    worker = Worker(world, policy(turn_interval_s=0.02, max_wait_s=0.05))
    worker.begin()
    world.feed("a", 3)
    assert len(worker.turn(after_s=1.0).published) == 1


def test_many_events_wait_for_their_batch(world: World) -> None:
    worker = Worker(world, policy(turn_interval_s=0.02, max_wait_s=0.05, max_batch=200))
    worker.begin()
    for number in range(30):
        world.feed(f"s{number}", 3)
    world.clock.at += 0.021
    assert worker.turn().verdicts == []
    assert len(worker.turn().verdicts) == 30


def test_what_an_event_waited_in_kafka_is_part_of_the_wait_for_a_batch(world: World) -> None:
    worker = Worker(world, policy(max_wait_s=1.0))
    worker.begin()
    world.feed("a", 3)
    assert worker.turn(after_s=0.9).verdicts == []
    assert worker.turn(after_s=0.11).verdicts
    world.feed("b", 3)
    assert worker.turn(after_s=1.5).verdicts


def test_the_oldest_event_decides_when_a_batch_is_due_whichever_was_read_first(
    world: World,
) -> None:
    worker = Worker(world, policy(max_wait_s=1.0))
    worker.begin()
    first, second = (name for _, name in sorted((partition_of(name), name) for name in "ab"))
    world.feed(second, 3)
    world.clock.at += 0.5
    world.feed(first, 3)
    assert worker.turn().verdicts == []
    report = worker.turn(after_s=0.6)
    assert {verdict.stream.key for verdict in report.verdicts} == {first, second}


@pytest.mark.parametrize("recorded_ms", [0, 10**12])
def test_a_producer_without_a_clock_or_ahead_of_ours_shortens_no_wait(
    world: World, recorded_ms: int
) -> None:
    worker = Worker(world, policy(max_wait_s=1.0))
    worker.begin()
    for number in range(3):
        value = event(pair_of("a", number))
        world.topic.produce(partition_of("a"), b"a", value, timestamp_ms=recorded_ms)
    assert worker.turn(after_s=0.9).verdicts == []
    assert worker.turn(after_s=0.9).verdicts == []
    assert worker.turn(after_s=0.2).verdicts


def test_no_more_is_published_than_was_foreseen_when_the_batch_was_cut(world: World) -> None:
    """The others' factors were not made, which is dear to do afterwards."""

    class Slow(LinearEngine):
        wanted: ClassVar[list[bool]] = []

        def windows(self, capacity: int) -> Windows:
            windows = super().windows(capacity)
            adapt = windows.adapt

            def slowly(cuts: Sequence[Cut]) -> Sequence[Adaptation]:
                Slow.wanted = [cut.wanted for cut in cuts]
                world.clock.at += 0.5
                return adapt(cuts)

            windows.adapt = slowly  # type: ignore[method-assign]
            return windows

    worker = Worker(world, policy(publish_interval_s=1.0), engine=Slow())
    worker.begin()
    world.feed("a", 3)
    assert worker.turn().published
    Slow.wanted = []
    for after_s, published in ((0.3, False), (0.7, True), (0.3, False)):
        world.feed("a")
        report = worker.turn(after_s=after_s)
        assert (bool(report.published), Slow.wanted) == (published, [True] * published)
        Slow.wanted = []


def test_a_window_that_many_events_of_one_turn_fill_holds_the_newest(world: World) -> None:
    every = Worker(world)
    every.begin()
    for _ in range(30):
        world.feed("a")
        every.turn()
    at_once = Worker(replace(world, outbox=MemoryOutbox()), shelf=MemoryShelf())
    at_once.world.topic.committed.clear()
    at_once.begin()
    at_once.turn()
    (mapping,) = at_once.world.mappings("a")
    assert mapping.facts.content_hash == world.newest()["a"].facts.content_hash


def test_an_event_with_one_bad_pair_is_in_no_window(world: World) -> None:
    worker = Worker(world)
    worker.begin()
    bad = (np.zeros(4, np.float32), np.full(E, np.inf, np.float32))
    world.produce("a", event(pair_of("a", 1), bad))
    report = worker.turn()
    assert (report.events, report.pairs, report.holdings.streams) == (0, 0, 0)
    assert "target of pair 1" in header(world.of("letters")[0], "adaptd-detail")


def test_an_event_of_several_pairs_is_several_pairs_of_one_version(world: World) -> None:
    worker = Worker(world)
    worker.begin()
    world.produce("a", event(*(pair_of("a", n) for n in range(4))))
    assert worker.turn().pairs == 4
    (mapping,) = world.mappings("a")
    assert (mapping.facts.version, mapping.facts.support_pairs, mapping.facts.query_pairs) == (
        0,
        4,
        2,
    )


def test_an_offset_is_committed_only_when_its_mapping_is_published(world: World) -> None:
    worker = Worker(world, policy(max_wait_s=1.0))
    worker.begin()
    world.feed("a", 2)
    worker.turn()
    assert world.topic.committed[1] == 2  # in the window; no mapping is owed before three
    world.feed("a", 2)
    world.feed("b", 1)
    worker.turn()
    assert world.shelf.positions == {0: 1, 1: 4}
    assert world.topic.committed == {0: 1, 1: 2}
    worker.turn(after_s=1.0)
    assert world.topic.committed == {0: 1, 1: 4}


def test_a_successor_publishes_what_its_predecessor_owed(world: World) -> None:
    first = Worker(world, policy(max_wait_s=1.0), name="first")
    first.begin()
    world.feed("a", 5)
    first.turn()
    assert world.mappings() == []  # killed here
    second = Worker(world, name="second")
    second.begin()
    report = second.turn()
    assert report.replayed_pairs + report.pairs == 3  # offsets 0 and 1 were committed
    assert report.loaded == 1
    (mapping,) = world.mappings("a")
    assert (mapping.facts.version, mapping.facts.support_pairs) == (4, 5)


def test_a_superseded_worker_publishes_nothing_and_its_windows_go(world: World) -> None:
    old = Worker(world, policy(max_wait_s=1.0), name="old")
    old.begin()
    world.feed("a", 3)
    world.feed("b", 3)
    old.turn()
    new = Worker(world, policy(max_wait_s=1.0), partitions=[1], name="new")
    new.begin()
    report = old.turn(after_s=1.0)  # due, but partition 1 is no longer its own
    assert [published.stream.key for published in report.published] == ["b"]
    assert report.lost == {1}
    assert (report.holdings.assigned, report.holdings.streams) == (1, 1)
    assert world.topic.committed == {0: 3, 1: 2}  # of the lost one as before it was lost
    new.turn()  # the events have waited for long enough
    assert [m.facts.turn for m in world.mappings("a")] == ["new-2"]


def test_a_superseded_worker_keeps_no_pair_of_the_partition(world: World) -> None:
    old = Worker(world, name="old")
    old.begin()
    Worker(world, partitions=[1], name="new").begin()
    world.feed("a", 3)
    world.feed("b", 3)
    report = old.turn()
    assert report.lost == {1}
    assert (1, "a") not in world.shelf.windows
    assert [published.stream.key for published in report.published] == ["b"]
    assert {m.facts.stream for m in world.mappings()} == {"b"}


def test_a_superseded_worker_finds_out_even_when_idle(world: World) -> None:
    old = Worker(world, policy(verify_interval_s=2.0), name="old")
    old.begin()
    Worker(world, partitions=[1], name="new").begin()
    assert old.turn(after_s=1.0).lost == set()
    assert old.turn(after_s=1.0).lost == {1}
    assert old.turn(after_s=9.0).claimed == {}
    assert set(old.turn(after_s=1.0).claimed) == {1}  # the group still calls it ours


def test_a_partition_that_goes_takes_its_streams_and_debts_along(world: World) -> None:
    worker = Worker(world, policy(max_wait_s=1.0))
    worker.begin()
    world.feed("a", 3)
    world.feed("b", 3)
    worker.turn()
    worker.source.revoke([1])
    report = worker.turn(after_s=1.0)
    assert report.lost == {1}
    assert [published.stream.key for published in report.published] == ["b"]
    assert world.topic.committed == {0: 3, 1: 2}


def test_a_partition_taken_and_given_back_between_two_polls_is_begun_anew(world: World) -> None:
    worker = Worker(world, policy(max_wait_s=1.0))
    worker.begin()
    world.feed("a", 3)
    before = world.shelf.epochs[1]
    worker.turn()
    worker.source.revoke([1])
    worker.source.assign([1])
    report = worker.turn()
    assert set(report.claimed) == {1}
    assert report.claimed[1] > before
    worker.turn()
    worker.turn(after_s=1.0)
    assert [(m.facts.version, m.facts.epoch) for m in world.mappings("a")] == [
        (2, report.claimed[1])
    ]


def test_evicted_streams_come_back_and_make_the_same_mappings() -> None:
    roomy, tight = World(), World()
    for world, resident in ((roomy, 100), (tight, 1)):
        worker = Worker(world, policy(max_resident_streams=resident))
        worker.begin()
        evicted = loaded = 0
        for number in range(30):
            world.feed("abc"[number % 3])
            report = worker.turn()
            evicted += report.evicted
            loaded += report.loaded
            assert report.holdings.streams <= resident
        assert bool(evicted) == bool(loaded) == (resident == 1)
    ends = [
        {key: (m.facts.version, m.facts.content_hash) for key, m in world.newest().items()}
        for world in (roomy, tight)
    ]
    assert ends[0] == ends[1]


def test_a_stream_that_was_evicted_keeps_its_publish_interval(world: World, moody: Moody) -> None:
    worker = Worker(world, policy(max_resident_streams=1, publish_interval_s=10.0), engine=moody)
    worker.begin()
    for key in "abab":
        world.feed(key, 3)
        worker.drain_for(4)
    assert [m.facts.stream for m in world.mappings()] == ["a", "b"]
    reports = [worker.turn(after_s=10.0)]
    assert [m.facts.stream for m in world.mappings()] == ["a", "b", "a", "b"]
    assert [each.latency_s for each in reports[0].published] == [pytest.approx(10.0, abs=0.2)] * 2
    assert worker.turn(after_s=20.0).verdicts == []


def test_a_stream_whose_window_expired_while_its_mapping_waited_is_owed_nothing(
    world: World,
) -> None:
    worker = Worker(world, policy(max_resident_streams=1, publish_interval_s=10.0))
    worker.begin()
    world.feed("a", 3)
    worker.drain_for(4)  # a turn reads no more records than streams fit into memory
    world.feed("a")
    assert worker.turn().holdings.deferred == 1
    world.feed("c")
    assert worker.turn().evicted == 1
    del world.shelf.windows[partition_of("a"), "a"]
    report = worker.turn(after_s=10.0)
    assert not report.published
    assert report.holdings.deferred == 0
    assert world.topic.committed[partition_of("a")] == 5


def test_a_busy_stream_is_not_evicted(world: World) -> None:
    worker = Worker(world, policy(max_resident_streams=1, max_wait_s=1.0))
    worker.begin()
    world.feed("b", 1)
    worker.turn()
    world.feed("a", 3)
    reports = [worker.turn() for _ in range(3)]
    assert sum(report.evicted for report in reports) == 1  # b has nothing to wait for
    assert reports[-1].holdings.changed == reports[-1].holdings.streams == 1


def test_a_backlog_is_read_only_as_fast_as_windows_fit_into_memory(world: World) -> None:
    worker = Worker(world, policy(max_resident_streams=4, max_wait_s=1.0))
    worker.begin()
    for place in range(20):
        world.feed(f"s{place}", 3)
    held = [worker.turn().holdings.streams for _ in range(30)]
    assert max(held) <= 2 * 4
    worker.drain()
    assert len(world.newest()) == 20


def test_a_turn_that_decodes_for_too_long_leaves_the_rest_to_the_next(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = Worker(world)
    worker.begin()
    world.feed("a", 6)
    clock = world.clock

    def slowly(*arguments: Any) -> Any:
        clock.at += 2.0
        return decode_record(*arguments)

    monkeypatch.setattr("daemon.turn.decoding.decode_record", slowly)
    events = [worker.turn().events for _ in range(2)]
    assert events == [3, 3]
    monkeypatch.undo()
    worker.drain()
    assert world.newest()["a"].facts.version == 5


@pytest.mark.parametrize("port", ["source", "store", "outbox"])
def test_a_port_that_is_away_costs_a_turn_and_loses_nothing(world: World, port: str) -> None:
    worker = Worker(world)
    worker.begin()
    world.feed("a", 3)
    ports: dict[str, Any] = {
        "source": worker.source,
        "store": worker.store,
        "outbox": world.outbox,
    }
    away = ports[port]
    away.down = True
    gave_up = 0
    for _ in range(6):  # one turn to claim, one to read and fail
        try:
            worker.turn()
        except Unavailable:
            gave_up += 1
            worker.loop.recover()
    assert gave_up >= 3
    assert world.mappings() == []
    away.down = False
    worker.drain()
    assert versions(world, "a") == [2]
    assert [pair.id.offset for pair in world.shelf.windows[1, "a"]] == [0, 1, 2]
    assert world.topic.committed[1] == 3


def test_every_mapping_is_traced_to_the_turn_that_made_it(world: World) -> None:
    worker = Worker(world, name="worker-7")
    worker.begin()
    world.feed("a", 3)
    report = worker.turn()
    (mapping,) = world.mappings("a")
    assert mapping.facts.turn == report.turn == "worker-7-2"
