"""What both librdkafka adapters share: how to connect, and what a vendor error means to us.

confluent-kafka is the optional extra `librdkafka`: `daemon.worker.wiring` imports these modules
only where the settings ask for them.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Thread
from typing import Any

from confluent_kafka import KafkaError, KafkaException

from daemon.config import Settings
from daemon.errors import Misconfigured, Unavailable

CRITICAL = 2
"""Syslog's level. Below it librdkafka says twice a second what we log ourselves, once."""
LEAST_SOCKET_TIMEOUT_MS = 1_500
"""librdkafka wants a second beyond the 100 ms that a fetch may wait."""

RECENT_S = 10.0
"""A complaint so old explains nothing any more."""

SETTINGS_ERRORS = frozenset(
    {
        KafkaError._INVALID_ARG,  # at the start: a setting, a certificate or a key it cannot use
        KafkaError._UNSUPPORTED_FEATURE,
        KafkaError._AUTHENTICATION,
        KafkaError.SASL_AUTHENTICATION_FAILED,
        KafkaError.UNSUPPORTED_SASL_MECHANISM,
        KafkaError.TOPIC_AUTHORIZATION_FAILED,
        KafkaError.GROUP_AUTHORIZATION_FAILED,
        KafkaError.CLUSTER_AUTHORIZATION_FAILED,
    }
)
"""No retry mends these."""


def connection_properties(settings: Settings, client_id: str) -> dict[str, Any]:
    """The client's settings for reaching the brokers, as a consumer and as a producer."""
    password = settings.kafka_sasl_password
    certificate = settings.kafka_ssl_certfile
    wanted = {
        "bootstrap.servers": settings.kafka_bootstrap_servers,
        "client.id": client_id,
        "security.protocol": settings.kafka_security_protocol,
        "sasl.mechanism": settings.kafka_sasl_mechanism,
        "sasl.username": settings.kafka_sasl_username,
        "sasl.password": password.get_secret_value() if password else None,
        "ssl.ca.location": settings.kafka_ssl_cafile,
        "ssl.certificate.location": certificate,
        "ssl.key.location": settings.kafka_ssl_keyfile or certificate,  # both may be in one file
        "socket.timeout.ms": max(LEAST_SOCKET_TIMEOUT_MS, settings.kafka_timeout_ms),
        "socket.connection.setup.timeout.ms": max(1_000, settings.kafka_timeout_ms),
        "reconnect.backoff.max.ms": 1_000,
        "allow.auto.create.topics": "false",
        "statistics.interval.ms": 0,
        "log_level": CRITICAL,
    }
    known = {name: str(value) for name, value in wanted.items() if value is not None}
    return known | {"logger": logging.getLogger("librdkafka")}


class Complaints:
    """What librdkafka says between calls; it never gives up by itself, whatever it meets."""

    def __init__(self) -> None:
        self._last: KafkaError | None = None
        self._heard_at = 0.0
        self._hopeless: KafkaError | None = None

    def hear(self, error: KafkaError) -> None:
        """Its `error_cb`; comes within polls, on the thread that polls."""
        self._last, self._heard_at = error, time.monotonic()
        if error.code() in SETTINGS_ERRORS:
            self._hopeless = error

    @contextmanager
    def translated(self, doing: str) -> Iterator[None]:
        """Turn the client's errors into ours. Where a call says no more than that it timed out,
        what was heard before it says why."""
        try:
            with librdkafka_errors_translated(doing):
                yield
                if self._hopeless is not None:
                    raise KafkaException(self._hopeless)
        except Unavailable as e:
            if self._last is None or time.monotonic() - self._heard_at > RECENT_S:
                raise
            raise Unavailable("kafka", f"{e.detail}; before: {told(self._last)}") from e.__cause__


def told(error: KafkaError) -> str:
    """In one line."""
    return f"{error.name()}: {error.str()}".replace("\n", " ")


@contextmanager
def librdkafka_errors_translated(doing: str) -> Iterator[None]:
    """Turn the client's errors into ours."""
    try:
        yield
    except KafkaException as e:
        error = e.args[0]
        if error.code() in SETTINGS_ERRORS:
            raise Misconfigured(f"kafka: {doing}: {told(error)}") from e
        raise Unavailable("kafka", f"{doing}: {told(error)}") from e
    except (OSError, TimeoutError) as e:
        raise Unavailable("kafka", f"{doing}: {e}") from e


class BoundedCalls:
    """Runs on a thread of its own what librdkafka puts no bound on: with the broker paused, a
    synchronous commit was seen to wait for ten minutes. One call at a time; a daemon thread, so
    that one which never returns does not keep the process."""

    def __init__(self) -> None:
        self._thread: Thread | None = None

    @property
    def busy(self) -> bool:
        return self._thread is not None and self._thread.is_alive()

    def run(self, call: Callable[[], Any], timeout_s: float) -> None:
        """Wait for the call to return. Raises TimeoutError when it, or the one before it, does
        not; what it raises itself."""
        if self._thread is not None:
            self._thread.join(timeout_s)
        if self.busy:
            raise TimeoutError("the call before is still waiting")
        failures: list[Exception] = []

        def guarded() -> None:
            try:
                call()
            except Exception as e:
                failures.append(e)

        self._thread = Thread(target=guarded, name="librdkafka-aside", daemon=True)
        self._thread.start()
        self._thread.join(timeout_s)
        if self.busy:
            raise TimeoutError(f"no answer in {timeout_s:g} s")
        for failure in failures:
            raise failure
