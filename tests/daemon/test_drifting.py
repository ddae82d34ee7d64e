"""A stream whose map changes: it is noticed, its window loses the older pairs, in the store first,
and whichever worker goes on has the same window and makes the same mapping of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from daemon.adapters.redis.keys import WindowLayout
from daemon.adapters.redis.windows import RedisWindowStore
from daemon.errors import Superseded
from daemon.local.services import Services
from daemon.turn.ports import WindowStore
from tests.daemon.lab import POLICY, D, E, LinearEngine, Worker, World, event, partition_of
from tests.daemon.test_loop_faults import Crash

KEY = "a"
PARTITION = partition_of(KEY)
SHAPE = replace(POLICY.shape, support_size=20, query_size=4)
ROOMY = replace(POLICY, shape=SHAPE)
UNWATCHED = replace(ROOMY, drift=False)


class Roomy(LinearEngine):
    """With room for the windows here."""

    largest_window = 40


def produce(world: World, number: int, map_seed: int) -> None:
    """An event of one pair on the map of that seed, with a little noise."""
    rng = np.random.default_rng(number)
    x_D = rng.standard_normal(D)
    map_DE = np.random.default_rng(map_seed).standard_normal((D, E))
    y_E = x_D @ map_DE + 0.05 * rng.standard_normal(E)
    world.produce(KEY, event((x_D.astype(np.float32), y_E.astype(np.float32))))


def history(world: World, worker: Worker, before: int = 60) -> None:
    worker.begin()
    for number in range(before):
        produce(world, number, map_seed=1)
        worker.turn(after_s=0.01)


def jump(world: World, worker: Worker, events: int, first: int = 60) -> list[int]:
    """Events on another map. Returns after which of them the window was cut."""
    cuts = []
    for number in range(events):
        produce(world, first + number, map_seed=2)
        report = worker.turn(after_s=0.01)
        if any(verdict.shortened for verdict in report.verdicts):
            cuts.append(number + 1)
    return cuts


def kept(world: World) -> list[int]:
    return [pair.id.offset for pair in world.shelf.windows[PARTITION, KEY]]


def test_a_stream_that_jumps_goes_on_with_the_pairs_since(world: World) -> None:
    worker = Worker(world, ROOMY, engine=Roomy())
    history(world, worker)
    (found,) = jump(world, worker, 9)
    newest = world.newest()[KEY].facts
    assert found in (6, 7, 8, 9)
    assert newest.window_since in (60, 61)
    assert kept(world) == list(range(newest.window_since, 69))
    assert newest.support_pairs == len(kept(world))
    assert newest.query_loss_after < 0.2 < newest.query_loss_before


def test_without_the_watch_windows_are_what_they_were(world: World) -> None:
    worker = Worker(world, UNWATCHED, engine=Roomy())
    history(world, worker)
    assert jump(world, worker, 12) == []
    assert kept(world) == list(range(72 - ROOMY.shape.size, 72))
    assert world.newest()[KEY].facts.window_since == kept(world)[0]


def test_the_report_says_what_was_suspected(world: World) -> None:
    worker = Worker(world, ROOMY, engine=Roomy())
    history(world, worker)
    suspected = 0
    for number in range(9):
        produce(world, 60 + number, map_seed=2)
        suspected += worker.turn(after_s=0.01).suspected
    assert suspected == 1


def test_many_events_an_interval_are_noticed_too(world: World) -> None:
    """Ten events between two adaptations, of which the last four are judged."""
    wide = replace(ROOMY, shape=replace(SHAPE, support_size=34), publish_interval_s=1.0)
    worker = Worker(world, wide, engine=Roomy())
    worker.begin()
    for turn in range(40):
        for number in range(10):
            produce(world, 10 * turn + number, map_seed=1)
        worker.turn(after_s=1.0)
    shortened = []
    for turn in range(40, 44):
        for number in range(10):
            produce(world, 10 * turn + number, map_seed=2)
        shortened += [v.window_since for v in worker.turn(after_s=1.0).verdicts if v.shortened]
    assert len(shortened) == 1
    assert 390 <= shortened[0] < 420


class Interfering:
    """The store, but that something happens before or after it shortens windows."""

    def __init__(self, store: WindowStore, before: Callable[[], None], after: Callable[[], None]):
        self._store, self._before, self._after = store, before, after

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def shorten(self, *args: Any) -> None:
        self._before()
        self._store.shorten(*args)
        self._after()


def crash() -> None:
    raise Crash


def nothing() -> None: ...


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_crash_beside_the_cut_leaves_the_window_that_mappings_are_of(
    world: World, when: str
) -> None:
    around = (crash, nothing) if when == "before" else (nothing, crash)
    worker = Worker(world, ROOMY, store=lambda store: Interfering(store, *around), engine=Roomy())
    history(world, worker)
    with pytest.raises(Crash):
        jump(world, worker, 9)
    before = kept(world)
    assert len(before) == (ROOMY.shape.size if when == "before" else len(before))
    successor = Worker(world, ROOMY, name="successor", engine=Roomy())
    successor.drain()
    assert kept(world) == before
    calm = World()
    calm.topic.log[PARTITION] += world.topic.log[PARTITION]
    calm.topic.committed[PARTITION] = before[0]  # as if the topic began with that window
    calm.shelf.positions[PARTITION] = before[0]
    again = Worker(calm, UNWATCHED, name="again", engine=Roomy())
    again.drain()
    ours, expected = world.newest()[KEY], calm.newest()[KEY]
    assert (ours.facts.version, ours.facts.window_since) == (before[-1], before[0])
    assert ours.facts.content_hash == expected.facts.content_hash
    assert ours.facts.window_since == expected.facts.window_since


@pytest.mark.services
def test_in_redis_too_a_successor_has_the_window_that_was_cut(
    world: World, services: Services, redis_namespace: str
) -> None:
    """The worker dies between the cut and the publication."""
    layout = WindowLayout(redis_namespace, "g", "topic", "e", SHAPE.size, D, E)
    opened = []

    def open_store(_: WindowStore) -> WindowStore:
        opened.append(RedisWindowStore(services.redis_url, 5.0, layout))
        return opened[-1]

    worker = Worker(
        world,
        ROOMY,
        store=lambda port: Interfering(open_store(port), nothing, crash),
        engine=Roomy(),
    )
    history(world, worker)
    with pytest.raises(Crash):
        jump(world, worker, 9)
    published = len(world.mappings())
    Worker(world, ROOMY, store=open_store, name="successor", engine=Roomy()).drain()
    cut = [pair.id.offset for pair in opened[-1].load(PARTITION, [KEY])[KEY]]
    assert len(cut) < SHAPE.size
    newest = world.newest()[KEY].facts
    assert len(world.mappings()) == published + 1
    assert (newest.window_since, newest.version, newest.support_pairs) == (
        cut[0],
        cut[-1],
        len(cut),
    )
    for store in opened:
        store.close()


def test_a_worker_that_was_superseded_before_the_cut_publishes_nothing(world: World) -> None:
    def superseded() -> None:
        raise Superseded([PARTITION])

    store = lambda port: Interfering(port, superseded, nothing)  # noqa: E731
    worker = Worker(world, ROOMY, store=store, engine=Roomy())
    history(world, worker)
    published = len(world.mappings())
    jump(world, worker, 5)
    before = len(world.mappings())
    assert before == published + 5
    lost = set[int]()
    for number in range(5, 9):
        produce(world, 60 + number, map_seed=2)
        report = worker.turn(after_s=0.01)
        lost |= report.lost
        if report.lost:
            assert not report.published
            break
    assert lost == {PARTITION}
    assert len(kept(world)) == ROOMY.shape.size


@pytest.fixture
def world() -> World:
    return World()
