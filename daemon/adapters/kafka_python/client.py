"""What all adapters on kafka-python share: how to connect, and what its errors mean to us."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from kafka.errors import (
    AuthorizationError,
    KafkaConfigurationError,
    KafkaError,
    SaslAuthenticationFailedError,
)
from kafka.structs import OffsetAndMetadata

from daemon.config import Settings
from daemon.errors import Misconfigured, Unavailable

QUIET = {"metrics_enabled": False}
"""Arguments for consumers and producers: the client's own metrics take a tenth of its CPU."""

logging.getLogger("kafka").setLevel(logging.ERROR)  # its warnings repeat what we log ourselves


SETTINGS_ERRORS = (KafkaConfigurationError, SaslAuthenticationFailedError, AuthorizationError)
"""Errors that no retry mends: they become Misconfigured, all others Unavailable."""


def connection_arguments(settings: Settings) -> dict[str, Any]:
    """Returns the constructor's arguments by which a client of kafka-python reaches the brokers."""
    password = settings.kafka_sasl_password
    arguments = {
        "bootstrap_servers": settings.kafka_bootstrap_servers.split(","),
        "security_protocol": settings.kafka_security_protocol,
        "sasl_mechanism": settings.kafka_sasl_mechanism,
        "sasl_plain_username": settings.kafka_sasl_username,
        "sasl_plain_password": password.get_secret_value() if password else None,
        "ssl_cafile": _path(settings.kafka_ssl_cafile),
        "ssl_certfile": _path(settings.kafka_ssl_certfile),
        "ssl_keyfile": _path(settings.kafka_ssl_keyfile),
        "request_timeout_ms": settings.kafka_timeout_ms,
        "bootstrap_timeout_ms": settings.kafka_timeout_ms,
        "reconnect_backoff_max_ms": 1_000,
    }
    return {name: value for name, value in arguments.items() if value is not None}


def _path(path: object) -> str | None:
    return None if path is None else str(path)


def note_of(mark: OffsetAndMetadata) -> str:
    """Returns what was noted beside a committed offset. confluent-kafka (2.16) commits a NUL behind
    each note, and does not see it itself."""
    return str(mark.metadata or "").rstrip("\0")


@contextmanager
def kafka_errors_translated(doing: str) -> Iterator[None]:
    """Raises Misconfigured or Unavailable in place of kafka-python's errors and of the system's.

    `doing` says in the message what failed. Errors of any other kind pass: they are bugs.
    """
    try:
        yield
    except SETTINGS_ERRORS as e:
        raise Misconfigured(f"kafka: {doing}: {type(e).__name__}: {e}") from e
    except KafkaError as e:
        raise Unavailable("kafka", f"{doing}: {type(e).__name__}: {e}") from e
    except (OSError, TimeoutError) as e:
        raise Unavailable("kafka", f"{doing}: {e}") from e
