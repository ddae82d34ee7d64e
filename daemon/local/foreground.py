"""Commands that stay in the foreground and own servers: `adaptd up`, and how signals end one.

A signal must not end such a command at once: its servers have to be ended and their data deleted.
So `signals_interrupt` turns SIGINT and SIGTERM into an exception, which every `with` block on the
way out sees.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import NoReturn

from daemon.local.server import Server, ServerPlace
from daemon.local.services import Services, local_services

CHECK_EVERY_S = 0.3
OK, FAILED = 0, 1

Echo = Callable[[str], None]


class Interrupted(BaseException):
    """SIGINT or SIGTERM came. Not an Exception, so that only the command itself catches it."""

    def __init__(self, number: int) -> None:
        self.number = number


@contextmanager
def signals_interrupt() -> Iterator[None]:
    """Within the block, the first SIGINT or SIGTERM raises Interrupted. Further ones are ignored,
    so that they do not disturb cleaning up."""
    both = (signal.SIGINT, signal.SIGTERM)

    def interrupt(number: int, _frame: FrameType | None) -> NoReturn:
        for each in both:
            signal.signal(each, signal.SIG_IGN)
        raise Interrupted(number)

    before = {number: signal.signal(number, interrupt) for number in both}
    try:
        yield
    finally:
        for number, action in before.items():
            signal.signal(number, action)


def run_local_services(
    echo: Echo, ports: tuple[int, int] | None = None, data: Path | None = None
) -> int:
    """Start Kafka and Valkey, print their addresses by `echo`, and wait.

    `ports` are Kafka's and Valkey's, by default free ones. `data` is a folder in which both keep
    their data for the next run; by default the data are deleted. Returns the exit code: 0 after
    SIGINT or SIGTERM, 1 when a server ends by itself. Raises ServicesUnavailable when one cannot
    be started.
    """
    kafka_port, redis_port = ports or (None, None)
    kafka_at = ServerPlace(kafka_port, data and data.absolute() / "kafka")
    redis_at = ServerPlace(redis_port, data and data.absolute() / "valkey")
    try:
        with (
            signals_interrupt(),
            local_services(note=echo, kafka_at=kafka_at, redis_at=redis_at) as services,
        ):
            _print_addresses(services, echo, data)
            echo(_wait_until_one_ends(services))
            return FAILED
    except Interrupted:
        echo("stopped")
        return OK


def _print_addresses(services: Services, echo: Echo, data: Path | None) -> None:
    echo(services.description)
    echo(f"export ADAPTD_KAFKA_BOOTSTRAP_SERVERS={services.kafka_bootstrap_servers}")
    echo(f"export ADAPTD_REDIS_URL={services.redis_url}")
    end = f"; their data stay in {data}." if data else " and deletes their data."
    echo(f"Ctrl-C ends both{end}")


def _wait_until_one_ends(services: Services) -> str:
    servers = [server for server in (services.kafka, services.redis) if server is not None]
    while True:
        for server in servers:
            if not server.running:
                return _ended_by_itself(server)
        time.sleep(CHECK_EVERY_S)


def _ended_by_itself(server: Server) -> str:
    code = server.process.returncode
    return f"{server.name} ended by itself (code {code}); the end of its log:\n{server.log_tail()}"
