"""`adaptd up`: local Kafka and Redis in the foreground, for as long as somebody wants them."""

from __future__ import annotations

import time
from collections.abc import Callable

from daemon.local.errors import ServicesUnavailable
from daemon.local.interrupts import Interrupted, signals_interrupt
from daemon.local.server import Server
from daemon.local.services import Services, local_services

LOOK_EVERY_S = 0.3
OK, FAILED = 0, 1

Echo = Callable[[str], None]


def up(echo: Echo) -> int:
    """Run until SIGINT or SIGTERM (0) or until a server dies (1); the exit code."""
    try:
        with signals_interrupt(), local_services(note=echo) as services:
            _introduce(services, echo)
            echo(_wait_for_a_death(services))
            return FAILED
    except Interrupted:
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
