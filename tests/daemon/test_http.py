"""The HTTP port, by a real server and real requests."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator
from http.client import HTTPConnection
from urllib.parse import urlsplit

import pytest

from daemon.errors import Misconfigured, Unavailable
from daemon.turn.report import TurnReport
from daemon.worker.health import Health, Snapshot
from daemon.worker.http import HttpServer
from daemon.worker.metrics import Metrics


@pytest.fixture
def health() -> Health:
    snapshot = Snapshot("w", "0.1", "θ-1", "cpu", started_at=time.time())
    return Health(snapshot, liveness_max_age_s=60.0)


@pytest.fixture
def server(health: Health) -> Iterator[HttpServer]:
    made = HttpServer("127.0.0.1", 0, Metrics().registry, health)
    yield made
    made.close()


def get(server: HttpServer, path: str, accept: str = "*/*") -> tuple[int, str, str]:
    """Status, content type and body."""
    connection = HTTPConnection(urlsplit(server.url).netloc, timeout=10)
    connection.request("GET", path, headers={"Accept": accept})
    response = connection.getresponse()
    body = response.read()
    connection.close()
    assert response.getheader("Content-Length") == str(len(body))
    return response.status, response.getheader("Content-Type") or "", body.decode()


def test_metrics_come_as_prometheus_text(server: HttpServer) -> None:
    status, content_type, body = get(server, "/metrics?name=x")
    assert status == 200
    assert content_type.startswith("text/plain; version=")
    assert "# TYPE adaptd_events_total counter" in body
    assert "# EOF" not in body


def test_metrics_come_as_openmetrics_to_whom_asks_for_it(server: HttpServer) -> None:
    status, content_type, body = get(
        server, "/metrics", accept="application/openmetrics-text; version=1.0.0"
    )
    assert status == 200
    assert content_type.startswith("application/openmetrics-text; version=1.0.0")
    assert body.endswith("# EOF\n")


def test_livez_judges_the_age_of_the_last_turn(server: HttpServer, health: Health) -> None:
    assert get(server, "/livez")[0] == 200
    health.finished(TurnReport("w-1"), joined=True, at=time.time() - 100)
    status, _, line = get(server, "/livez")
    assert status == 503
    assert "100." in line


def test_readyz_says_why_not(server: HttpServer, health: Health) -> None:
    assert get(server, "/readyz")[::2] == (503, "no turn finished yet\n")
    health.finished(TurnReport("w-1"), joined=True, at=time.time())
    assert get(server, "/readyz")[::2] == (200, "0 partitions, θ θ-1\n")
    health.gave_up(Unavailable("kafka", "away"), at=time.time())
    assert get(server, "/readyz")[::2] == (503, "kafka: away\n")


def test_the_status_is_json(server: HttpServer) -> None:
    status, content_type, body = get(server, "/status")
    assert (status, content_type) == (200, "application/json")
    assert json.loads(body)["meta_init"] == "θ-1"


def test_other_paths_are_not_found_and_are_told_what_there_is(server: HttpServer) -> None:
    status, _, body = get(server, "/")
    assert status == 404
    assert "/metrics" in body


def test_a_slow_client_keeps_nobody_waiting(server: HttpServer) -> None:
    host, port = urlsplit(server.url).hostname, urlsplit(server.url).port
    with socket.create_connection((host, port)) as slow:
        slow.sendall(b"GET /metrics HTTP/1.1\r\n")  # and no more
        assert get(server, "/livez")[0] == 200


def test_a_port_that_is_taken_is_a_misconfiguration(server: HttpServer, health: Health) -> None:
    port = urlsplit(server.url).port
    assert port
    with pytest.raises(Misconfigured, match=f"ADAPTD_HTTP_PORT = {port}"):
        HttpServer("127.0.0.1", port, Metrics().registry, health)


def test_after_close_nobody_listens(health: Health) -> None:
    server = HttpServer("127.0.0.1", 0, Metrics().registry, health)
    server.close()
    with pytest.raises(ConnectionRefusedError):
        get(server, "/livez")
