"""A stable address: a TCP proxy whose upstream a test changes while it runs."""

from __future__ import annotations

import socket
from contextlib import suppress
from threading import Lock, Thread
from typing import Self

from daemon.local.server import free_port


class Proxy:
    """Forwards connections to `upstream` (HOST:PORT), which `lead_to` changes.

    Connections that are open stay where they lead, as those through a Kubernetes service do.
    """

    def __init__(self, upstream: str, port: int | None = None) -> None:
        self.port = port or free_port()
        self._upstream = upstream
        self._open: set[socket.socket] = set()
        self._lock = Lock()
        self._listener = socket.create_server(("127.0.0.1", self.port), reuse_port=False)
        self._accepting = Thread(target=self._accept, daemon=True)
        self._accepting.start()

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def lead_to(self, upstream: str) -> None:
        """Sends the connections to come to another server."""
        self._upstream = upstream

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            host, port = self._upstream.split(":")
            try:
                far = socket.create_connection((host, int(port)), 5)
            except OSError:
                near.close()
                continue
            far.settimeout(None)
            with self._lock:
                self._open |= {near, far}
            for one, other in ((near, far), (far, near)):
                Thread(target=self._pump, args=(one, other), daemon=True).start()

    def _pump(self, one: socket.socket, other: socket.socket) -> None:
        with suppress(OSError):
            while data := one.recv(65_536):
                other.sendall(data)
        for end in (one, other):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()
            with self._lock:
                self._open.discard(end)

    def close(self) -> None:
        """Closes the address and every connection through it."""
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._accepting.join(5)
        with self._lock:
            left = list(self._open)
        for end in left:
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
