"""`adaptd up`: local Kafka and Redis in the foreground, for as long as somebody wants them."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

from daemon.local.errors import ServicesUnavailable
from daemon.local.server import Server
from daemon.local.services import Services, local_services

LOOK_EVERY_S = 0.3
OK, FAILED = 0, 1

Echo = Callable[[str], None]


def up(echo: Echo) -> int:
    """Run until SIGINT or SIGTERM (0) or until a server dies (1); the exit code."""
    try:
        with _both_signals_interrupt(), local_services(note=echo) as services:
            _introduce(services, echo)
            echo(_wait_for_a_death(services))
            return FAILED
    except KeyboardInterrupt:
        echo("stopped")
        return OK
    except ServicesUnavailable as error:
        echo(str(error))
        return FAILED


def _introduce(services: Services, echo: Echo) -> None:
    echo(services.description)
    echo(f"export ADAPTD_KAFKA_BOOTSTRAP_SERVERS={services.kafka_bootstrap_servers}")
    echo(f"export ADAPTD_REDIS_URL={services.redis_url}")
    echo("Ctrl-C ends both and deletes their data.")


def _wait_for_a_death(services: Services) -> str:
    servers = [server for server in (services.kafka, services.redis) if server is not None]
    while True:
        for server in servers:
            if not server.running:
                return _obituary(server)
        time.sleep(LOOK_EVERY_S)


def _obituary(server: Server) -> str:
    code = server.process.returncode
    return f"{server.name} ended by itself (code {code}); the end of its log:\n{server.log_tail()}"


@contextmanager
def _both_signals_interrupt() -> Iterator[None]:
    """The first SIGINT or SIGTERM is a KeyboardInterrupt; later ones do not disturb cleaning up."""
    both = (signal.SIGINT, signal.SIGTERM)

    def interrupt(_number: int, _frame: FrameType | None) -> NoReturn:
        for number in both:
            signal.signal(number, signal.SIG_IGN)
        raise KeyboardInterrupt

    before = {number: signal.signal(number, interrupt) for number in both}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
