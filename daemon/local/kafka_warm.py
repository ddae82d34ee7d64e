"""Kafka starts in half the time from an ahead-of-time cache, made in one practice run.

The cache (Java 25 and later, JEP 514) holds Kafka's classes parsed, linked and profiled. It is
bound to one Java build and to the jars' paths, so it is made here, once, and never shipped. Java
itself checks that it fits and goes on without when it does not, so nothing depends on it.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from daemon.local.errors import ServicesUnavailable
from daemon.local.folders import locked
from daemon.local.kafka_install import KafkaInstall, Note
from daemon.local.server import Server
from daemon.local.starting import started

FIRST_JAVA_WITH_ONE_STEP_CACHES = 25
PRACTICE_STOP_S = 60.0  # Java writes the cache when it ends

NewServer = Callable[[list[str]], Server]
"""A Kafka server, not started, whose Java has these flags added."""


def warm(install: KafkaInstall, new_server: NewServer, note: Note) -> list[str]:
    """The flags to start with; makes the cache first when there is none."""
    cache = install.aot_cache
    if install.java_version[0] < FIRST_JAVA_WITH_ONE_STEP_CACHES:
        return []
    if not cache.exists():
        with locked(cache.with_suffix(".lock")):
            if not cache.exists():
                note("preparing Kafka for quick starts (10 s, only this first time)")
                _practise(cache, new_server)
    usable = cache.stat().st_size > 0
    return [f"-XX:AOTCache={cache}", "-Xlog:aot*=off", "-Xlog:cds*=off"] if usable else []


def _practise(cache: Path, new_server: NewServer) -> None:
    """Start and stop a broker that records what it loads. An empty file means: it did not work."""
    half = cache.with_suffix(f".half-{os.getpid()}")
    half.unlink(missing_ok=True)
    flags = [f"-XX:AOTCacheOutput={half}", "-Xlog:aot*=off", "-Xlog:cds*=off"]
    try:
        with started(lambda: new_server(flags)) as server:
            server.stop(PRACTICE_STOP_S)
    except ServicesUnavailable:
        half.unlink(missing_ok=True)
    half.touch()
    half.replace(cache)
