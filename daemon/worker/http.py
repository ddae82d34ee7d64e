"""The HTTP server for probes, metrics and status. It has its own threads, so that a slow scrape
delays no turn.

Whoever reaches the port may open connections and say nothing. So a connection may take DEADLINE_S
in all, and when there are MAX_CONNECTIONS, the oldest is closed for the newest: a probe, which
takes milliseconds, is always answered.
"""

from __future__ import annotations

import json
import socket
import sys
import time
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from http.server import BaseHTTPRequestHandler
from socketserver import ThreadingTCPServer
from threading import Lock, Thread
from typing import Any

import structlog
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder

from daemon.errors import Misconfigured
from daemon.worker.health import Health

MAX_CONNECTIONS = 32
DEADLINE_S = 10.0
"""How long a connection may take from being accepted to its end."""
OUT_OF_DESCRIPTORS_WAIT_S = 0.1


class HttpServer:
    """Serves /metrics, /livez, /readyz and /status until it is closed."""

    def __init__(self, host: str, port: int, registry: CollectorRegistry, health: Health) -> None:
        """Starts to listen; port 0 takes a free one. Raises Misconfigured when it cannot."""
        try:
            self._server = _BoundedServer((host, port), _handler(registry, health))
        except OSError as e:
            raise Misconfigured(f"ADAPTD_HTTP_PORT = {port}: cannot listen on {host}: {e}") from e
        self._thread = Thread(target=self._server.serve_forever, name="http", daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        """The address at which it listens."""
        host, port = self._server.server_address[:2]
        return f"http://[{host!s}]:{port}" if ":" in str(host) else f"http://{host!s}:{port}"

    def close(self) -> None:
        """Stops listening."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(2)


class _BoundedServer(ThreadingTCPServer):
    """A thread for each connection, of which there are few and each is short."""

    daemon_threads = True
    allow_reuse_address = True
    request_queue_size = 128

    def __init__(self, address: tuple[str, int], handler: type[BaseHTTPRequestHandler]) -> None:
        self.address_family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        self._open: OrderedDict[socket.socket, float] = OrderedDict()
        """When each open connection was accepted, the oldest first."""
        self._lock = Lock()
        super().__init__(address, handler)

    def get_request(self) -> tuple[socket.socket, Any]:
        """Accepts a connection. Waits a little when that fails: the listening socket stays ready,
        and the thread would spin."""
        try:
            return super().get_request()
        except OSError:
            time.sleep(OUT_OF_DESCRIPTORS_WAIT_S)
            raise

    def process_request(self, request: Any, client_address: Any) -> None:
        with self._lock:
            while len(self._open) >= MAX_CONNECTIONS:
                _hang_up(self._open.popitem(last=False)[0])
            self._open[request] = time.monotonic()
        super().process_request(request, client_address)

    def service_actions(self) -> None:
        """Closes connections that take too long. `serve_forever` calls it twice a second."""
        with self._lock:
            while self._open:
                request, accepted_at = next(iter(self._open.items()))
                if time.monotonic() - accepted_at < DEADLINE_S:
                    return
                del self._open[request]
                _hang_up(request)

    def shutdown_request(self, request: Any) -> None:
        with self._lock:
            self._open.pop(request, None)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Says nothing of clients that went away; any other fault is ours and is logged."""
        if not isinstance(sys.exception(), OSError):
            structlog.get_logger().error("http_request_failed", exc_info=True)


def _encoder(accepted: str) -> tuple[Callable[[CollectorRegistry], bytes], str]:
    """Returns how to write metrics for this Accept header, and the content type. A header that
    prometheus_client cannot compare asks for nothing."""
    try:
        return choose_encoder(accepted)
    except (TypeError, ValueError):
        return choose_encoder("")


def _hang_up(request: socket.socket) -> None:
    """Ends a connection that another thread may be reading from; that thread then closes it."""
    with suppress(OSError):
        request.shutdown(socket.SHUT_RDWR)


def _handler(registry: CollectorRegistry, health: Health) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        server_version = "adaptd"
        sys_version = ""
        timeout = DEADLINE_S

        def do_HEAD(self) -> None:
            self.do_GET()

        def do_GET(self) -> None:
            match self.path.split("?")[0]:
                case "/metrics":
                    encode, content_type = _encoder(self.headers.get("Accept", ""))
                    self._answer(200, content_type, encode(registry))
                case "/livez":
                    self._verdict(health.live(time.monotonic()))
                case "/readyz":
                    self._verdict(health.ready())
                case "/status":
                    body = json.dumps(health.status(time.monotonic()), indent=2, ensure_ascii=False)
                    self._answer(200, "application/json", body.encode())
                case _:
                    self._answer(404, "text/plain", b"try /metrics /livez /readyz /status\n")

        def _verdict(self, verdict: tuple[bool, str]) -> None:
            good, line = verdict
            self._answer(200 if good else 503, "text/plain; charset=utf-8", f"{line}\n".encode())

        def _answer(self, code: int, content_type: str, body: bytes) -> None:
            self.send_response(code)
            self.send_header("Content-Type", content_type)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        def log_message(self, *args: object) -> None:
            """Logs nothing: probes and scrapes come all the time."""

    return Handler
