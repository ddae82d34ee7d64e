"""What all adapters on kafka-python share: how to connect, and what its errors mean to us."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from kafka.errors import (
    AuthorizationError,
    IllegalSaslStateError,
    KafkaConfigurationError,
    KafkaError,
    SaslAuthenticationFailedError,
    UnknownTopicOrPartitionError,
    UnsupportedSaslMechanismError,
    for_code,
)
from kafka.net.sasl.oauth import AbstractTokenProvider
from kafka.structs import OffsetAndMetadata

from daemon.adapters import kafka_refusals as refusals
from daemon.adapters.kafka_limits import RECONNECT_BACKOFF_MAX_MS, RECONNECT_BACKOFF_MS
from daemon.adapters.kafka_python.first_contact import refusal, tls_context
from daemon.adapters.kafka_python.mended import open_client
from daemon.adapters.kafka_tokens import Provider, token_provider
from daemon.config import Settings
from daemon.errors import Misconfigured, Refused, Unavailable

QUIET = {"metrics_enabled": False}
"""Arguments for consumers and producers: the client's own metrics take a tenth of its CPU."""

DEFAULT_ADDRESS = (
    "this is the default address: set ADAPTD_KAFKA_BOOTSTRAP_SERVERS, or start a local Kafka and "
    "Redis with adaptd up"
)
"""What to do when no broker answers and no address was given."""

logging.getLogger("kafka").setLevel(logging.ERROR)  # its warnings repeat what we log ourselves


REFUSALS: dict[type[KafkaError], str] = {
    SaslAuthenticationFailedError: refusals.WRONG_CREDENTIALS,
    UnsupportedSaslMechanismError: refusals.UNKNOWN_MECHANISM,
    IllegalSaslStateError: refusals.NO_SASL,
    AuthorizationError: refusals.LACKS_A_RIGHT,
}
"""Errors by which brokers refuse us: they become Refused, in these words. KafkaConfigurationError
becomes Misconfigured, and all others Unavailable."""


class _TokenProvider(AbstractTokenProvider):  # type: ignore[misc]  # kafka-python has no types
    """Tokens in kafka-python's own terms."""

    def __init__(self, provider: Provider) -> None:
        self._provider = provider

    def token(self) -> str:
        return self._provider()[0]


def connect(client: Callable[..., Any], settings: Settings, **arguments: Any) -> Any:
    """Returns `client(**arguments)`, connected to the brokers as the settings say. Raises
    Unavailable, Misconfigured, and Refused where the brokers refuse us: kafka-python itself only
    finds no broker then."""
    reach = connection_arguments(settings)
    tls_context(settings)  # kafka-python would look at the files later, and go on trying
    try:
        with kafka_errors_translated("connect"):
            return open_client(client, **reach | arguments)
    except Unavailable as e:
        if words := refusal(settings, reach):
            raise Refused("kafka", words) from e
        if "kafka_bootstrap_servers" not in settings.model_fields_set:
            raise Unavailable("kafka", f"{e.detail}; {DEFAULT_ADDRESS}") from e
        raise


def connection_arguments(settings: Settings) -> dict[str, Any]:
    """Returns the constructor's arguments by which a client of kafka-python reaches the brokers.
    Raises Misconfigured when there is no token provider of the name that is set."""
    password = settings.kafka_sasl_password
    bearer = settings.kafka_sasl_mechanism == "OAUTHBEARER"
    arguments = {
        "sasl_oauth_token_provider": _TokenProvider(token_provider(settings)) if bearer else None,
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
        "reconnect_backoff_ms": RECONNECT_BACKOFF_MS,
        "reconnect_backoff_max_ms": RECONNECT_BACKOFF_MAX_MS,
    }
    return {name: value for name, value in arguments.items() if value is not None}


def _path(path: object) -> str | None:
    return None if path is None else str(path)


def note_of(mark: OffsetAndMetadata) -> str:
    """Returns what was noted beside a committed offset. confluent-kafka (2.16) commits a NUL behind
    each note, and does not see it itself."""
    return str(mark.metadata or "").rstrip("\0")


def described_topic(admin: Any, name: str) -> Mapping[str, Any] | None:
    """Returns how an admin client of kafka-python describes a topic, None where there is none.
    Raises kafka-python's errors: TopicAuthorizationFailedError for a topic that is hidden from this
    user, whether it exists or not. (A consumer takes a hidden topic for one that does not
    exist.)"""
    topic: Mapping[str, Any]
    (topic,) = admin.describe_topics([name])
    if topic["error_code"] == UnknownTopicOrPartitionError.errno:
        return None
    if topic["error_code"]:
        raise for_code(topic["error_code"])(f"topic {name!r}")
    return topic


@contextmanager
def kafka_errors_translated(doing: str) -> Iterator[None]:
    """Raises Misconfigured, Refused or Unavailable in place of kafka-python's errors and of the
    system's.

    `doing` says in the message what failed. Errors of any other kind pass: they are bugs.
    """
    try:
        yield
    except KafkaConfigurationError as e:
        raise Misconfigured(f"kafka: {doing}: {type(e).__name__}: {e}") from e
    except KafkaError as e:
        detail = f"{doing}: {type(e).__name__}: {e}"
        for kind, words in REFUSALS.items():
            if isinstance(e, kind):
                raise Refused("kafka", f"{words} ({detail})") from e
        raise Unavailable("kafka", detail) from e
    except (OSError, TimeoutError) as e:
        raise Unavailable("kafka", f"{doing}: {e}") from e
