"""Chooses the Kafka and the Redis to use, in this order:

1. those whose addresses the environment gives;
2. containers, when a Docker engine answers;
3. local servers, started here.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Literal

from daemon.local.containers import container_services
from daemon.local.errors import NoContainers, ServicesUnavailable
from daemon.local.kafka import start_kafka
from daemon.local.kafka_install import KAFKA_VERSION, Note
from daemon.local.server import ANYWHERE, Server, ServerPlace
from daemon.local.valkey import redis_url, start_valkey

KAFKA_VARIABLE = "TEST_KAFKA_BOOTSTRAP_SERVERS"
REDIS_VARIABLE = "TEST_REDIS_URL"

Kind = Literal["environment", "containers", "local"]
Containers = Callable[[ExitStack], tuple[str, str]]
"""See `container_services`."""


@dataclass(frozen=True)
class Services:
    """One Kafka and one Redis."""

    kafka_bootstrap_servers: str
    redis_url: str
    kind: Kind
    description: str
    """One line for a person: which services these are, and why not others."""
    kafka: Server | None = None
    """The server, to pause, kill and restart it; None unless `kind` is `local`."""
    redis: Server | None = None
    """The same for Redis."""


@contextmanager
def find_services(
    environ: Mapping[str, str] = os.environ,
    note: Note = lambda _line: None,
    containers: Containers = container_services,
) -> Iterator[Services]:
    """Provide services for the block; those that were started for it end with it.

    Raises ServicesUnavailable, of which MissingExtra when the extra `local` is not installed.
    """
    given = services_from(environ)
    if given is not None:
        yield given
        return
    with ExitStack() as running:
        yield _containers_or_local(running, note, containers)


def _containers_or_local(running: ExitStack, note: Note, containers: Containers) -> Services:
    try:
        kafka, redis = containers(running)
    except NoContainers as no_containers:
        reason = f"no containers: {no_containers}"
    else:
        return Services(kafka, redis, "containers", f"Docker: Kafka at {kafka}, Redis at {redis}")
    return running.enter_context(local_services(note, why=reason))


def services_from(environ: Mapping[str, str]) -> Services | None:
    """Returns the services whose addresses `environ` holds, or None. Raises ServicesUnavailable
    when it holds only one of the two."""
    kafka, redis = environ.get(KAFKA_VARIABLE), environ.get(REDIS_VARIABLE)
    if not kafka and not redis:
        return None
    if not kafka or not redis:
        missing, present = (
            (REDIS_VARIABLE, KAFKA_VARIABLE) if kafka else (KAFKA_VARIABLE, REDIS_VARIABLE)
        )
        raise ServicesUnavailable(f"{present} is set but {missing} is not: set both or neither")
    where = f"given by the environment: Kafka at {kafka}, Redis at {_without_password(redis)}"
    return Services(kafka, redis, "environment", where)


@contextmanager
def local_services(
    note: Note = lambda _line: None,
    why: str = "",
    kafka_at: ServerPlace = ANYWHERE,
    redis_at: ServerPlace = ANYWHERE,
    kafka_properties: Mapping[str, str] | None = None,
) -> Iterator[Services]:
    """Start a Kafka and a Valkey for the block. `why` is added to their description, and
    `kafka_properties` override lines of the broker's server.properties.

    Raises ServicesUnavailable.
    """
    with ExitStack() as running:
        valkey = running.enter_context(start_valkey(at=redis_at))
        kafka = running.enter_context(
            start_kafka(properties=kafka_properties, note=note, at=kafka_at)
        )
        where = f"local: Kafka {KAFKA_VERSION} at {kafka.address}, Valkey at {valkey.address}"
        description = f"{where} ({why})" if why else where
        yield Services(kafka.address, redis_url(valkey), "local", description, kafka, valkey)


def _without_password(url: str) -> str:
    scheme, _, rest = url.rpartition("://")
    return f"{scheme}://{rest.rpartition('@')[2]}"
