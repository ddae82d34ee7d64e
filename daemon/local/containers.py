"""Starts Kafka and Redis in Docker, by testcontainers.

Whatever prevents that (no engine, no network for the images, an engine's own error) becomes
NoContainers with one line, and `services` starts local servers instead.
"""

from __future__ import annotations

import gc
import warnings
from contextlib import ExitStack
from importlib import import_module
from typing import Any

from daemon.local.errors import NoContainers

ENGINE_TIMEOUT_S = 3
KAFKA_IMAGE = "confluentinc/cp-kafka:8.1.0"  # Apache Kafka 4.1
REDIS_IMAGE = "valkey/valkey:9"

KAFKA_ENVIRONMENT = {
    "KAFKA_AUTO_CREATE_TOPICS_ENABLE": "false",
    "KAFKA_MESSAGE_MAX_BYTES": str(8 * 1024 * 1024),
    "KAFKA_TRANSACTION_STATE_LOG_REPLICATION_FACTOR": "1",
    "KAFKA_TRANSACTION_STATE_LOG_MIN_ISR": "1",
}


def container_services(running: ExitStack) -> tuple[str, str]:
    """Start both containers; they end when `running` is closed.

    Returns Kafka's bootstrap address and Redis' URL. Raises NoContainers.
    """
    require_engine()
    with warnings.catch_warnings(), ExitStack() as starting:
        warnings.simplefilter("ignore")  # testcontainers deprecates parts of itself
        try:
            kafka, redis = _start_kafka(starting), _start_redis(starting)
        except Exception as error:  # docker's, requests', testcontainers' own: see the docstring
            raise NoContainers(one_line(error)) from error
        running.push(starting.pop_all())
    return kafka, redis


def require_engine() -> None:
    """Raise NoContainers unless a Docker engine answers; an installed client proves nothing."""
    try:
        docker = import_module("docker")
        import_module("testcontainers")
    except ImportError as error:
        raise NoContainers("testcontainers is not installed") from error
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        answers = _answers(docker)
        gc.collect()  # docker-py leaves the socket of a failed connection open
    if not answers:
        raise NoContainers("no Docker engine answers")


def _answers(docker: Any) -> bool:
    try:
        client = docker.from_env(timeout=ENGINE_TIMEOUT_S)
    except Exception:  # docker's, requests' or urllib3's: no engine
        return False
    try:
        return bool(client.ping())
    except Exception:
        return False
    finally:
        client.close()


def one_line(error: BaseException, width: int = 120) -> str:
    """Returns the error's message in one line of at most `width` characters."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= width else f"{text[: width - 1]}…"


def _start_kafka(starting: ExitStack) -> str:
    container = _testcontainers("kafka").KafkaContainer(KAFKA_IMAGE).with_kraft()
    for name, value in KAFKA_ENVIRONMENT.items():
        container = container.with_env(name, value)
    return str(starting.enter_context(container).get_bootstrap_server())


def _start_redis(starting: ExitStack) -> str:
    container: Any = _testcontainers("redis").RedisContainer(REDIS_IMAGE)
    container = starting.enter_context(container.with_command("valkey-server --appendonly yes"))
    host, port = container.get_container_host_ip(), container.get_exposed_port(6379)
    return f"redis://{host}:{port}/0"


def _testcontainers(name: str) -> Any:
    """Import a module of testcontainers from where this version keeps it."""
    try:
        return import_module(f"testcontainers.community.{name}")
    except ImportError:
        return import_module(f"testcontainers.{name}")
