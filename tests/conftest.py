"""Real services for tests that ask; which ones were used is printed at the end of the run.

`services` is one Kafka and one Redis for the whole run: use names of your own in them
(`topic_names`, `redis_namespace`). `private_services` is a pair per module, for tests that pause,
kill or restart. Both start only when a test asks. Without services a test is skipped, but with
CI=true it fails.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import pytest
import redis

from daemon.local.errors import ServicesUnavailable

if TYPE_CHECKING:  # it loads kafka-python, which warns, and no filter is in force yet
    from daemon.local.services import Services

NEED_SERVICES = {"services", "private_services", "topic_names", "redis_namespace"}
USED = pytest.StashKey[list[str]]()


def pytest_configure(config: pytest.Config) -> None:
    config.stash[USED] = []


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """`-m "not services"` must leave out every test that needs them, marked by hand or not."""
    for item in items:
        if NEED_SERVICES & set(getattr(item, "fixturenames", ())):
            item.add_marker("services")


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    for line in config.stash[USED]:
        terminalreporter.write_line(f"services used: {line}")


@pytest.fixture(scope="session")
def services(pytestconfig: pytest.Config) -> Iterator[Services]:
    """The Kafka and Redis shared by all tests."""
    from daemon.local.services import find_services

    _mend_kafka_python()
    try:
        with find_services() as used:
            pytestconfig.stash[USED].append(used.description)
            yield used
    except ServicesUnavailable as error:
        _without_services(error)


@pytest.fixture(scope="module")
def private_services(pytestconfig: pytest.Config) -> Iterator[Services]:
    """A module's own Kafka and Redis, always local: containers keep no port over a restart."""
    from daemon.local.services import local_services

    _mend_kafka_python()
    try:
        with local_services(why="private to a module") as used:
            pytestconfig.stash[USED].append(used.description)
            yield used
    except ServicesUnavailable as error:
        _without_services(error)


@pytest.fixture
def topic_names(services: Services) -> Iterator[Callable[[str], str]]:
    """`topic_names("events")` is a topic name of this test alone; those topics are deleted."""
    from kafka import KafkaAdminClient  # type: ignore[import-untyped, unused-ignore]

    prefix, asked = f"t{uuid.uuid4().hex[:12]}", False

    def name(suffix: str) -> str:
        nonlocal asked
        asked = True
        return f"{prefix}-{suffix}"

    yield name
    if asked:
        with KafkaAdminClient(bootstrap_servers=services.kafka_bootstrap_servers) as admin:
            made = [topic for topic in admin.list_topics() if topic.startswith(prefix)]
            if made:
                admin.delete_topics(made)


@pytest.fixture
def redis_namespace(services: Services) -> Iterator[str]:
    """A key prefix of this test alone; keys that start with it are deleted."""
    prefix = f"t{uuid.uuid4().hex[:12]}:"
    yield prefix
    with redis.Redis.from_url(services.redis_url) as client:
        for key in client.scan_iter(match=f"{prefix}*", count=1000):
            client.delete(key)


def _mend_kafka_python() -> None:
    """Clients that tests open by themselves close their sockets too: one left to the collector is a
    warning in whatever test runs then."""
    from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer

    from daemon.adapters.kafka_python.mended import SocketClosingNetClient

    for client in (KafkaAdminClient, KafkaConsumer, KafkaProducer):
        client.DEFAULT_CONFIG["kafka_client"] = SocketClosingNetClient


def _without_services(error: ServicesUnavailable) -> None:
    if os.environ.get("CI", "").lower() in ("1", "true"):
        pytest.fail(f"CI=true and no services: {error}", pytrace=False)
    pytest.skip(f"no services: {error}")
