"""Every shell and Python block of the documentation runs, against a real Kafka and Redis."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path

import pytest

from daemon.config import Settings
from daemon.local.server import free_port
from daemon.local.services import Services
from daemon.wire.topics import specs
from tests.documentation.blocks import PAGES, ROOT, blocks
from tests.documentation.running import Session

RUN = {
    page: [b for b in blocks(page) if b.language == "python" or (b.language == "bash" and b.lines)]
    for page in PAGES
}
TOPICS = {
    "paired-events",
    "adapted-mappings",
    "paired-events-dlq",
    "meta-inits",
    "meta-evidence",
}
PLACES = ("kafka:9092", "redis://redis:6379/0", "127.0.0.1:9464")
"""What the pages call Kafka, Redis and a worker's HTTP port."""


pytestmark = pytest.mark.services


@pytest.fixture
def real_services(request: pytest.FixtureRequest) -> Services:
    """The shared Kafka and Redis. Without them these tests fail and are not skipped."""
    try:
        found: Services = request.getfixturevalue("services")
    except pytest.skip.Exception as e:
        pytest.fail(f"the documentation cannot be run: {e}", pytrace=False)
    return found


@pytest.fixture
def no_topics(real_services: Services) -> Iterator[None]:
    """The topics of default names, which the pages make, are not there before and after."""
    from kafka import KafkaAdminClient  # type: ignore[import-untyped, unused-ignore]
    from kafka.errors import UnknownTopicOrPartitionError

    def delete() -> None:
        with closing(
            KafkaAdminClient(bootstrap_servers=real_services.kafka_bootstrap_servers)
        ) as admin:
            give_up_at = time.monotonic() + 30
            while there := TOPICS & set(admin.list_topics()):
                assert time.monotonic() < give_up_at, f"{there} cannot be deleted"
                with suppress(UnknownTopicOrPartitionError):  # gone, and listed still
                    admin.delete_topics(list(there))

    delete()
    yield
    delete()


def make_topics(services: Services) -> None:
    from daemon.adapters.kafka_python.topics import KafkaTopics

    settings = Settings(kafka_bootstrap_servers=services.kafka_bootstrap_servers)
    with closing(KafkaTopics(settings)) as topics:
        for spec in specs(settings, mapping_size=0):
            topics.create(spec)


@pytest.fixture
def session(
    real_services: Services, no_topics: None, redis_namespace: str, tmp_path: Path
) -> Session:
    http = f"127.0.0.1:{free_port()}"
    bin_folder = tmp_path / "bin"
    bin_folder.mkdir()
    for name, command in {
        "adaptd": f"{sys.executable} -m daemon",
        "python": sys.executable,
        "make": "/usr/bin/make --old-file=.venv/.ready",  # what is installed stays as it is
    }.items():
        (bin_folder / name).write_text(f'#!/bin/sh\nexec {command} "$@"\n')
        (bin_folder / name).chmod(0o755)
    environment = {k: v for k, v in os.environ.items() if not k.startswith("ADAPTD_")} | {
        "PATH": f"{bin_folder}:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "OMP_NUM_THREADS": "1",
        "ADAPTD_HTTP_PORT": http.split(":")[1],
        "ADAPTD_KAFKA_GROUP_ID": redis_namespace.rstrip(":"),
        "ADAPTD_REDIS_PREFIX": redis_namespace.rstrip(":"),
    }
    real = (real_services.kafka_bootstrap_servers, real_services.redis_url, http)
    folder = tmp_path / "adaptd"
    folder.mkdir()
    return Session(folder, dict(zip(PLACES, real, strict=True)), environment)


@pytest.mark.parametrize(
    "page", [p for p, found in RUN.items() if found], ids=lambda page: str(page.relative_to(ROOT))
)
def test_every_block_of_a_page_runs(page: Path, real_services: Services, session: Session) -> None:
    if not any("adaptd topics create" in line for block in RUN[page] for line in block.lines):
        make_topics(real_services)
    with closing(session):
        for block in RUN[page]:
            session.run(block)


def test_the_pages_name_the_places_that_stand_for_real_ones() -> None:
    text = "".join(page.read_text() for page in PAGES)
    assert all(place in text for place in PLACES)
