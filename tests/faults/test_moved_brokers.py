"""All brokers get new addresses, and only the bootstrap address still leads to one."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from daemon.local.kafka import start_kafka
from daemon.local.server import ServerPlace, free_port
from daemon.local.services import Services
from tests.contracts.conftest import NO_LIBRDKAFKA
from tests.faults.conftest import Measured
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
STREAMS = [f"stream-{i}" for i in range(10)]


@pytest.mark.parametrize(
    "client", ["kafka-python", pytest.param("librdkafka", marks=NO_LIBRDKAFKA)]
)
def test_moved_brokers_are_found_again(
    client: str,
    services: Services,
    theta: Path,
    tmp_path: Path,
    measured: Measured,
) -> None:
    """The broker listens on one port and is known by another, which a proxy forwards."""
    listening, before, after = (free_port() for _ in range(3))
    place, spring = ServerPlace(listening), Spring()
    broker = f"127.0.0.1:{listening}"
    properties = {"advertised.listeners": f"PLAINTEXT://127.0.0.1:{before}"}
    with Proxy(broker) as bootstrap:
        old = Proxy(broker, before)
        with start_kafka(properties=properties, at=place) as server:
            lab = Installation(bootstrap.address, services.redis_url, theta, tmp_path)
            with lab.worker(kafka_client=client) as worker:
                worker.wait_until_ready(4)
                lab.send([spring.event(s) for _ in range(5) for s in STREAMS])
                lab.wait_until_done()
                lab.stop_producing()
                server.kill()
                old.close()
                config = server.folder / "server.properties"
                config.write_text(config.read_text().replace(str(before), str(after)))
                with Proxy(broker, after):
                    server.start()
                    moved_at = time.monotonic()
                    eventually(lambda: worker.get("/readyz")[0] == 503, 15, worker.tail)
                    assert worker.get("/livez")[0] == 200
                    worker.wait_until_ready(4)
                    ready_s = time.monotonic() - moved_at
                    assert ready_s < 60
                    lab.send([spring.event(s) for _ in range(5) for s in STREAMS])
                    lab.wait_until_done()
                    assert worker.get("/livez")[0] == 200
                    assert worker.process.poll() is None
                    assert_windows(lab.windows(), lab.truth)
                    assert_newest(kept_by_reader(lab.mappings()), lab.truth.mappings(theta))
                    measured(f"brokers moved, {client}: ready after {ready_s:.1f} s")
                    lab.close()
