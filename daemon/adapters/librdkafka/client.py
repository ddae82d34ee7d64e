"""What both adapters on librdkafka share: how to connect, and what its errors mean to us.

confluent-kafka is the optional extra `librdkafka`: `daemon.worker.wiring` imports these modules
only where the settings ask for them.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from threading import Thread
from typing import Any, TypeVar

from confluent_kafka import KafkaError, KafkaException

from daemon.adapters import kafka_refusals as refusals
from daemon.adapters.kafka_limits import RECONNECT_BACKOFF_MAX_MS, RECONNECT_BACKOFF_MS
from daemon.adapters.kafka_tokens import token_provider
from daemon.config import Settings
from daemon.errors import Misconfigured, Refused, Unavailable

T = TypeVar("T")

CRITICAL = 2
"""Of syslog's levels. At lower ones librdkafka logs twice a second what we log once ourselves."""
LEAST_SOCKET_TIMEOUT_MS = 1_500
"""librdkafka insists on a second more than the time that a fetch may wait (FETCH_WAIT_MS)."""

RECENT_S = 10.0
"""A complaint older than this explains nothing any more."""

IMPOSSIBLE = frozenset({KafkaError._INVALID_ARG, KafkaError._UNSUPPORTED_FEATURE})
"""Errors at the start: a setting, a certificate or a key that librdkafka cannot use."""
REFUSALS: dict[int, str] = {
    KafkaError._AUTHENTICATION: refusals.WRONG_CREDENTIALS,
    KafkaError.SASL_AUTHENTICATION_FAILED: refusals.WRONG_CREDENTIALS,
    KafkaError.UNSUPPORTED_SASL_MECHANISM: refusals.UNKNOWN_MECHANISM,
    KafkaError.ILLEGAL_SASL_STATE: refusals.NO_SASL,
    KafkaError.TOPIC_AUTHORIZATION_FAILED: refusals.LACKS_A_RIGHT,
    KafkaError.GROUP_AUTHORIZATION_FAILED: refusals.LACKS_A_RIGHT,
    KafkaError.CLUSTER_AUTHORIZATION_FAILED: refusals.LACKS_A_RIGHT,
}
"""Errors by which brokers refuse us: they become Refused, in these words, unless the error's text
says it better. All others become Unavailable."""


def refusal_in(error: KafkaError) -> str | None:
    """Returns what to say of a broker's refusal; None where the error is none."""
    code = error.code()
    if code in (KafkaError._AUTHENTICATION, KafkaError._SSL, KafkaError._TRANSPORT):
        return refusals.words_for(error.str()) or REFUSALS.get(code)
    return REFUSALS.get(code)


def connection_properties(settings: Settings, client_id: str) -> dict[str, Any]:
    """Returns librdkafka's configuration properties by which a consumer or producer reaches the
    brokers. Raises Misconfigured when there is no token provider of the name that is set."""
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
        "reconnect.backoff.ms": RECONNECT_BACKOFF_MS,
        "reconnect.backoff.max.ms": RECONNECT_BACKOFF_MAX_MS,
        "allow.auto.create.topics": "false",
        "statistics.interval.ms": 0,
        "enable.metrics.push": "false",  # or it would tell the brokers how it does
        "log_level": CRITICAL,
    }
    known = {name: str(value) for name, value in wanted.items() if value is not None}
    properties: dict[str, Any] = known | {"logger": logging.getLogger("librdkafka")}
    if settings.kafka_sasl_mechanism == "OAUTHBEARER":
        provider = token_provider(settings)
        properties["oauth_cb"] = lambda _: provider()
    return properties


LOST = frozenset({KafkaError._TRANSPORT, KafkaError._ALL_BROKERS_DOWN, KafkaError._TIMED_OUT})
"""What librdkafka says when a connection to a broker is gone."""


class Complaints:
    """The errors that librdkafka reports beside its calls: they explain the call that fails next.

    librdkafka never gives up by itself, whatever it meets: a call with a wrong password, say, only
    times out, and the reason comes by `error_cb` before.
    """

    def __init__(self) -> None:
        self._last: KafkaError | None = None
        self._noted_at = 0.0
        self._refusal: KafkaError | None = None
        self._refused_at = 0.0
        self._disconnected = False

    def take_disconnected(self) -> bool:
        """Returns whether a connection to a broker was lost since the last call."""
        lost, self._disconnected = self._disconnected, False
        return lost

    def on_error(self, error: KafkaError) -> None:
        """Notes an error. It is the client's `error_cb`: called within polls, on their thread."""
        self._last, self._noted_at = error, time.monotonic()
        self._disconnected |= error.code() in LOST
        if refusal_in(error):
            self._refusal, self._refused_at = error, self._noted_at

    @contextmanager
    def translated(self, doing: str) -> Iterator[None]:
        """Raises Misconfigured, Refused or Unavailable in place of librdkafka's errors, with the
        last complaint as the reason; Refused also when the call fails or brings nothing a short
        time after brokers refused us: librdkafka goes on trying."""
        try:
            with librdkafka_errors_translated(doing):
                yield
                self._raise_refusal()
        except Unavailable as e:
            with librdkafka_errors_translated(doing):
                self._raise_refusal()
            if self._last is None or time.monotonic() - self._noted_at > RECENT_S:
                raise
            raise Unavailable(
                "kafka", f"{e.detail}; before: {_in_one_line(self._last)}"
            ) from e.__cause__

    def _raise_refusal(self) -> None:
        if self._refusal is not None and time.monotonic() - self._refused_at < RECENT_S:
            raise KafkaException(self._refusal)


def _in_one_line(error: KafkaError) -> str:
    """Returns the error's name and text without line breaks."""
    return f"{error.name()}: {error.str()}".replace("\n", " ")


@contextmanager
def librdkafka_errors_translated(doing: str) -> Iterator[None]:
    """Raises Misconfigured, Refused or Unavailable in place of librdkafka's errors and of the
    system's.

    `doing` says in the message what failed. Errors of any other kind pass: they are bugs.
    """
    try:
        yield
    except KafkaException as e:
        error = e.args[0]
        if error.code() in IMPOSSIBLE:
            raise Misconfigured(f"kafka: {doing}: {_in_one_line(error)}") from e
        if words := refusal_in(error):
            raise Refused("kafka", f"{words} ({doing}: {_in_one_line(error)})") from e
        raise Unavailable("kafka", f"{doing}: {_in_one_line(error)}") from e
    except (OSError, TimeoutError) as e:
        raise Unavailable("kafka", f"{doing}: {e}") from e


class BoundedCalls:
    """Runs calls on a thread of its own, one at a time, and waits for each only so long.

    For calls that librdkafka does not bound: with the broker paused, a synchronous commit was seen
    to wait for ten minutes. The thread is a daemon, so that a call which never returns does not
    keep the process alive.
    """

    def __init__(self) -> None:
        self._thread: Thread | None = None

    @property
    def busy(self) -> bool:
        return self._thread is not None and self._thread.is_alive()

    def run(self, call: Callable[[], Any], timeout_s: float) -> None:
        """Runs `call` and waits for its end. Raises what it raises, and TimeoutError when it, or
        the call before it, does not end within `timeout_s`."""
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


def completed_aside(call: Callable[[], T]) -> Future[T]:
    """Returns the future of a call that a thread of its own makes. The thread is a daemon, so that
    a call which never returns does not keep the process alive."""
    answer: Future[T] = Future()

    def complete() -> None:
        try:
            answer.set_result(call())
        except Exception as e:
            answer.set_exception(e)

    Thread(target=complete, name="librdkafka-asks", daemon=True).start()
    return answer
