"""Random faults at random calls: whatever fails and whoever dies, what remains is the same."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any, TypeVar, cast

import pytest

from daemon.errors import Unavailable
from daemon.turn.pending import Done
from daemon.turn.publishing import SLICE_BYTES
from model.values.episode import Adaptation, Episode
from model.values.errors import DeviceLost
from tests.daemon.lab import LINEAR, LinearEngine, Worker, World, policy

KEYS = "abcdef"
FAULTY_CALLS = {
    "poll",
    "bounds",
    "commit",
    "verify",
    "claim",
    "append",
    "load",
    "send",
    "mark",
    "streams",
}

P = TypeVar("P")


class Crash(Exception):
    """The worker dies here."""


class Gremlin:
    """Makes calls of a port fail before or after they had their effect."""

    def __init__(self, seed: int, chance: float) -> None:
        self._random = random.Random(seed)
        self._chance = chance
        self.failed = set[tuple[str, str]]()

    def wrap(self, port: P) -> P:
        return cast(P, Disturbed(port, self))

    def call(self, name: str, call: Callable[..., Any], *args: Any) -> Any:
        if name not in FAULTY_CALLS or self._random.random() > self._chance:
            return call(*args)
        if name == "commit" and self._random.random() < 0.3:
            self.failed.add((name, "rebalancing"))
            return Done(False)
        when = self._random.choice(["before", "after"])
        self.failed.add((name, when))
        # a poll that failed has told nothing: adapters keep the news until one goes through
        if when == "after" and name != "poll":
            call(*args)
        raise Crash if self._random.random() < 0.3 else Unavailable("kafka", f"{name} {when}")


class Disturbed:
    def __init__(self, port: object, gremlin: Gremlin) -> None:
        self._port = port
        self._gremlin = gremlin

    def __getattr__(self, name: str) -> Callable[..., Any]:
        call = getattr(self._port, name)
        return lambda *args: self._gremlin.call(name, call, *args)


def feed(world: World, seed: int, rounds: int = 12) -> None:
    draw = random.Random(seed)
    for _ in range(rounds):
        world.feed(draw.choice(KEYS), draw.randint(1, 4))
        if draw.random() < 0.2:
            world.produce(draw.choice(KEYS), b"junk")


def settings(seed: int) -> Any:
    draw = random.Random(seed)
    return policy(
        max_wait_s=draw.choice([0.0, 0.02]),
        max_batch=draw.choice([2, 8]),
        publish_interval_s=draw.choice([0.0, 0.03]),
        max_resident_streams=draw.choice([2, 100]),
        max_poll_records=draw.choice([1, 3, 100]),
        verify_interval_s=0.02,
        publish_slice_bytes=draw.choice([1, 2_000, SLICE_BYTES]),
    )


def undisturbed(seed: int) -> World:
    world = World()
    feed(world, seed)
    Worker(world, settings(seed)).drain()
    return world


def disturbed(seed: int, gremlin: Gremlin) -> World:
    """Workers that fail, recover, die and are followed by others, until one comes to rest."""
    world = World()
    feed(world, seed)
    for life in range(200):
        worker = Worker(
            world,
            settings(seed),
            source=gremlin.wrap,
            store=gremlin.wrap,
            outbox=gremlin.wrap,
            name=f"life{life}",
        )
        try:
            for _ in range(30):
                try:
                    worker.turn(after_s=0.01)
                except Unavailable:
                    worker.loop.recover()
        except Crash:
            continue
        break
    Worker(world, settings(seed), name="last").drain()
    return world


@pytest.mark.parametrize("seed", range(40))
def test_faults_and_crashes_change_neither_windows_nor_final_mappings(seed: int) -> None:
    calm, shaken = undisturbed(seed), disturbed(seed, Gremlin(seed, chance=0.08))
    for place, window in calm.shelf.windows.items():
        kept = shaken.shelf.windows[place]
        assert [pair.id for pair in kept] == [pair.id for pair in window]
        assert [pair.x_D.tobytes() for pair in kept] == [pair.x_D.tobytes() for pair in window]
    assert shaken.shelf.windows.keys() == calm.shelf.windows.keys()
    assert shaken.topic.committed == calm.topic.committed
    assert shaken.topic.committed == {p: len(log) for p, log in calm.topic.log.items()}
    assert ends(shaken) == ends(calm)
    assert places_of_letters(shaken) == places_of_letters(calm)


def ends(world: World) -> dict[str, tuple[int | None, str]]:
    """Newest versions and contents. A fallback is published once per tenure and change, so its
    version tells when that was, and not what it is: θ."""
    return {
        key: (None if m.facts.outcome.is_fallback else m.facts.version, m.facts.content_hash)
        for key, m in world.newest().items()
    }


def places_of_letters(world: World) -> set[tuple[bytes | None, bytes | None]]:
    headers = [dict(message.headers) for message in world.of("letters")]
    return {(h["adaptd-partition"], h["adaptd-offset"]) for h in headers}


def test_the_faults_strike_every_call_before_and_after_its_effect() -> None:
    gremlin = Gremlin(0, chance=0.3)
    for seed in range(6):
        disturbed(seed, gremlin)
    expected = {(name, when) for name in FAULTY_CALLS for when in ("before", "after")}
    assert expected | {("commit", "rebalancing")} <= gremlin.failed | {("load", "after")}


@pytest.mark.parametrize("seed", range(20))
def test_two_workers_that_take_partitions_from_each_other_lose_nothing(seed: int) -> None:
    draw = random.Random(seed)
    calm, world = undisturbed(seed), World()
    feed(world, seed)
    workers = [Worker(world, settings(seed), partitions=p, name=f"w{p}") for p in ([0, 1], [])]
    owner = [0, 0]
    for _ in range(60):
        if draw.random() < 0.3:
            partition = draw.randrange(2)
            old, new = workers[owner[partition]], workers[1 - owner[partition]]
            late = draw.random() < 0.5  # the old owner hears of it after the new one has begun
            if not late:
                old.source.revoke([partition])
            new.source.assign([partition])
            new.turn(after_s=0.01)
            if late:
                old.turn(after_s=0.01)
                old.source.revoke([partition])
            owner[partition] = 1 - owner[partition]
        draw.choice(workers).turn(after_s=0.01)
    for _ in range(40):
        for worker in workers:
            worker.turn(after_s=0.01)
    windows = {k: [p.id for p in w] for k, w in world.shelf.windows.items()}
    assert windows == {k: [p.id for p in w] for k, w in calm.shelf.windows.items()}
    assert {k: m.facts.content_hash for k, m in world.newest().items()} == {
        k: m.facts.content_hash for k, m in calm.newest().items()
    }
    assert world.topic.committed == calm.topic.committed


class Doomed(LinearEngine):
    """A device that is gone after so many batches, for good."""

    def __init__(self, batches: int) -> None:
        self._left = batches

    def adapt(self, episodes: Sequence[Episode]) -> list[Adaptation]:
        self._left -= 1
        if self._left < 0:
            raise DeviceLost("CUDA error: unspecified launch failure")
        return super().adapt(episodes)


@pytest.mark.parametrize("batches", range(3))
def test_when_the_device_is_gone_another_goes_on_from_what_is_durable(batches: int) -> None:
    calm, world = undisturbed(3), World()
    feed(world, 3)
    worker = Worker(world, settings(3), engine=Doomed(batches))
    with pytest.raises(DeviceLost):
        worker.drain()
    worker.serve(LINEAR)
    worker.drain()
    assert world.topic.committed == calm.topic.committed
    assert {k: m.facts.content_hash for k, m in world.newest().items()} == {
        k: m.facts.content_hash for k, m in calm.newest().items()
    }
