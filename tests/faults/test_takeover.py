"""Workers come, go, die and sleep while events flow: windows stay whole, readers never go back."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from daemon.wire.adapted_mapping import Facts
from tests.faults.conftest import Install, Measured
from tests.faults.lab import (
    LEARNED,
    Installation,
    Spring,
    Worker,
    assert_newest,
    assert_windows,
    eventually,
    kept_by_reader,
)

PARTITIONS = 6


@contextmanager
def events_flow(lab: Installation, seed: int) -> Iterator[None]:
    """About 100 events a second until the block ends. Streams come and go, twelve events each:
    whatever is lost at any moment is missing in some window to the end."""
    spring, stop = Spring(seed), threading.Event()
    failures: list[Exception] = []

    def flow() -> None:
        try:
            while not stop.wait(0.1):
                lab.send([spring.event(name(next(turn))) for _ in range(10)])
        except Exception as e:
            failures.append(e)

    def name(n: int) -> str:
        return f"stream-{n // 72}-{n % 6}"

    turn = itertools.count()
    thread = threading.Thread(target=flow)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(70)
    assert not failures


def assert_whole(lab: Installation, theta: Path) -> list[Facts]:
    """Nothing is missing in the end, and no reader went back on the way."""
    lab.wait_until_done()
    assert_windows(lab.windows(), lab.truth)
    truth = lab.truth.mappings(theta)
    mappings = lab.mappings()
    assert_newest(kept_by_reader(mappings), truth)
    adapted = {s for s, shown in truth.items() if shown.outcome in LEARNED}
    assert len(adapted) > len(truth) // 2
    return mappings


def assigned(worker: Worker) -> int:
    return int(worker.status().get("assigned_partitions", 0))


@pytest.mark.parametrize("client", ["kafka-python", "librdkafka"])
def test_one_is_stopped_one_is_killed_one_joins(
    install: Install, theta: Path, measured: Measured, client: str
) -> None:
    lab = install(PARTITIONS, kafka_client=client)
    with ExitStack() as running:

        def start() -> Worker:
            return running.enter_context(lab.worker())

        first, second = start(), start()
        with events_flow(lab, seed=1):
            first.wait_until_ready(3)
            second.wait_until_ready(3)
            third = start()
            third.wait_until_ready(2)
            time.sleep(1)
            first.stop()
            eventually(lambda: assigned(second) + assigned(third) == PARTITIONS)
            time.sleep(1)
            second.process.kill()
            took_over_s = third.wait_until_ready(PARTITIONS)
            fourth = start()
            fourth.wait_until_ready(3)
            time.sleep(1)
        assert_whole(lab, theta)
    measured(f"{client}: the survivor had the killed one's partitions {took_over_s:.1f} s later")


def test_one_sleeps_past_its_session_and_wakes(
    install: Install, theta: Path, measured: Measured
) -> None:
    """A zombie: it wakes in the middle of a turn, owning nothing any more and not knowing it."""
    lab = install(PARTITIONS)
    with lab.worker() as sleeper, lab.worker() as other:
        with events_flow(lab, seed=2):
            sleeper.wait_until_ready(3)
            other.wait_until_ready(3)
            for _ in range(2):
                sleeper.process.pause()
                other.wait_until_ready(PARTITIONS)
                time.sleep(1)
                sleeper.process.resume()
                other.wait_until_ready(3)
                sleeper.wait_until_ready(3)
                time.sleep(1)
        mappings = assert_whole(lab, theta)
        assert sleeper.process.poll() is None
        lost = [line for line in sleeper.lines() if line["event"] == "partitions_lost"]
        assert lost
    measured(f"{late(mappings)} of {len(mappings)} mappings lie behind a newer owner's")


def late(mappings: Sequence[Facts]) -> int:
    """Mappings that came after one of a larger epoch."""
    newest: dict[str, int] = {}
    count = 0
    for facts in mappings:
        count += facts.epoch < newest.get(facts.stream, 0)
        newest[facts.stream] = max(facts.epoch, newest.get(facts.stream, 0))
    return count


@pytest.mark.parametrize("asleep_in", ["encode", "adapt"])
def test_one_that_slept_in_a_turn_does_not_speak_for_the_new_owner(
    install: Install, asleep_in: str
) -> None:
    """Deterministic where the one above is not: the partition changes hands within a turn."""
    from daemon.turn.loop import Loop
    from daemon.worker.wiring import load_engine, loop_policy, message_builder, open_ports

    lab = install(1)
    spring = Spring()
    lab.send([spring.event("stream") for _ in range(6)])
    engine = load_engine(lab.settings)
    with (
        open_ports(lab.settings, engine, "sleeper") as ports,
        open_ports(lab.settings, engine, "owner") as new_owner,
    ):
        policy = loop_policy(lab.settings, engine)
        windows = engine.windows(policy.slots)
        setattr(engine, "windows", lambda _capacity: windows)  # noqa: B010 - mypy knows it as a method
        sleeps: Any = engine if asleep_in == "encode" else windows
        awake: Callable[..., Any] = getattr(sleeps, asleep_in)

        def asleep(*arguments: Any) -> Any:
            new_owner.store.claim(0, 0)
            return awake(*arguments)

        setattr(sleeps, asleep_in, asleep)
        loop = Loop(policy, ports, message_builder(lab.settings, engine), "sleeper")
        give_up_at = time.monotonic() + 20
        lost: set[int] = set()
        while not lost and time.monotonic() < give_up_at:
            report = loop.turn()
            lost = report.lost
        assert (lost, report.published, dict(report.committed)) == ({0}, [], {})
    assert lab.mappings() == []
    assert lab.windows().keys() == (set() if asleep_in == "encode" else {(0, "stream")})
