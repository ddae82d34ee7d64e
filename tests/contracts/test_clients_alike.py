"""Both clients are told the same, or docs/kafka-clients.md says where not.

What kafka-python uses is its DEFAULT_CONFIG and what our adapters pass. What librdkafka uses is
what it says itself (rd_kafka_conf_dump, by ctypes) and what our adapters pass.
"""

from __future__ import annotations

import ctypes
import re
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from kafka import KafkaConsumer, KafkaProducer

import docs.site.settings_table
from daemon.adapters.kafka_python import client as client_module
from daemon.adapters.kafka_python import outbox, source
from daemon.config import Settings
from tests.contracts.conftest import NO_LIBRDKAFKA

pytestmark = NO_LIBRDKAFKA
SETTINGS = Settings()
PAGE = docs.site.settings_table.PAGE.parent / "kafka-clients.md"

CONNECTION = {
    "bootstrap_servers": "bootstrap.servers",
    "client_id": "client.id",
    "client_dns_lookup": "client.dns.lookup",
    "security_protocol": "security.protocol",
    "ssl_check_hostname": "ssl.endpoint.identification.algorithm",
    "request_timeout_ms": "socket.timeout.ms",
    "bootstrap_timeout_ms": "socket.connection.setup.timeout.ms",
    "reconnect_backoff_ms": "reconnect.backoff.ms",
    "reconnect_backoff_max_ms": "reconnect.backoff.max.ms",
    "metadata_max_age_ms": "topic.metadata.refresh.interval.ms",
    "allow_auto_create_topics": "allow.auto.create.topics",
    "receive_message_max_bytes": "receive.message.max.bytes",
    "receive_buffer_bytes": "socket.receive.buffer.bytes",
    "socket_options": "socket.nagle.disable",
    "metrics_enabled": "enable.metrics.push",
}
READING = CONNECTION | {
    "group_id": "group.id",
    "group_instance_id": "group.instance.id",
    "client_rack": "client.rack",
    "partition_assignment_strategy": "partition.assignment.strategy",
    "session_timeout_ms": "session.timeout.ms",
    "heartbeat_interval_ms": "heartbeat.interval.ms",
    "max_poll_interval_ms": "max.poll.interval.ms",
    "enable_auto_commit": "enable.auto.commit",
    "auto_offset_reset": "auto.offset.reset",
    "check_crcs": "check.crcs",
    "isolation_level": "isolation.level",
    "fetch_max_wait_ms": "fetch.wait.max.ms",
    "fetch_min_bytes": "fetch.min.bytes",
    "fetch_max_bytes": "fetch.max.bytes",
    "max_partition_fetch_bytes": "fetch.message.max.bytes",
    "send_buffer_bytes": "socket.send.buffer.bytes",
}
WRITING = CONNECTION | {
    "acks": "request.required.acks",
    "enable_idempotence": "enable.idempotence",
    "compression_type": "compression.codec",
    "partitioner": "partitioner",
    "batch_size": "batch.size",
    "linger_ms": "queue.buffering.max.ms",
    "max_request_size": "message.max.bytes",
    "delivery_timeout_ms": "message.timeout.ms",
    "transactional_id": "transactional.id",
}
"""What kafka-python calls a setting, and librdkafka's name of the same; the values are equal."""

LISTED = {
    "connections_max_idle_ms": "idle connections are closed after (ms)",
    "retry_backoff_ms": "first retry after (ms), at most",
    "max_in_flight_requests_per_connection": "requests in flight",
    "retries": "retries of a produce request",
    "send_buffer_bytes": "socket send buffer (bytes)",
}
"""Rows of the page's table, by kafka-python's name."""
LISTED_FOR_LIBRDKAFKA = {
    "connections.max.idle.ms": "idle connections are closed after (ms)",
    "metadata.max.age.ms": "metadata is too old after (ms)",
    "retry.backoff.max.ms": "first retry after (ms), at most",
    "socket.connection.setup.timeout.ms": "connecting may take (ms)",
    "max.in.flight.requests.per.connection": "requests in flight",
    "message.send.max.retries": "retries of a produce request",
    "socket.send.buffer.bytes": "socket send buffer (bytes)",
}

OF_NO_CONCERN = {
    *("key_deserializer", "value_deserializer", "key_serializer", "value_serializer"),
    *("auto_commit_interval_ms", "default_offset_commit_callback", "consumer_timeout_ms"),
    *("metric_reporters", "metrics_num_samples", "metrics_sample_window_ms"),
    *("metric_group_prefix", "selector", "exclude_internal_topics", "kafka_client", "api_version"),
    *("enable_incremental_fetch_sessions", "max_poll_records", "transaction_timeout_ms"),
    *("proxy_url", "socks5_proxy", "max_block_ms"),
}
"""Settings of kafka-python's that are not used, or that librdkafka has no like of."""
CREDENTIALS = re.compile(r"sasl|ssl")
"""What both are given alike, if at all: daemon/worker and test_wiring see to that."""

OWN = re.compile(
    r"^(api\.version|broker\.|builtin|debug|log|enabled_events|.*_cb$|statistics|plugin|opaque"
    r"|internal|test\.|enable\.random|enable_sasl|socket\.blocking|socket\.max|client\.software"
    r"|message\.copy|topic\.metadata\.refresh\.(fast|sparse)|topic\.metadata\.propagation"
    r"|metadata\.(request|recovery)|coordinator\.query|offset\.store|auto\.commit|delivery\.report"
    r"|consume\.callback|produce\.offset|queu|enable\.(gapless|sparse|partition|auto\.offset)"
    r"|batch\.num|sticky|compression\.level|transaction\.timeout|group\.(protocol|remote)|share"
    r"|fetch\.(queue|error)|retry\.backoff\.ms|reconnect\.backoff\.jitter|enable\.auto\.commit"
    r"|socket\.keepalive|msg_order|max\.poll\.records|request\.timeout|enable\.metrics"
    r"|max\.in\.flight$|background|default_topic|allow\.auto|auto\.commit|auto\.offset"
    r"|enable\.auto|isolation|check\.crcs)"
)
"""Settings of librdkafka's that concern how it works inside, or that it has twice."""


def effective_of_kafka_python(
    monkeypatch: pytest.MonkeyPatch, adapter: Callable[..., Any], client: Any
) -> Mapping[str, Any]:
    class Opened:
        told: Mapping[str, Any]

        def __getattr__(self, name: str) -> Opened:
            return self

        def __call__(self, *_: object, **told: Any) -> Opened:
            return self

    opened = Opened()

    def open_client(_: object, **told: Any) -> Opened:
        opened.told = told
        return opened

    monkeypatch.setattr(client_module, "open_client", open_client)
    adapter(SETTINGS, "client")
    return {**client.DEFAULT_CONFIG, **opened.told}


@cache
def library() -> ctypes.CDLL:
    import confluent_kafka

    folder = Path(f"{Path(confluent_kafka.__file__).parent}.libs")
    found = sorted(folder.glob("librdkafka*"))
    if not found:
        pytest.skip("librdkafka is not a file of its own here")
    return ctypes.CDLL(str(found[0]))


def dumped(new: str, dump: str) -> dict[str, str]:
    made, dumper = getattr(library(), new), getattr(library(), dump)
    made.restype = ctypes.c_void_p
    dumper.restype = ctypes.POINTER(ctypes.c_char_p)
    dumper.argtypes = [ctypes.c_void_p, ctypes.POINTER(ctypes.c_size_t)]
    count = ctypes.c_size_t()
    pairs = dumper(made(), ctypes.byref(count))
    texts = [(pairs[i] or b"").decode() for i in range(count.value)]
    return dict(zip(texts[::2], texts[1::2], strict=True))


ALIASES = {"linger.ms": "queue.buffering.max.ms", "acks": "request.required.acks"}


def effective_of_librdkafka(ours: Mapping[str, Any]) -> Mapping[str, Any]:
    defaults = dumped("rd_kafka_conf_new", "rd_kafka_conf_dump")
    defaults |= dumped("rd_kafka_topic_conf_new", "rd_kafka_topic_conf_dump")
    assert {ALIASES.get(name, name) for name in ours} - defaults.keys() <= {
        *("bootstrap.servers", "group.id", "logger")
    }
    return {**defaults, **{ALIASES.get(name, name): value for name, value in ours.items()}}


def plain(name: str, value: Any) -> str:
    """One text for what both mean."""
    if name == "socket_options":
        return "true"  # TCP_NODELAY is all that is in them
    if name == "partitioner" and not isinstance(value, str):
        return {"DefaultPartitioner": "murmur2_random"}[type(value).__name__]
    if name == "partition_assignment_strategy" and not isinstance(value, str):
        return ",".join(strategy.name for strategy in value)
    if name == "ssl_check_hostname":
        return "https" if value in (True, "https") else "none"
    words = {None: "", "None": "", "all": "-1", "inherit": "", "largest": "latest", "none": ""}
    text = value.decode() if isinstance(value, bytes) else str(value)
    text = ",".join(value) if isinstance(value, list) else text
    text = words.get(text, text.lower() if text in ("True", "False") else text)
    return "" if name == "receive_buffer_bytes" and text == "0" else text.lower()


def effective(
    monkeypatch: pytest.MonkeyPatch, end: str
) -> tuple[Mapping[str, Any], Mapping[str, Any], Mapping[str, str]]:
    from daemon.adapters.librdkafka import outbox as rd_outbox
    from daemon.adapters.librdkafka import source as rd_source
    from daemon.adapters.librdkafka.client import connection_properties

    connecting = connection_properties(SETTINGS, "client")
    if end == "reading":
        monkeypatch.setattr(source, "read_past_what_is_unreadable", lambda _: None)
        python = effective_of_kafka_python(
            monkeypatch, source.KafkaPythonEventSource, KafkaConsumer
        )
        return python, effective_of_librdkafka(connecting | rd_source._reading(SETTINGS)), READING
    python = effective_of_kafka_python(monkeypatch, outbox.KafkaPythonOutbox, KafkaProducer)
    return python, effective_of_librdkafka(connecting | rd_outbox._writing(SETTINGS)), WRITING


BOTH_ENDS = pytest.mark.parametrize("end", ["reading", "writing"])


@BOTH_ENDS
def test_both_clients_are_told_the_same(monkeypatch: pytest.MonkeyPatch, end: str) -> None:
    python, librdkafka, same = effective(monkeypatch, end)
    unlike = {
        name: (python[name], librdkafka.get(other))
        for name, other in same.items()
        if plain(name, python.get(name)) != plain(name, librdkafka.get(other))
        and other not in LISTED_FOR_LIBRDKAFKA
    }
    assert unlike == {}


@BOTH_ENDS
def test_every_setting_of_either_is_compared_or_listed(
    monkeypatch: pytest.MonkeyPatch, end: str
) -> None:
    python, librdkafka, same = effective(monkeypatch, end)
    theirs = python.keys() - same.keys() - LISTED.keys() - OF_NO_CONCERN
    assert {name for name in theirs if not CREDENTIALS.search(name)} == set()
    known = {*READING.values(), *WRITING.values(), *LISTED_FOR_LIBRDKAFKA, "logger"}
    others = {n for n in librdkafka if n not in known and not OWN.match(n)}
    assert {name for name in others if not CREDENTIALS.search(name)} == set()


def rows() -> dict[str, tuple[str, str]]:
    table = PAGE.read_text().split("## Settings that differ")[1]
    cells = [
        [c.strip() for c in line.split("|")[1:-1]] for line in table.splitlines() if "|" in line
    ]
    return {cell[0]: (cell[1], cell[2]) for cell in cells[2:]}


def test_the_pages_table_has_the_values_that_are_used(monkeypatch: pytest.MonkeyPatch) -> None:
    found = rows()
    assert {*LISTED.values(), *LISTED_FOR_LIBRDKAFKA.values()} <= found.keys()
    for end in ("reading", "writing"):
        python, librdkafka, _ = effective(monkeypatch, end)
        for name, row in LISTED.items():
            if name in python and name != "send_buffer_bytes":
                assert found[row][0] == str(python[name]), name
        for name, row in LISTED_FOR_LIBRDKAFKA.items():
            if name != "socket.send.buffer.bytes" or end == "writing":
                assert found[row][1] == str(librdkafka[name]), name
