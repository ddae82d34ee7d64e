"""What befalls Redis under a running worker: demotion to a replica, windows lost one by one."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import redis

from daemon.local.server import Server
from daemon.local.services import Services
from daemon.local.valkey import start_valkey
from tests.faults.conftest import Install, Measured
from tests.faults.lab import (
    Installation,
    Spring,
    assert_newest,
    assert_windows,
    eventually,
    kept_by_reader,
)
from tests.faults.proxy import Proxy

pytestmark = pytest.mark.services
STREAMS = [f"stream-{i}" for i in range(20)]


@contextmanager
def client_of(server: Server) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(f"redis://{server.address}/0") as client:
        yield client


def test_a_primary_that_becomes_a_replica_is_left(
    services: Services, theta: Path, tmp_path: Path, measured: Measured
) -> None:
    """Two Valkeys behind one address. The worker's connection to the former primary stays open and
    answers READONLY for ever; it is idle first, so nothing but its own checks can tell it."""
    spring = Spring()
    with (
        start_valkey() as first,
        start_valkey() as second,
        Proxy(first.address) as stable,
        client_of(first) as old,
        client_of(second) as new,
    ):
        kafka = services.kafka_bootstrap_servers
        lab = Installation(kafka, f"redis://{stable.address}/0", theta, tmp_path)
        new.replicaof(*first.address.split(":"))
        try:
            with lab.worker() as worker:
                worker.wait_until_ready(4)
                lab.send([spring.event(s) for _ in range(6) for s in STREAMS])
                lab.wait_until_done()
                eventually(lambda: new.info("replication")["master_sync_in_progress"] == 0, 10)
                offset = old.info("replication")["master_repl_offset"]
                eventually(lambda: new.info("replication")["slave_repl_offset"] >= offset, 10)
                swapped_at = time.monotonic()
                new.replicaof("NO", "ONE")
                stable.lead_to(second.address)
                old.replicaof(*second.address.split(":"))
                time.sleep(3)  # idle: it must find out by itself, and be ready again
                worker.wait_until_ready(4)
                lab.send([spring.event(s) for _ in range(6) for s in STREAMS])
                lab.wait_until_done(20)
                measured(
                    f"replica left: whole {time.monotonic() - swapped_at:.1f} s after the swap"
                )
                events = [line.get("detail", "") for line in worker.lines()]
                assert any("leads to a replica" in detail for detail in events), worker.tail()
            assert new.info("replication")["role"] == "master"
            assert_windows(lab.windows(), lab.truth)
            kept = kept_by_reader(lab.mappings(), may_go_back=True)
            assert_newest(kept, lab.truth.mappings(theta))
        finally:
            lab.close()


@pytest.mark.parametrize("loss", ["deleted", "expired"])
def test_windows_lost_one_by_one_come_back(
    install: Install, theta: Path, measured: Measured, loss: str
) -> None:
    lab, spring = install(), Spring()
    with redis.Redis.from_url(lab.redis_url) as client, lab.worker() as worker:
        worker.wait_until_ready(4)
        lab.send([spring.event(s) for _ in range(7) for s in STREAMS])
        lab.wait_until_done()
        keys = list(client.scan_iter(match=f"{lab.name}:*:w:*", count=1000))
        for key in keys[:15]:
            client.delete(key) if loss == "deleted" else client.pexpire(key, 1)
        time.sleep(0.1)
        assert len(lab.windows()) == 5
        lab.send([spring.event(s) for s in STREAMS])
        lab.wait_until_done()
        eventually(lambda: lab.windows() == lab.truth.windows(), 10, worker.tail)
        told = [line for line in worker.lines() if line["event"] == "windows_restored"]
        assert sum(line["count"] for line in told) == 15
        assert "adaptd_windows_restored_total 15.0" in worker.get("/metrics")[1]
        assert worker.get("/readyz")[0] == 200
    assert_newest(kept_by_reader(lab.mappings()), lab.truth.mappings(theta))


def test_a_redis_that_evicts_is_refused_at_the_start(
    services: Services, theta: Path, tmp_path: Path
) -> None:
    with start_valkey() as valkey, client_of(valkey) as client:
        client.config_set("maxmemory-policy", "volatile-lru")
        kafka = services.kafka_bootstrap_servers
        lab = Installation(kafka, f"redis://{valkey.address}/0", theta, tmp_path)
        try:
            for command in ("run", "check"):
                ended = subprocess.run(
                    [sys.executable, "-m", "daemon", command],
                    env=lab.environment,
                    capture_output=True,
                    text=True,
                    timeout=60,
                )
                assert ended.returncode == 2
                said = ended.stderr if command == "run" else ended.stdout
                assert "maxmemory-policy is volatile-lru" in said
                assert "--allow-eviction" in said
            with lab.worker(redis_allow_eviction="true") as worker:
                worker.wait_until_ready(4)
        finally:
            lab.close()


def test_a_redis_that_evicts_as_fast_as_windows_are_written_is_told(
    services: Services, theta: Path, tmp_path: Path
) -> None:
    """Under pressure Redis drops keys of any kind: the worker may not look well meanwhile."""
    spring, many = Spring(), [f"stream-{i}" for i in range(400)]
    with start_valkey() as valkey, client_of(valkey) as client:
        client.config_set("maxmemory-policy", "allkeys-lru")
        kafka = services.kafka_bootstrap_servers
        lab = Installation(
            kafka, f"redis://{valkey.address}/0", theta, tmp_path, {"redis_allow_eviction": True}
        )
        try:
            with lab.worker() as worker:
                worker.wait_until_ready(4)
                used = client.info("memory")["used_memory"]
                client.config_set("maxmemory", used + 150_000)

                def unready() -> bool:
                    lab.send([spring.event(s) for s in many])
                    time.sleep(0.3)
                    code, why = worker.get("/readyz")
                    return code == 503 and ("lost again" in why or "got no further" in why)

                eventually(unready, 60, worker.tail)
                assert "adaptd_recovery_stalled 1.0" in worker.get("/metrics")[1]
                assert any(line["event"] == "recovery_stalled" for line in worker.lines())
                client.config_set("maxmemory", 0)
                lab.wait_until_done()
                eventually(lambda: worker.get("/readyz")[0] == 200, 90, worker.tail)
            assert worker.process.returncode in (None, -9)
        finally:
            lab.close()
