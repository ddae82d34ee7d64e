"""The HTTP server for probes, metrics and status. It has its own threads, so that a slow scrape
delays no turn."""

from __future__ import annotations

import json
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder

from daemon.errors import Misconfigured
from daemon.worker.health import Health


class HttpServer:
    """Serves /metrics, /livez, /readyz and /status until it is closed."""

    def __init__(self, host: str, port: int, registry: CollectorRegistry, health: Health) -> None:
        """Starts to listen; port 0 takes a free one. Raises Misconfigured when it cannot."""
        try:
            self._server = ThreadingHTTPServer((host, port), _handler(registry, health))
        except OSError as e:
            raise Misconfigured(f"ADAPTD_HTTP_PORT = {port}: cannot listen on {host}: {e}") from e
        self._server.daemon_threads = True
        self._thread = Thread(target=self._server.serve_forever, name="http", daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        """The address at which it listens."""
        host, port = self._server.server_address[:2]
        return f"http://{host!s}:{port}"

    def close(self) -> None:
        """Stops listening."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(2)


def _handler(registry: CollectorRegistry, health: Health) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        server_version = "adaptd"
        sys_version = ""
        timeout = 10

        def do_GET(self) -> None:
            match self.path.split("?")[0]:
                case "/metrics":
                    encode, content_type = choose_encoder(self.headers.get("Accept", ""))
                    self._answer(200, content_type, encode(registry))
                case "/livez":
                    self._verdict(health.live(time.time()))
                case "/readyz":
                    self._verdict(health.ready())
                case "/status":
                    body = json.dumps(health.status(time.time()), indent=2, ensure_ascii=False)
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
            self.wfile.write(body)

        def log_message(self, *args: object) -> None:
            """Logs nothing: probes and scrapes come all the time."""

    return Handler
