"""Records of mappings of a small θ, in every form."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from daemon.client import conformance
from daemon.client.served import ServedTheta, parse_served_theta
from model.theta.meta_init_file import meta_init_to_bytes

THETA = conformance.known_theta()


@dataclass(frozen=True)
class Record:
    """A record of the topic of mappings."""

    key: bytes | None
    value: bytes | None
    offset: int = 0
    topic: str = "mappings"
    partition: int = 0


@pytest.fixture(scope="session")
def theta() -> ServedTheta:
    return parse_served_theta(meta_init_to_bytes(THETA), "theta")


Make = Callable[..., Record]


@pytest.fixture(scope="session")
def whole_record() -> Make:
    """`whole_record("s", version=5)`: a record of a whole mapping, others for another `seed`."""

    def make(stream: str = "s", seed: int = 20, **changes: Any) -> Record:
        tensors = conformance.whole_tensors(seed)
        value = conformance.recorded(THETA, "full", "float32", tensors, stream=stream, **changes)
        return Record(stream.encode(), value)

    return make


@pytest.fixture(scope="session")
def factored_record() -> Make:
    """The same of a mapping that was added to θ."""

    def make(stream: str = "s", **changes: Any) -> Record:
        tensors = conformance.factor_tensors()
        value = conformance.recorded(THETA, "lowrank", "float32", tensors, stream=stream, **changes)
        return Record(stream.encode(), value)

    return make
