"""Windows that the store loses while they are in memory: written again from there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

import pytest

from daemon.errors import Unavailable
from daemon.turn.ports import WindowStore
from daemon.turn.window import Pair
from tests.daemon.lab import Worker, World

KEYS = "abcd"


def windows(world: World) -> dict[tuple[int, str], list[tuple[object, ...]]]:
    return {
        place: [(p.id, p.time_ms, p.x_D.tobytes(), p.y_E.tobytes()) for p in pairs]
        for place, pairs in world.shelf.windows.items()
    }


def fed(rounds: int) -> tuple[World, Worker]:
    world = World()
    worker = Worker(world)
    worker.begin()
    for _ in range(rounds):
        world.clock.at += 1
        for key in KEYS:
            world.feed(key)
        worker.drain()
    return world, worker


@pytest.mark.parametrize("rounds", [1, 5, 8, 13], ids=["one", "some", "full", "round the ring"])
@pytest.mark.parametrize("loss", ["whole", "oldest", "all but the newest"])
def test_lost_pairs_come_back(rounds: int, loss: str) -> None:
    world, worker = fed(rounds)
    for pairs in world.shelf.windows.values():
        del pairs[{"whole": slice(None), "oldest": slice(1), "all but the newest": slice(-1)}[loss]]
    for key in "ab":
        world.feed(key)
    reports = worker.drain()
    undisturbed, other = fed(rounds)
    for key in "ab":
        undisturbed.feed(key)
    other.drain()
    mended = {key: pairs for key, pairs in windows(world).items() if key[1] in "ab"}
    right = {key: pairs for key, pairs in windows(undisturbed).items() if key[1] in "ab"}
    assert mended == right
    assert world.shelf.positions == undisturbed.shelf.positions
    told = {key for report in reports for keys in report.restored.values() for key in keys}
    none_lost = rounds == 1 and loss == "all but the newest"
    assert told == (set() if none_lost else set("ab"))


def test_no_window_is_restored_that_was_not_lost() -> None:
    world, worker = fed(12)
    worker.loop.recover()
    for _ in range(3):
        for key in KEYS:
            world.feed(key, 3)
        assert not any(report.restored for report in worker.drain())


class FailsToRestore:
    """A store that is away when it is to restore windows for the first time."""

    def __init__(self, store: WindowStore) -> None:
        self._store, self._away = store, True

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def restore(self, partition: int, epoch: int, windows: Mapping[str, Sequence[Pair]]) -> None:
        if self._away:
            self._away = False
            raise Unavailable("redis", "gone")
        self._store.restore(partition, epoch, windows)


def test_a_restore_that_fails_has_the_partition_read_again() -> None:
    """Memory is forgotten then, and Kafka has the events."""
    world = World()
    worker = Worker(world, store=lambda port: cast(WindowStore, FailsToRestore(port)))
    worker.begin()
    for key in KEYS:
        world.feed(key, 6)
    worker.drain()
    right = windows(world)
    for pairs in world.shelf.windows.values():
        pairs.clear()
    for key in "ab":  # one in each partition
        world.feed(key)
    with pytest.raises(Unavailable):
        worker.drain()
    worker.loop.recover()
    worker.drain()
    mended = {place: pairs[:6] for place, pairs in windows(world).items()}
    assert {place: pairs for place, pairs in mended.items() if place[1] in "ab"} == {
        place: pairs for place, pairs in right.items() if place[1] in "ab"
    }
