"""Each Kafka client works where the other is not installed: its adapters never load the other."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import daemon.adapters
from tests.contracts.conftest import NO_LIBRDKAFKA

ADAPTERS = Path(daemon.adapters.__path__[0])


def modules_of(client: str) -> list[str]:
    return [
        f"daemon.adapters.{client}.{path.stem}" for path in (ADAPTERS / client).glob("[a-z]*.py")
    ]


@pytest.mark.parametrize(
    ("client", "other"),
    [
        ("kafka_python", "confluent_kafka"),
        pytest.param("librdkafka", "kafka", marks=NO_LIBRDKAFKA),
        ("redis", "kafka"),
    ],
)
def test_the_adapters_of_one_client_load_no_other(client: str, other: str) -> None:
    imports = "; ".join(f"import {module}" for module in modules_of(client))
    loaded = subprocess.run(
        [sys.executable, "-c", f"import sys; {imports}; print(*sys.modules)"],
        capture_output=True,
        text=True,
        check=True,
        cwd=ADAPTERS.parent.parent,
    ).stdout.split()
    assert set(modules_of(client)) <= set(loaded)
    assert other not in loaded
