"""The fixtures of tests/conftest.py, on which every test with real services relies."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import redis
from kafka import KafkaAdminClient  # type: ignore[import-untyped, unused-ignore]

from daemon.local.services import Services

TESTS = Path(__file__).parents[1]


def test_services_answer_and_names_are_ones_own(
    services: Services, topic_names: Callable[[str], str], redis_namespace: str
) -> None:
    with KafkaAdminClient(bootstrap_servers=services.kafka_bootstrap_servers) as admin:
        topic = {topic_names("events"): {"num_partitions": 2, "replication_factor": 1}}
        admin.create_topics(topic)
    with redis.Redis.from_url(services.redis_url) as client:
        client.set(f"{redis_namespace}key", "value")


@pytest.mark.parametrize(("ci", "outcome"), [("", "1 skipped"), ("true", "1 error")])
def test_missing_services_skip_on_a_desk_and_fail_in_ci(ci: str, outcome: str) -> None:
    chosen = f"{__file__}::test_services_answer_and_names_are_ones_own"
    half = {"TEST_REDIS_URL": "redis://127.0.0.1:9/0", "TEST_KAFKA_BOOTSTRAP_SERVERS": ""}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", chosen],
        cwd=TESTS.parent,
        env=os.environ | half | {"CI": ci, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert outcome in done.stdout
    assert "set both or neither" in done.stdout
    assert (done.returncode != 0) == bool(ci)
