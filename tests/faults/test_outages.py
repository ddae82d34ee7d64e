"""Kafka or Redis away: not ready and saying why, alive, nothing lost, back by itself."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import redis
from prometheus_client.parser import text_string_to_metric_families

from daemon.local.server import Server
from daemon.local.services import Services
from tests.faults.conftest import Measured
from tests.faults.lab import (
    Installation,
    Spring,
    Worker,
    assert_newest,
    assert_windows,
    eventually,
    kept_by_reader,
)

STREAMS = 20
OF_A_TURN = {
    f"adaptd_{name}"
    for name in (
        *("consumer_lag_records", "oldest_owed_seconds", "assigned_partitions", "streams"),
        "window_bytes",
    )
}
MOST_THREADS = {"kafka-python": 14, "librdkafka": 20}
"""librdkafka has one for each connection, seven in all, from the start; candidates are followed on
one more."""


@pytest.fixture
def lab(private_services: Services, theta: Path, tmp_path: Path) -> Iterator[Installation]:
    kafka, redis_url = private_services.kafka_bootstrap_servers, private_services.redis_url
    # a turn under way when Kafka goes is given up, and so unreadiness told, after this
    overrides = {"kafka_delivery_timeout_ms": 4_000}
    made = Installation(kafka, redis_url, theta, tmp_path, overrides)
    yield made
    made.close()


@contextmanager
def away(server: Server, how: str) -> Iterator[None]:
    server.pause() if how == "paused" else server.kill()
    try:
        yield
    finally:
        server.resume() if how == "paused" else server.start()


@pytest.mark.parametrize(
    ("service", "how", "seconds", "client"),
    [
        ("kafka", "killed", 10, "kafka-python"),
        ("kafka", "paused", 9, "kafka-python"),
        ("kafka", "killed", 10, "librdkafka"),
        ("kafka", "paused", 9, "librdkafka"),
        ("redis", "killed", 8, "kafka-python"),
        ("redis", "paused", 6, "kafka-python"),
    ],
)
def test_a_service_away_is_waited_for(
    lab: Installation,
    private_services: Services,
    theta: Path,
    measured: Measured,
    service: str,
    how: str,
    seconds: int,
    client: str,
) -> None:
    """Kafka is away for longer than each timeout (session 6 s, delivery 4 s, request 3 s), Redis
    for longer than its own (1 s), and both until retries come at their longest interval (3 s)."""
    server = getattr(private_services, service)
    spring = Spring()

    def send(count: int) -> None:
        lab.send([spring.event(f"stream-{i % STREAMS}", pairs=1 + i % 2) for i in range(count)])

    with lab.worker(kafka_client=client) as worker:
        worker.wait_until_ready(4)
        send(600)
        lab.stop_producing()
        left_at = time.monotonic()
        with away(server, how):
            if service == "redis":
                send(200)
            eventually(lambda: worker.get("/readyz")[0] == 503, 15, worker.tail)
            unready_s = time.monotonic() - left_at
            return_at = left_at + max(seconds, unready_s + 3)
            while time.monotonic() < return_at:
                code, reason = worker.get("/readyz")
                assert (code, reason.split(":")[0]) == (503, service), reason
                assert worker.get("/livez")[0] == 200
                assert_says_unknown(worker, service)
                time.sleep(0.5)
        back_at = time.monotonic()
        worker.wait_until_ready(4)
        ready_s = time.monotonic() - back_at
        send(200)
        done_s = lab.wait_until_done()
        assert worker.process.poll() is None
        assert shown(worker).keys() >= OF_A_TURN
        lines = [line["event"] for line in worker.lines()]
        threads, files = (count_of(worker, what) for what in ("task", "fd"))
    assert_windows(lab.windows(), lab.truth)
    assert_newest(kept_by_reader(lab.mappings()), lab.truth.mappings(theta))
    complaints = lines.count("unavailable")
    assert complaints < 30
    assert threads < MOST_THREADS[client], "clients that were thrown away live on"
    assert files < 60
    measured(
        f"{service} {how} {seconds} s, {client}: unready after {unready_s:.1f} s, "
        f"ready {ready_s:.1f} s after it was back, caught up {done_s:.1f} s later; "
        f"{complaints} complaints, {threads} threads, {files} files"
    )


def shown(worker: Worker) -> dict[str, float]:
    """The sum of each of its metrics that has a value now."""
    found: dict[str, float] = {}
    for family in text_string_to_metric_families(worker.get("/metrics")[1]):
        for sample in family.samples:
            found[sample.name] = found.get(sample.name, 0.0) + sample.value
    return found


def assert_says_unknown(worker: Worker, service: str) -> None:
    """Nothing is said of what only a turn can find; the time away is, and which calls failed."""
    first = shown(worker)
    assert not first.keys() & OF_A_TURN
    assert first["adaptd_ready"] == 0
    assert first[f"adaptd_{service}_errors_total"] > 0
    away_s = "adaptd_away_seconds_total"
    assert shown(worker)[away_s] > first[away_s] > 0


def count_of(worker: Worker, what: str) -> int:
    return len(list(Path(f"/proc/{worker.process.pid}/{what}").iterdir()))


@pytest.mark.parametrize("loss", ["emptied", "older"])
def test_redis_that_lost_writes_is_filled_again_from_kafka(
    lab: Installation, private_services: Services, theta: Path, measured: Measured, loss: str
) -> None:
    """An older copy stands for a replica that took over, or for an unsynced append-only file."""
    spring = Spring()
    streams = [f"stream-{i}" for i in range(STREAMS)]
    with redis.Redis.from_url(private_services.redis_url) as client, lab.worker() as worker:
        worker.wait_until_ready(4)
        lab.send([spring.event(s) for _ in range(8) for s in streams])
        lab.wait_until_done()
        copy = {key: client.dump(key) for key in client.scan_iter(match=f"{lab.name}:*")}
        lab.send([spring.event(s) for _ in range(8) for s in streams])
        lab.wait_until_done()
        lost_at = time.monotonic()
        with client.pipeline() as pipeline:
            pipeline.flushall()
            for key, dumped in copy.items() if loss == "older" else ():
                pipeline.restore(key, 0, dumped)
            pipeline.execute()
        lab.send([spring.event(s) for s in streams])
        eventually(lambda: lab.windows() == lab.truth.windows(), 30, worker.tail)
        measured(f"Redis {loss}: whole again after {time.monotonic() - lost_at:.1f} s")
        lab.wait_until_done()
        assert worker.process.poll() is None
    assert_windows(lab.windows(), lab.truth)
    kept = kept_by_reader(lab.mappings(), may_go_back=True)
    assert_newest(kept, lab.truth.mappings(theta))
