"""Which client talks to Kafka, and what is said when it cannot do what the settings ask for."""

from __future__ import annotations

import sys
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from daemon.adapters.kafka_python.outbox import KafkaPythonOutbox
from daemon.adapters.kafka_python.source import KafkaPythonEventSource
from daemon.config import Settings
from daemon.errors import Misconfigured
from daemon.worker.wiring import kafka_clients

needs_librdkafka = pytest.mark.skipif(
    find_spec("confluent_kafka") is None, reason="the extra librdkafka is not installed"
)
FASTER = Settings(kafka_client="librdkafka")
PASSWORD = {
    "kafka_security_protocol": "SASL_SSL",
    "kafka_sasl_mechanism": "SCRAM-SHA-512",
    "kafka_sasl_username": "me",
    "kafka_sasl_password": "secret",
}


def test_kafka_python_is_the_default() -> None:
    assert kafka_clients(Settings()) == (KafkaPythonEventSource, KafkaPythonOutbox)


@needs_librdkafka
def test_librdkafka_is_taken_where_it_is_asked_for() -> None:
    from daemon.adapters.librdkafka.outbox import LibrdkafkaOutbox
    from daemon.adapters.librdkafka.source import LibrdkafkaEventSource

    open_source, open_outbox = kafka_clients(FASTER)
    assert isinstance(open_source, partial)
    assert (open_source.func, open_outbox) == (LibrdkafkaEventSource, LibrdkafkaOutbox)


def test_without_the_extra_the_message_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in [name for name in sys.modules if "librdkafka" in name]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "confluent_kafka", None)
    with pytest.raises(Misconfigured, match=r"KAFKA_CLIENT.*pip install '\.\[librdkafka\]'"):
        kafka_clients(FASTER)


@needs_librdkafka
def test_what_the_settings_say_of_the_connection_is_passed_on(tmp_path: Path) -> None:
    from daemon.adapters.librdkafka.client import connection_properties

    both = tmp_path / "both.pem"
    both.touch()
    chosen = Settings.model_validate({**PASSWORD, "kafka_ssl_certfile": both})
    passed = connection_properties(chosen, "worker")
    assert passed["client.id"] == "worker"
    assert passed["security.protocol"] == "SASL_SSL"
    assert passed["sasl.mechanism"] == "SCRAM-SHA-512"
    assert (passed["sasl.username"], passed["sasl.password"]) == ("me", "secret")
    assert passed["ssl.certificate.location"] == passed["ssl.key.location"] == str(both)
    assert "ssl.ca.location" not in passed


@needs_librdkafka
@pytest.mark.parametrize("end", [0, 1])
@pytest.mark.parametrize(
    "asked",
    [
        {"kafka_security_protocol": "SSL", "kafka_ssl_cafile": __file__},
        {"kafka_security_protocol": "SSL", "kafka_ssl_certfile": __file__},
    ],
)
def test_what_librdkafka_cannot_use_is_misconfigured(end: int, asked: dict[str, Any]) -> None:
    settings = Settings.model_validate({"kafka_client": "librdkafka", **asked})
    with pytest.raises(Misconfigured, match="kafka: connect"):
        kafka_clients(settings)[end](settings, "worker")


@needs_librdkafka
def test_a_session_longer_than_a_turn_may_be_is_misconfigured() -> None:
    """kafka-python takes it; librdkafka does not."""
    settings = FASTER.model_copy(update={"kafka_max_poll_interval_ms": 10_000})
    settings = settings.model_copy(update={"kafka_session_timeout_ms": 20_000})
    with pytest.raises(Misconfigured, match=r"max\.poll\.interval\.ms"):
        kafka_clients(settings)[0](settings, "worker")


@needs_librdkafka
@pytest.mark.parametrize("protocol", ["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"])
@pytest.mark.parametrize("mechanism", ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"])
def test_every_protocol_and_mechanism_of_ours_is_built_in(protocol: str, mechanism: str) -> None:
    asked = {"kafka_security_protocol": protocol, "kafka_sasl_mechanism": mechanism}
    settings = Settings.model_validate(
        {"kafka_bootstrap_servers": "127.0.0.1:1", **PASSWORD, **asked}
    )
    for open_end in kafka_clients(settings.model_copy(update={"kafka_client": "librdkafka"})):
        open_end(settings, "worker").close()
