"""Real services for tests that ask; which ones were used is printed at the end of the run.

`services` is one Kafka and one Redis for the whole run: use names of your own in them
(`topic_names`, `redis_namespace`). `private_services` is a pair per module, for tests that pause,
kill or restart. Both start only when a test asks. Without services a test is skipped, but with
CI=true it fails.

`make test` runs several test processes (pytest-xdist), each with services of its own and whole
files at a time.
"""

from __future__ import annotations

import importlib.util
import os
import signal
import sys
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import redis
from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer

from daemon.adapters.kafka_python.mended import SocketClosingNetClient
from daemon.local.errors import ServicesUnavailable
from daemon.local.services import Services, find_services, local_services

NEED_SERVICES = {"services", "private_services", "topic_names", "redis_namespace"}
SUBSCRIBE = Path(__file__).parents[1] / "examples" / "subscribe.py"
TOLD = pytest.StashKey[list[str]]()

os.environ["OMP_NUM_THREADS"] = "1"
"""Before torch is imported, here and in what tests start: they are small, and threads that wait for
each other crawl on a busy machine."""


def pytest_configure(config: pytest.Config) -> None:
    config.stash[TOLD] = []
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        # as a shell starts what is to run in the background; programs that tests stop by Ctrl-C
        # would inherit it
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """`-m "not services"` must leave out every test that needs them, marked by hand or not.

    Of several processes, one that waits leaves its core to the others. So files of tests that need
    services, which mostly wait, go first, and those that compute fill the time beside and after.
    """
    for item in items:
        if NEED_SERVICES & set(getattr(item, "fixturenames", ())):
            item.add_marker("services")
    _skip_without_device([item for item in items if item.get_closest_marker("gpu")])
    if "PYTEST_XDIST_WORKER" in os.environ:
        waiting = {item.path for item in items if item.get_closest_marker("services")}
        items.sort(key=lambda item: item.path not in waiting)


def _skip_without_device(items: list[pytest.Item]) -> None:
    """Skips tests that need a GPU where there is none."""
    if not items:
        return
    import torch  # takes two seconds, which only tests that need it shall pay

    if not torch.cuda.is_available():
        for item in items:
            item.add_marker(pytest.mark.skip(reason="no CUDA device here"))


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Collects a test process's lines for the end of the run. One that crashed has none."""
    node.config.stash[TOLD] += getattr(node, "workeroutput", {}).get("told", [])


def pytest_sessionfinish(session: pytest.Session) -> None:
    if hasattr(session.config, "workeroutput"):  # this is one process of several
        session.config.workeroutput["told"] = session.config.stash[TOLD]


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    for line in config.stash[TOLD]:
        terminalreporter.write_line(line)


@pytest.fixture
def measured(pytestconfig: pytest.Config) -> Callable[[str], None]:
    """`measured("ready in 2.1 s")`: said at the end of the run; no test depends on it."""
    return lambda line: pytestconfig.stash[TOLD].append(f"measured: {line}")


@pytest.fixture(scope="session")
def reader() -> ModuleType:
    """examples/subscribe.py as a module."""
    spec = importlib.util.spec_from_file_location("subscribe", SUBSCRIBE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["subscribe"] = module  # its dataclasses look there
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def services(pytestconfig: pytest.Config) -> Iterator[Services]:
    """The Kafka and Redis shared by all tests."""
    _mend_kafka_python()
    try:
        with find_services() as used:
            pytestconfig.stash[TOLD].append(f"services used: {used.description}")
            yield used
    except ServicesUnavailable as error:
        _without_services(error)


@pytest.fixture(scope="module")
def private_services(pytestconfig: pytest.Config) -> Iterator[Services]:
    """A module's own Kafka and Redis, always local: containers keep no port over a restart."""
    _mend_kafka_python()
    try:
        with local_services(why="private to a module") as used:
            pytestconfig.stash[TOLD].append(f"services used: {used.description}")
            yield used
    except ServicesUnavailable as error:
        _without_services(error)


@pytest.fixture
def topic_names(services: Services) -> Iterator[Callable[[str], str]]:
    """`topic_names("events")` is a topic name of this test alone; those topics are deleted."""
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
    for client in (KafkaAdminClient, KafkaConsumer, KafkaProducer):
        client.DEFAULT_CONFIG["kafka_client"] = SocketClosingNetClient


def _without_services(error: ServicesUnavailable) -> None:
    if os.environ.get("CI", "").lower() in ("1", "true"):
        pytest.fail(f"CI=true and no services: {error}", pytrace=False)
    pytest.skip(f"no services: {error}")
