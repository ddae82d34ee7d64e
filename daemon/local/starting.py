"""Start a server, with another port when somebody else got there first."""

from __future__ import annotations

from collections.abc import Callable

from daemon.local.errors import ServicesUnavailable
from daemon.local.server import Server

ATTEMPTS = 3


def started(new_server: Callable[[], Server]) -> Server:
    """`new_server` is called again, for new ports, when it fails because one is taken."""
    for _ in range(ATTEMPTS - 1):
        try:
            return _start(new_server())
        except ServicesUnavailable as error:
            if "address already in use" not in str(error).lower():
                raise
    return _start(new_server())


def _start(server: Server) -> Server:
    try:
        server.start()
    except BaseException:
        server.close()
        raise
    return server
