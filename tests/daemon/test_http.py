"""The HTTP port, by a real server and real requests."""

from __future__ import annotations

import json
import socket
import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.client import HTTPConnection, RemoteDisconnected
from threading import Event, Thread, active_count
from urllib.parse import urlsplit

import pytest
from prometheus_client import Gauge

from daemon.errors import Misconfigured, Unavailable
from daemon.turn.report import TurnReport
from daemon.worker import http, logs
from daemon.worker.health import Health, Snapshot
from daemon.worker.http import MAX_CONNECTIONS, HttpServer
from daemon.worker.metrics import Metrics


@pytest.fixture
def health() -> Health:
    snapshot = Snapshot("w", "0.1", "θ-1", "cpu", started_at=time.time())
    return Health(snapshot, liveness_max_age_s=60.0, now=time.monotonic())


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


@pytest.mark.parametrize(
    "accept",
    [
        "application/openmetrics-text;version=1.0.0=",
        "application/openmetrics-text; version=x; escaping=y",
        "application/openmetrics-text; version=" + "9" * 5_000,
        ";;;,,,===",
        "",
    ],
)
def test_whatever_a_scraper_accepts_it_gets_metrics(
    server: HttpServer, accept: str, capfd: pytest.CaptureFixture[str]
) -> None:
    status, _, body = get(server, "/metrics", accept)
    assert status == 200
    assert "adaptd_events_total" in body
    assert capfd.readouterr().err == ""


def test_livez_judges_the_age_of_the_last_turn(server: HttpServer, health: Health) -> None:
    assert get(server, "/livez")[0] == 200
    health.finished(TurnReport("w-1"), joined=True, now=time.monotonic() - 100, at=time.time())
    status, _, line = get(server, "/livez")
    assert status == 503
    assert "100." in line


def test_readyz_says_why_not(server: HttpServer, health: Health) -> None:
    assert get(server, "/readyz")[::2] == (503, "no turn finished yet\n")
    health.finished(TurnReport("w-1"), joined=True, now=time.monotonic(), at=time.time())
    assert get(server, "/readyz")[::2] == (200, "0 partitions, θ θ-1\n")
    health.gave_up(Unavailable("kafka", "away"), now=time.monotonic())
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


@contextmanager
def strangers(server: HttpServer, count: int) -> Iterator[list[socket.socket]]:
    """So many clients, each of which sends a byte now and then and never a whole request."""
    opened = [socket.create_connection(address(server), 5) for _ in range(count)]
    done = Event()

    def drip() -> None:
        while not done.wait(0.05):
            for one in opened:
                with suppress(OSError):
                    one.send(b"G")

    thread = Thread(target=drip)
    thread.start()
    try:
        yield opened
    finally:
        done.set()
        thread.join()
        for one in opened:
            one.close()


def address(server: HttpServer) -> tuple[str, int]:
    parts = urlsplit(server.url)
    assert parts.hostname
    assert parts.port
    return parts.hostname, parts.port


def test_two_hundred_dripping_clients_keep_no_probe_waiting(server: HttpServer) -> None:
    threads, began = active_count(), time.monotonic()
    with strangers(server, 200):
        for _ in range(20):
            assert get(server, "/livez")[0] == 200
        assert active_count() <= threads + 1 + MAX_CONNECTIONS
    assert time.monotonic() - began < 5


def test_a_connection_has_a_deadline(server: HttpServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "DEADLINE_S", 0.3)
    with strangers(server, 1) as (one,):
        assert one.recv(1) == b""  # closed by the server


def test_a_reader_that_does_not_read_has_one_too(
    server: HttpServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http, "DEADLINE_S", 0.3)
    with socket.create_connection(address(server), 5) as one:
        one.sendall(b"GET /metrics HTTP/1.1\r\n\r\n" * 1_000)
        time.sleep(1.5)
        with suppress(ConnectionError):
            while one.recv(65_536):
                pass


def test_head_is_get_without_the_body(server: HttpServer) -> None:
    connection = HTTPConnection(urlsplit(server.url).netloc, timeout=10)
    connection.request("HEAD", "/livez")
    response = connection.getresponse()
    assert (response.status, response.read()) == (200, b"")
    assert int(response.getheader("Content-Length") or 0) > 0
    connection.close()


def test_what_strangers_send_is_not_logged(
    server: HttpServer, capfd: pytest.CaptureFixture[str]
) -> None:
    garbage = [b"", b"\x16\x03\x01\x02\x00\x01", b"GET\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n"]
    garbage += [b"POST / HTTP/1.0\r\n\r\n", b"GET " + b"x" * 100_000, b"\xff" * 10 + b"\r\n\r\n"]
    garbage += [b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * 500 + b"\r\n"]
    for sent in garbage:
        with socket.create_connection(address(server), 5) as one, suppress(OSError):
            one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            one.sendall(sent)  # and a reset
    assert get(server, "/livez")[0] == 200
    time.sleep(0.1)
    captured = capfd.readouterr()
    assert captured.err + captured.out == ""


def test_a_fault_of_our_own_is_logged_as_json(
    health: Health, capsys: pytest.CaptureFixture[str]
) -> None:
    logs.configure("info", "json", "w")
    registry = Metrics().registry

    def broken() -> float:
        raise ArithmeticError("a bug")

    Gauge("adaptd_broken", "It breaks.", registry=registry).set_function(broken)
    server = HttpServer("127.0.0.1", 0, registry, health)
    with pytest.raises(RemoteDisconnected):
        get(server, "/metrics")
    server.close()
    (line,) = capsys.readouterr().err.splitlines()
    assert json.loads(line)["event"] == "http_request_failed"
    assert json.loads(line)["exception"][0]["exc_value"] == "a bug"


def test_it_listens_on_ipv6_too(health: Health) -> None:
    try:
        server = HttpServer("::1", 0, Metrics().registry, health)
    except Misconfigured as e:
        pytest.skip(str(e))
    assert server.url.startswith("http://[::1]:")
    assert get(server, "/livez")[0] == 200
    server.close()


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
