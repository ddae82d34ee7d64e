"""Starts a real Apache Kafka (KRaft, one node) on 127.0.0.1, without Docker or an installed Java.

It starts in half the time with Java's ahead-of-time cache (Java 25 and later, JEP 514), which holds
Kafka's classes parsed, linked and profiled. The cache fits one build of Java and the paths of the
jars, so it cannot be shipped: one practice run, the first time, writes it. Java checks by itself
that the cache fits, and starts without when it does not.
"""

from __future__ import annotations

import base64
import os
import shutil
import socket
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from kafka import KafkaAdminClient  # type: ignore[import-untyped, unused-ignore]
from kafka.errors import KafkaError  # type: ignore[import-untyped, unused-ignore]
from kafka.net.compat import KafkaNetClient  # type: ignore[import-untyped, unused-ignore]

from daemon.local.errors import ServicesUnavailable
from daemon.local.folders import DataFolder, locked
from daemon.local.kafka_install import KafkaInstall, Note, kafka_install
from daemon.local.server import ANYWHERE, Server, ServerPlace, free_port, start_on_free_port

QUICK_START = ["-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-XX:-UsePerfData"]
"""One compiler and one collector thread: half the start time on two cores."""

FIRST_JAVA_WITH_ONE_STEP_CACHES = 25
NO_CACHE_MESSAGES = ["-Xlog:aot*=off", "-Xlog:cds*=off"]
PRACTICE_STOP_S = 60.0
"""Java writes the cache when it ends."""

FIRST_ANSWER_TIMEOUT_MS = 10_000
"""A starting broker listens a little before it answers."""

FOREIGN_JAVA_SETTINGS = ("JAVA_TOOL_OPTIONS", "_JAVA_OPTIONS", "JDK_JAVA_OPTIONS", "CLASSPATH")
"""Variables that are meant for the user's Java and would change ours."""

NewServer = Callable[[list[str]], Server]
"""Returns a Kafka server, not started, whose Java has these flags added."""


def start_kafka(
    *,
    max_message_bytes: int = 8 * 1024 * 1024,
    heap_mib: int = 384,
    properties: Mapping[str, str] | None = None,
    note: Note = lambda _line: None,
    at: ServerPlace = ANYWHERE,
) -> Server:
    """Start a broker, by default with an empty data folder of its own; `.address` is its bootstrap
    address.

    `properties` overrides lines of its server.properties. `note` is called with a line before each
    step that takes long the first time. Raises MissingExtra, ServicesUnavailable.
    """
    install = kafka_install(note)

    def new_server(jvm_flags: list[str], at: ServerPlace = ANYWHERE) -> Server:
        return _server(install, max_message_bytes, heap_mib, properties or {}, jvm_flags, at)

    jvm_flags = _cache_flags(install, new_server, note)
    return start_on_free_port(lambda: new_server(jvm_flags, at))


def _cache_flags(install: KafkaInstall, new_server: NewServer, note: Note) -> list[str]:
    """Returns Java's flags for the ahead-of-time cache. Makes the cache first if there is none."""
    cache = install.aot_cache
    if install.java_version[0] < FIRST_JAVA_WITH_ONE_STEP_CACHES:
        return []
    if not cache.exists():
        with locked(cache.with_suffix(".lock")):
            if not cache.exists():
                note("preparing Kafka for quick starts (10 s, only this first time)")
                _make_cache(cache, new_server)
    usable = cache.stat().st_size > 0
    return [f"-XX:AOTCache={cache}", *NO_CACHE_MESSAGES] if usable else []


def _make_cache(cache: Path, new_server: NewServer) -> None:
    """Start and stop a broker that records what it loads. Leaves an empty file when that fails, so
    that it is not tried again."""
    half = cache.with_suffix(f".half-{os.getpid()}")
    half.unlink(missing_ok=True)
    flags = [f"-XX:AOTCacheOutput={half}", *NO_CACHE_MESSAGES]
    try:
        with start_on_free_port(lambda: new_server(flags)) as server:
            server.stop(PRACTICE_STOP_S)
    except ServicesUnavailable:
        half.unlink(missing_ok=True)
    half.touch()
    half.replace(cache)


def _server(
    install: KafkaInstall,
    max_message_bytes: int,
    heap_mib: int,
    overrides: Mapping[str, str],
    jvm_flags: list[str],
    at: ServerPlace,
) -> Server:
    port = at.chosen_port()
    folder = at.folder("kafka")
    data = _formatted_data(install, folder)
    settings = _settings(data, port, max_message_bytes) | dict(overrides)
    config = folder.path / "server.properties"
    config.write_text("".join(f"{key}={value}\n" for key, value in settings.items()))
    java = [str(install.java), *QUICK_START, *jvm_flags, f"-Xmx{heap_mib}m"]
    java += [f"-Djava.io.tmpdir={folder.path}", "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn"]
    return Server(
        name="Kafka",
        address=f"127.0.0.1:{port}",
        command=[*java, "-cp", install.classpath, "kafka.Kafka", str(config)],
        folder=folder,
        answers=lambda: _answers(port),
        env={k: v for k, v in os.environ.items() if k not in FOREIGN_JAVA_SETTINGS},
    )


def _formatted_data(install: KafkaInstall, folder: DataFolder) -> Path:
    """Copy the formatted folder and give it a cluster id of its own, unless an earlier run has done
    so; returns the copy's path."""
    data, half = folder.path / "data", folder.path / "data.half"
    if data.exists():
        return data
    shutil.rmtree(half, ignore_errors=True)
    shutil.copytree(install.formatted, half)
    ids = {"version": "1", "node.id": "1", "cluster.id": _kafka_uuid()}
    ids["directory.id"] = _kafka_uuid()
    (half / "meta.properties").write_text("".join(f"{k}={v}\n" for k, v in ids.items()))
    return half.rename(data)


def _kafka_uuid() -> str:
    """Returns a UUID as Kafka writes it: URL-safe base64, without the leading dash that its tools
    take for an option."""
    text = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
    return text if not text.startswith("-") else _kafka_uuid()


def _settings(data: Path, port: int, max_message_bytes: int) -> dict[str, str]:
    controller = free_port()
    while controller == port:
        controller = free_port()
    return {
        "process.roles": "broker,controller",
        "node.id": "1",
        "controller.quorum.voters": f"1@127.0.0.1:{controller}",
        "listeners": f"PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}",
        "advertised.listeners": f"PLAINTEXT://127.0.0.1:{port}",
        "controller.listener.names": "CONTROLLER",
        "inter.broker.listener.name": "PLAINTEXT",
        "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
        "log.dirs": str(data),
        "auto.create.topics.enable": "false",
        "message.max.bytes": str(max_message_bytes),
        "replica.fetch.max.bytes": str(max_message_bytes),
        **_ONE_BROKER,
        **_SMALL_AND_QUICK,
    }


_ONE_BROKER = {
    "offsets.topic.replication.factor": "1",
    "transaction.state.log.replication.factor": "1",
    "transaction.state.log.min.isr": "1",
    "share.coordinator.state.topic.replication.factor": "1",
    "share.coordinator.state.topic.min.isr": "1",
}

_SMALL_AND_QUICK = {
    "offsets.topic.num.partitions": "4",
    "transaction.state.log.num.partitions": "4",
    "offsets.topic.segment.bytes": "16777216",
    "transaction.state.log.segment.bytes": "16777216",
    "group.initial.rebalance.delay.ms": "0",
    # After a kill, a broker may register again only when its old session has ended.
    "broker.session.timeout.ms": "6000",
    "broker.heartbeat.interval.ms": "500",
    "num.network.threads": "2",
    "num.io.threads": "4",
    "log.index.size.max.bytes": "1048576",  # index files are allocated whole
    "log.cleaner.dedupe.buffer.size": "16777216",  # taken from the heap at the start
    "log.cleaner.backoff.ms": "2000",
    "metric.reporters": "",
}


def _answers(port: int) -> bool:
    """Whether the broker is registered and serves clients; it listens a little earlier."""
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1.0).close()
    except OSError:  # sooner and without the log lines of the client's own retries
        return False
    return any(not broker.get("is_fenced", False) for broker in _brokers(port))


def _brokers(port: int) -> list[dict[str, Any]]:
    """Returns the cluster's brokers, none when Kafka does not answer.

    When its first contact fails, kafka-python leaves its clients open, so they are closed here.
    """
    clients: list[KafkaNetClient] = []

    def remembered(**settings: object) -> KafkaNetClient:
        clients.append(KafkaNetClient(**settings))
        return clients[-1]

    try:
        with KafkaAdminClient(
            bootstrap_servers=f"127.0.0.1:{port}",
            bootstrap_timeout_ms=FIRST_ANSWER_TIMEOUT_MS,
            request_timeout_ms=FIRST_ANSWER_TIMEOUT_MS,
            kafka_client=remembered,
        ) as admin:
            return list(admin.describe_cluster()["brokers"])
    except KafkaError:
        for client in clients:
            client.close()
        return []
