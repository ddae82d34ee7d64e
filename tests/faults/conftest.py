"""Installations on the shared services, and the small θ they serve."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from daemon.local.services import Services
from tests.faults.lab import HIDDEN_DIM, SOURCE_DIM, TARGET_DIM, Installation

Install = Callable[..., Installation]
Measured = Callable[[str], None]


@pytest.fixture(scope="session")
def theta(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from model.theta.meta_init import fresh_meta_init
    from model.theta.meta_init_file import save_meta_init

    path = tmp_path_factory.mktemp("theta") / "theta.safetensors"
    save_meta_init(fresh_meta_init(SOURCE_DIM, TARGET_DIM, HIDDEN_DIM), path)
    return path


@pytest.fixture
def install(services: Services, theta: Path, tmp_path: Path) -> Iterator[Install]:
    """`install(kafka_timeout_ms=1000)` makes topics and names of their own; they are deleted."""
    with ExitStack() as installed:

        def make(partitions: int = 4, **overrides: Any) -> Installation:
            kafka, redis_url = services.kafka_bootstrap_servers, services.redis_url
            made = Installation(kafka, redis_url, theta, tmp_path, overrides, partitions)
            installed.callback(made.close)
            return made

        yield make
