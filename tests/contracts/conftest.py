"""Both sides of each port: the in-memory double, and the real service."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec

import pytest

from daemon.config import Settings

MEMORY_AND_REAL = ["memory", pytest.param("real", marks=pytest.mark.services)]
"""Parameters of a port's fixture. It asks for the services only when it makes the real one, so
their mark stands here."""

NO_LIBRDKAFKA = pytest.mark.skipif(
    find_spec("confluent_kafka") is None, reason="the extra librdkafka is not installed"
)
CLIENTS = [
    pytest.param("kafka-python", marks=pytest.mark.services),
    pytest.param("librdkafka", marks=[pytest.mark.services, NO_LIBRDKAFKA]),
]
"""Parameters where one port has two real clients: `kafka_settings(client)`."""


@pytest.fixture
def kafka_settings(request: pytest.FixtureRequest) -> Callable[..., Settings]:
    """Settings for topics of this test alone; starts the services when called."""

    def settings(client: str = "kafka-python") -> Settings:
        name = request.getfixturevalue("topic_names")
        return Settings(
            kafka_client=client,
            kafka_bootstrap_servers=request.getfixturevalue("services").kafka_bootstrap_servers,
            kafka_group_id=name("group"),
            kafka_events_topic=name("events"),
            kafka_mappings_topic=name("mappings"),
            kafka_dead_letters_topic=name("letters"),
            kafka_session_timeout_ms=30_000,
        )

    return settings
