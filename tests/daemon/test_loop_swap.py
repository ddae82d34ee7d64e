"""Another θ between two turns: every stream's mapping is renewed, whatever happens meanwhile."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from daemon.adapters.memory import MemoryShelf, MemoryTopic
from daemon.errors import Unavailable
from daemon.turn.ports import Side
from daemon.wire.adapted_mapping import AdaptedMapping
from model.values.arrays import FloatArray
from model.values.episode import Adaptation, Candidate, Episode
from tests.daemon.lab import LINEAR, LinearEngine, Worker, World, event, pair_of, policy
from tests.daemon.test_loop_faults import Crash, Gremlin, feed, settings

KEYS = "abcdef"


class Scaled(LinearEngine):
    """Another θ: its mappings are recognised by a factor, its features by another."""

    def __init__(self, name: str, factor: float = 1.0, features: float = 1.0) -> None:
        self.theta = replace(
            LinearEngine.theta,
            version=name,
            content_hash=name * 8,
            encoder_version=f"times-{features}",
        )
        self._factor, self._features = factor, features

    def encode(self, side: Side, prepared: Sequence[NDArray[Any]]) -> FloatArray:
        features = super().encode(side, prepared)
        return features * np.float32(self._features if side == "source" else 1.0)

    def adapt(self, episodes: Sequence[Episode]) -> list[Adaptation]:
        return [
            Adaptation(
                {"w": a.tensors["w"] * np.float32(self._factor)},
                *(a.support_loss_before, a.support_loss_after),
                *(a.query_loss_before, a.query_loss_after),
                a.finite,
                winner=a.winner,
            )
            for a in super().adapt(episodes)
        ]


OTHER = Scaled("other", factor=2.0)
ENCODED = Scaled("encoded", features=3.0)


@pytest.fixture
def world() -> World:
    made = World()
    for number, key in enumerate(KEYS):
        made.feed(key, 3 + number)
    return made


def thetas(world: World) -> dict[str, str]:
    """Which θ each stream's newest mapping is of."""
    return {key: mapping.facts.meta_init for key, mapping in world.newest().items()}


def weights(mapping: AdaptedMapping) -> bytes:
    return mapping.tensors["w"].tobytes()


def test_every_stream_is_adapted_again_and_its_mapping_names_the_new_theta(world: World) -> None:
    worker = Worker(world)
    worker.drain()
    before = world.newest()
    worker.serve(OTHER)
    worker.drain()
    after = world.newest()
    assert set(thetas(world).values()) == {"other"}
    for key in KEYS:
        assert after[key].facts.version == before[key].facts.version
        assert after[key].facts.epoch > before[key].facts.epoch
        assert weights(after[key]) == (before[key].tensors["w"] * 2).tobytes()
    assert len(world.mappings()) == len(before) + len(KEYS)
    assert world.shelf.marks == {0: OTHER.theta.content_hash, 1: OTHER.theta.content_hash}


def test_streams_that_wait_in_the_store_are_renewed_too(world: World) -> None:
    worker = Worker(world, policy(max_resident_streams=2))
    worker.drain()
    assert worker.drain()[-1].holdings.streams <= 2
    worker.serve(OTHER)
    reports = worker.drain()
    assert set(thetas(world).values()) == {"other"}
    assert max(report.holdings.streams for report in reports) <= 2 + 8


def test_a_slice_of_streams_is_renewed_in_a_turn_and_changed_ones_come_first(world: World) -> None:
    worker = Worker(world, policy(max_batch=2))
    worker.drain()
    worker.serve(OTHER)
    worker.turn()  # claims
    worker.turn()
    sizes = [len(worker.turn().published) for _ in range(6)]
    assert max(sizes) == 2
    assert set(thetas(world).values()) == {"other"}
    worker.serve(LINEAR)
    worker.turn()
    world.feed("b", 1)
    reports = worker.drain()
    first = next(report for report in reports if report.published)
    assert "b" in {published.stream.key for published in first.published}


def test_a_renewal_waits_for_no_interval_and_tells_no_latency(world: World) -> None:
    worker = Worker(world, policy(publish_interval_s=1e6))
    worker.drain_for(5)
    worker.serve(OTHER)
    reports = worker.drain_for(5)
    assert set(thetas(world).values()) == {"other"}
    renewed = [published for report in reports for published in report.published]
    assert len(renewed) == len(KEYS)
    assert all(published.renewal for published in renewed)


def test_a_fallback_is_published_anew_for_it_is_theta_itself(world: World) -> None:
    worse = Scaled("worse")
    worse.adapt = lambda episodes: [  # type: ignore[method-assign]
        Adaptation(a.tensors, 1.0, 2.0, 1.0, 2.0, True, winner=Candidate.THETA)
        for a in LINEAR.adapt(episodes)
    ]
    worker = Worker(world, engine=worse)
    worker.drain()
    other = Scaled("worse2")
    other.adapt = worse.adapt  # type: ignore[method-assign]
    worker.serve(other)
    worker.drain()
    assert set(thetas(world).values()) == {"worse2"}
    assert all(m.facts.outcome.is_fallback for m in world.mappings())


def test_a_stream_that_is_not_ready_is_not_published_and_holds_nothing_up(world: World) -> None:
    world.feed("z", 2)
    worker = Worker(world)
    worker.drain()
    worker.serve(OTHER)
    assert worker.drain()[-1].holdings.renewals == 0
    assert "z" not in world.newest()


def test_serving_the_same_theta_again_renews_nothing(world: World) -> None:
    worker = Worker(world)
    worker.drain()
    count = len(world.mappings())
    worker.serve(LINEAR)
    worker.drain()
    Worker(world, name="restarted").drain()
    assert len(world.mappings()) == count


def test_a_worker_that_begins_with_another_theta_renews_what_it_finds(world: World) -> None:
    Worker(world).drain()
    Worker(world, engine=OTHER, name="restarted").drain()
    assert set(thetas(world).values()) == {"other"}


def test_windows_of_other_features_are_made_from_the_events_and_end_as_with_a_fresh_worker() -> (
    None
):
    fresh, world = World(), World()
    for made in (fresh, world):
        feed(made, seed=3)
    Worker(fresh, engine=ENCODED).drain()
    worker = Worker(world)
    worker.drain()
    encoded_shelf = MemoryShelf(epochs=world.shelf.epochs, marks=world.shelf.marks)
    worker.serve(ENCODED, encoded_shelf)
    worker.drain()
    assert bits(encoded_shelf) == bits(fresh.shelf)
    ends, expected = world.newest(), fresh.newest()
    assert {k: weights(m) for k, m in ends.items()} == {k: weights(m) for k, m in expected.items()}
    assert set(thetas(world).values()) == {"encoded"}
    assert world.topic.committed == {p: len(log) for p, log in world.topic.log.items()}


def test_going_back_finds_the_old_windows_and_reads_only_what_came_since(world: World) -> None:
    worker = Worker(world)
    worker.drain()
    old = world.shelf
    worker.serve(ENCODED, MemoryShelf(epochs=old.epochs, marks=old.marks))
    worker.drain()
    world.feed("a", 4)
    worker.drain()
    worker.serve(LINEAR, old)
    reports = worker.drain()
    assert sum(report.pairs for report in reports) == 4
    assert sum(report.replayed_pairs for report in reports) == 0
    assert set(thetas(world).values()) == {"zero"}
    undisturbed = World()
    for number, key in enumerate(KEYS):
        undisturbed.feed(key, 3 + number)
    undisturbed.feed("a", 4)
    Worker(undisturbed).drain()
    assert bits(old) == bits(undisturbed.shelf)
    assert {k: weights(m) for k, m in world.newest().items()} == {
        k: weights(m) for k, m in undisturbed.newest().items()
    }


def bits(shelf: MemoryShelf) -> dict[Any, Any]:
    return {
        place: [(pair.id, pair.x_D.tobytes(), pair.y_E.tobytes()) for pair in window]
        for place, window in shelf.windows.items()
    }


@pytest.mark.parametrize("seed", range(30))
def test_faults_and_crashes_amid_changes_of_theta_end_as_if_undisturbed(seed: int) -> None:
    """Each life begins with the θ that is active then and may be told of another; the last θ is
    ENCODED for every other seed, so that windows have to be made anew as well."""
    last = ENCODED if seed % 2 else OTHER
    calm = World()
    feed(calm, seed)
    Worker(calm, settings(seed), engine=last).drain()
    world, draw, gremlin = World(), random.Random(seed), Gremlin(seed, chance=0.06)
    feed(world, seed)
    encoded = MemoryShelf(epochs=world.shelf.epochs, marks=world.shelf.marks)
    active: LinearEngine = LINEAR
    for life in range(12):
        worker = swapping_worker(world, encoded, active, settings(seed), gremlin, f"life{life}")
        try:
            for _ in range(15):
                if draw.random() < 0.15:
                    active = draw.choice([LINEAR, OTHER, ENCODED])
                    worker.serve(active, encoded if active is ENCODED else world.shelf)
                try:
                    worker.turn(after_s=0.01)
                except Unavailable:
                    worker.loop.recover()
        except Crash:
            continue
    swapping_worker(world, encoded, last, settings(seed), None, "last").drain()
    assert bits(encoded if last is ENCODED else world.shelf) == bits(calm.shelf)
    assert set(thetas(world).values()) <= {last.theta.version}
    assert {k: weights(m) for k, m in world.newest().items()} == {
        k: weights(m) for k, m in calm.newest().items()
    }


def swapping_worker(
    world: World,
    encoded: MemoryShelf,
    engine: LinearEngine,
    chosen: Any,
    gremlin: Gremlin | None,
    name: str,
) -> Worker:
    wraps: dict[str, Any] = {}
    if gremlin:
        wraps = {"source": gremlin.wrap, "store": gremlin.wrap, "outbox": gremlin.wrap}
    shelf = encoded if engine is ENCODED else world.shelf
    return Worker(world, chosen, engine=engine, name=name, shelf=shelf, **wraps)


def test_renewals_of_many_partitions_find_room_in_memory_beside_each_other() -> None:
    """A quarter of a batch is for all partitions together: each has a slot, and slots are few."""
    world = World(topic=MemoryTopic(partitions=60))
    for partition in range(60):
        for offset in range(9):
            key = f"stream-{partition}-{offset % 3}"
            world.topic.produce(partition, key.encode(), event(pair_of(key, offset)))
    few = policy(max_resident_streams=4, max_batch=8, max_poll_records=5)
    worker = Worker(world, few)
    worker.drain()
    assert len(world.newest()) == 180
    worker.serve(OTHER)
    reports = worker.drain()
    assert max(report.holdings.streams for report in reports) <= few.max_resident_streams + 2
    assert {m.facts.meta_init for m in world.newest().values()} == {"other"}
