"""SIGTERM: the turn is finished, everything is flushed and committed, the group is left."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from daemon.local.services import Services
from tests.faults.conftest import Install, Measured
from tests.faults.lab import (
    LEARNED,
    Installation,
    Spring,
    assert_newest,
    assert_windows,
    eventually,
    kept_by_reader,
)

GRACE_S = 10.0


def test_under_load_it_ends_in_order_and_the_next_goes_on(
    install: Install, theta: Path, measured: Measured
) -> None:
    lab = install(4, publish_interval_ms=0, max_wait_ms=0)  # no turn leaves work over
    spring = Spring()
    lab.send([spring.event(f"stream-{i % 40}", pairs=1 + i % 2) for i in range(6_000)])
    with lab.worker() as worker:
        eventually(lambda: sum(lab.committed().values()) > 500, 40, worker.tail)
        took_s = worker.stop(GRACE_S)
        assert lab.members() == []
        done = sum(lab.committed().values())
        assert 500 < done < 6_000, "it was not under load"
        stopped = [line["event"] for line in worker.lines()][-2:]
        assert stopped == ["stopping", "stopped"]
    assert_committed_is_published(lab)
    with lab.worker() as successor:
        ready_s = successor.wait_until_ready(4)
        lab.wait_until_done()
        claimed = [line for line in successor.lines() if line["event"] == "partitions_claimed"]
        assert len(claimed) == 1
        replayed = sum(line.get("replayed", 0) for line in successor.lines())
    assert replayed == 0, "a stopped worker leaves nothing to repeat"
    assert_windows(lab.windows(), lab.truth)
    assert_newest(kept_by_reader(lab.mappings()), lab.truth.mappings(theta))
    measured(
        f"SIGTERM to exit {took_s:.1f} s after {done} events; successor ready in {ready_s:.1f} s"
    )


def assert_committed_is_published(lab: Installation) -> None:
    """Every window in Redis that can be cut has its mapping."""
    kept = kept_by_reader(lab.mappings())
    for (_, stream), entries in lab.windows().items():
        if len(entries) > 3 and kept[stream].outcome in LEARNED:
            newest = int(entries[-1].id.partition("-")[0]) - 1
            assert kept[stream].version == newest


@pytest.mark.parametrize("fault", ["paused", "killed"])
def test_without_kafka_it_still_ends_in_time(
    private_services: Services, theta: Path, tmp_path: Path, fault: str, measured: Measured
) -> None:
    kafka = private_services.kafka
    assert kafka is not None
    lab = Installation(
        private_services.kafka_bootstrap_servers, private_services.redis_url, theta, tmp_path
    )
    spring = Spring()
    with lab.worker() as worker:
        worker.wait_until_ready(4)
        lab.send([spring.event(f"stream-{i % 40}") for i in range(2_000)])
        lab.stop_producing()
        away: Callable[[], None] = kafka.pause if fault == "paused" else kafka.kill
        away()
        try:
            time.sleep(0.3 if fault == "paused" else 4)
            took_s = worker.stop(GRACE_S, codes=(0, 1))  # 1: cut short
        finally:
            kafka.resume() if fault == "paused" else kafka.start()
    measured(f"Kafka {fault}: SIGTERM to exit {took_s:.1f} s, code {worker.process.returncode}")
    lab.remove_dead_members()
    with lab.worker() as successor:
        successor.wait_until_ready(4)
        lab.wait_until_done()
    assert_windows(lab.windows(), lab.truth)
    assert_newest(kept_by_reader(lab.mappings()), lab.truth.mappings(theta))
    lab.close()
