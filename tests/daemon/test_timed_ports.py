"""Calls of the ports are counted, and otherwise the ports are as they were."""

from __future__ import annotations

import inspect

import pytest

from daemon.adapters.memory import MemoryWindowStore
from daemon.errors import Refused, Service, Unavailable
from daemon.turn.ports import EventSource, Outbox, WindowStore
from daemon.worker.timed_ports import CALLS, timed


class Told:
    """What the metrics were told."""

    def __init__(self) -> None:
        self.calls: list[tuple[Service, str]] = []
        self.failed: list[tuple[Service, str]] = []

    def called(self, service: Service, call: str, seconds: float) -> None:
        assert 0 <= seconds < 1
        self.calls.append((service, call))

    def call_failed(self, service: Service, call: str) -> None:
        self.failed.append((service, call))


class Broker:
    """A port that fails as it is told."""

    def __init__(self, error: Exception | None = None) -> None:
        self.error = error
        self.closed = False

    def bounds(self, partitions: list[int], *, twice: bool = False) -> list[int]:
        if self.error:
            raise self.error
        return partitions * (2 if twice else 1)

    def poll(self) -> str:
        return "records"

    def close(self) -> None:
        self.closed = True


def test_a_call_is_passed_on_and_counted() -> None:
    told, broker = Told(), Broker()
    port = timed(broker, "kafka", told)
    assert port.bounds([1], twice=True) == [1, 1]
    assert port.poll() == "records"
    port.close()
    assert broker.closed
    assert told.calls == [("kafka", "bounds")]  # a poll waits, and close asks nothing


@pytest.mark.parametrize("error", [Unavailable("kafka", ""), Refused("kafka", "")])
def test_a_call_that_is_not_answered_is_counted_apart(error: Exception) -> None:
    told = Told()
    with pytest.raises(type(error)):
        timed(Broker(error), "kafka", told).bounds([1])
    assert (told.calls, told.failed) == ([], [("kafka", "bounds")])


def test_a_bug_is_no_failure_of_the_service() -> None:
    told = Told()
    with pytest.raises(KeyError):
        timed(Broker(KeyError()), "kafka", told).bounds([1])
    assert (told.calls, told.failed) == ([], [])


def test_the_calls_are_those_of_the_ports() -> None:
    own = {"close", "lag", "joined", "seek"}  # which ask nothing
    ports: dict[Service, tuple[type, ...]] = {
        "kafka": (EventSource, Outbox),
        "redis": (WindowStore,),
    }
    for service, kinds in ports.items():
        found = {name for kind in kinds for name, _ in inspect.getmembers(kind, inspect.isfunction)}
        assert {n for n in found if not n.startswith("_")} - own == set(CALLS[service])


def test_a_store_that_is_timed_is_a_store() -> None:
    told = Told()
    store: WindowStore = timed(MemoryWindowStore(4), "redis", told)
    assert store.use_topic("t", 1) == 1
    assert ("redis", "use_topic") in told.calls
