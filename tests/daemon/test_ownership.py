"""Tenures: when they begin, what ends them, what they commit."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from daemon.adapters.memory import MemoryEventSource, MemoryShelf, MemoryTopic, MemoryWindowStore
from daemon.errors import Unavailable
from daemon.turn.ownership import Ownership, StartPolicy
from daemon.turn.pending import Done, Later, Pending
from daemon.turn.ports import Polled

POLICY = StartPolicy(offset_reset="earliest", rebuild_windows=True, reclaim_after_s=10.0)


class Worker:
    """One worker's ownership on a topic and a shelf that it may share with others."""

    def __init__(self, topic: MemoryTopic, shelf: MemoryShelf) -> None:
        self.source = MemoryEventSource(topic)
        self.store = MemoryWindowStore(4, shelf)
        self.owned = Ownership(self.source, self.store, POLICY, "zero")

    def poll(self, now: float = 0.0) -> Polled:
        polled = self.source.poll(0, 100)
        self.owned.on_rebalance(polled, now)
        return polled


@pytest.fixture
def topic() -> MemoryTopic:
    topic = MemoryTopic(partitions=2)
    for partition in (0, 1):
        for _ in range(5):
            topic.produce(partition, b"s", b"v")
    return topic


@pytest.fixture
def shelf() -> MemoryShelf:
    return MemoryShelf()


@pytest.fixture
def worker(topic: MemoryTopic, shelf: MemoryShelf) -> Worker:
    return Worker(topic, shelf)


def test_what_was_there_before_the_group_is_not_rebuilt(
    topic: MemoryTopic, shelf: MemoryShelf
) -> None:
    """With offset_reset=latest, idle partitions have a commit and no window: nothing was lost."""
    latest = StartPolicy(offset_reset="latest", rebuild_windows=True, reclaim_after_s=10.0)
    for _ in range(2):
        worker = Worker(topic, shelf)
        worker.owned = Ownership(worker.source, worker.store, latest, "zero")
        worker.poll()
        worker.owned.claim(0.0, now_ms=1_000)
        worker.owned.commit()
        assert worker.poll().records == {}
        assert topic.committed == {0: 5, 1: 5}


def test_a_tenure_begins_with_a_claim_and_a_seek(worker: Worker, topic: MemoryTopic) -> None:
    topic.committed[1] = 3
    worker.store.shelf.positions[1] = 3
    worker.poll()
    assert list(worker.owned) == []
    assert set(worker.owned.claim(0.0, now_ms=1_000)) == {0, 1}
    assert worker.owned[0].epoch == worker.owned[1].epoch == 1_000
    assert [record.offset for record in worker.poll().records[1]] == [3, 4]
    assert worker.owned.claim(0.0, now_ms=1_000) == {}


def test_a_claim_that_fails_half_way_is_made_again(worker: Worker) -> None:
    worker.poll()
    worker.store.down = True
    with pytest.raises(Unavailable):
        worker.owned.claim(0.0, 1)
    worker.store.down = False
    worker.owned.forget()
    assert set(worker.owned.claim(0.0, 1)) == {0, 1}


def test_what_the_group_takes_away_ends(worker: Worker) -> None:
    worker.poll()
    worker.owned.claim(0.0, 1)
    worker.source.revoke([0])
    assert worker.owned.on_rebalance(worker.source.poll(0, 1), 0.0) == {0}
    assert list(worker.owned) == [1]
    assert worker.owned.claim(99.0, 1) == {}


def test_a_partition_taken_and_given_back_between_two_polls_is_claimed_anew(worker: Worker) -> None:
    worker.poll()
    first = worker.owned.claim(0.0, 1)
    worker.source.revoke([0])
    worker.source.assign([0])
    assert worker.owned.on_rebalance(worker.source.poll(0, 1), 0.0) == {0}
    assert worker.owned.claim(0.0, 1)[0] > first[0]


def test_a_partition_lost_to_another_worker_is_claimed_again_only_later(worker: Worker) -> None:
    worker.poll()
    worker.owned.claim(0.0, 1)
    assert worker.owned.lose([0], now=5.0) == {0}
    assert worker.owned.claim(14.9, 1) == {}
    assert set(worker.owned.claim(15.0, 1)) == {0}


def test_a_lost_partition_that_the_group_gave_away_is_never_claimed_again(worker: Worker) -> None:
    worker.poll()
    worker.owned.claim(0.0, 1)
    worker.source.revoke([0])
    worker.poll()
    assert worker.owned.lose([0], now=5.0) == set()
    assert worker.owned.claim(1e9, 1) == {}


def test_two_workers_cannot_both_be_owners(topic: MemoryTopic, shelf: MemoryShelf) -> None:
    old, new = Worker(topic, shelf), Worker(topic, shelf)
    for worker in (old, new):
        worker.poll()
        worker.owned.claim(0.0, 1)
    assert new.owned.verify([0, 1], 0.0) == set()
    assert old.owned.verify([0, 1], 0.0) == {0, 1}
    assert list(old.owned) == []


def test_only_what_had_its_effect_is_committed_and_once(worker: Worker, topic: MemoryTopic) -> None:
    worker.poll()
    worker.owned.claim(0.0, 1)
    assert worker.owned.commit() == {}
    assert topic.committed == {0: 0, 1: 0}  # where a group that reads the latest began
    worker.owned[0].next_offset = 4
    worker.owned[1].next_offset = 5
    worker.owned[1].hold("s", 2)
    assert worker.owned.commit() == {0: 0, 1: 0}
    assert topic.committed == {0: 4, 1: 2}
    assert worker.owned.commit() == {0: 4, 1: 2}
    assert worker.owned.commit() == {}
    worker.owned[1].release("s")
    assert worker.owned.commit() == {}
    assert worker.owned.await_commit() == {1: 5}
    assert worker.owned.await_commit() == {}


def test_an_answer_counts_for_the_tenure_that_asked(worker: Worker, topic: MemoryTopic) -> None:
    worker.poll()
    worker.owned.claim(0.0, 1)
    worker.owned[0].next_offset = 4
    worker.owned.commit()
    worker.owned.lose([0], now=0.0)
    topic.committed[0] = 1  # by another worker, which had to read from there
    worker.owned.claim(POLICY.reclaim_after_s, 1)
    assert worker.owned.await_commit() == {1: 0}
    assert worker.owned[0].committed == 1


class Rebalancing(MemoryEventSource):
    """A group that is rebalancing takes no commits."""

    rebalancing = True

    def commit(
        self, offsets: Mapping[int, int], notes: Mapping[int, str] | None = None
    ) -> Pending[bool]:
        return Done(False) if self.rebalancing else super().commit(offsets, notes)


class Away(MemoryEventSource):
    """A broker that takes the request, and does not answer."""

    def commit(
        self, offsets: Mapping[int, int], notes: Mapping[int, str] | None = None
    ) -> Pending[bool]:
        def answer() -> bool:
            raise Unavailable("kafka", "no answer")

        return Later(answer)


def test_a_request_without_an_answer_is_made_again_by_the_tenure_that_follows(
    topic: MemoryTopic,
) -> None:
    source = Away(topic)
    owned = Ownership(source, MemoryWindowStore(4), POLICY, "zero")
    owned.on_rebalance(source.poll(0, 1), 0.0)
    owned.claim(0.0, 1)
    owned.commit()
    with pytest.raises(Unavailable):
        owned.commit()
    owned.forget()
    owned.claim(0.0, 1)
    assert owned.commit() == {}
    with pytest.raises(Unavailable):
        owned.await_commit()


def test_what_a_rebalance_refused_is_committed_later(topic: MemoryTopic) -> None:
    source = Rebalancing(topic)
    owned = Ownership(source, MemoryWindowStore(4), POLICY, "zero")
    owned.on_rebalance(source.poll(0, 1), 0.0)
    owned.claim(0.0, 1)
    for _ in range(2):
        assert owned.commit() == {}
        assert topic.committed == {}
    source.rebalancing = False
    owned.commit()
    assert owned.await_commit() == {0: 0, 1: 0}
