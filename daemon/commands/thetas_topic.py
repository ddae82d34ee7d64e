"""What the commands on the meta-inits topic share: the topic, who acts, and when."""

from __future__ import annotations

import getpass
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from daemon.config import Settings
from daemon.thetas.port import MetaInits

ConfigFile = Annotated[
    Path | None,
    typer.Option("--config", help="TOML file of settings; the environment wins over it."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]


@contextmanager
def opened_topic(settings: Settings) -> Iterator[MetaInits]:
    """Opens the meta-inits topic for a block. Raises Unavailable, Misconfigured."""
    from daemon.adapters.kafka_python.meta_inits import KafkaPythonMetaInits

    topic = KafkaPythonMetaInits(settings, f"adaptd-meta-init-{who()}")
    try:
        yield topic
    finally:
        topic.close()


def who() -> str:
    """Returns user and host, to tell people who activated a θ."""
    try:
        user = getpass.getuser()
    except (OSError, KeyError):  # a container's user may have no name
        user = "unknown"
    return f"{user}@{socket.gethostname()}"


def now_ms() -> int:
    """Returns milliseconds since 1970, UTC."""
    return time.time_ns() // 1_000_000


def time_told(ms: int) -> str:
    """Returns a time (ms, UTC) for people; a record may hold any number."""
    try:
        return datetime.fromtimestamp(ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S")
    except (ValueError, OverflowError, OSError):
        return f"{ms} ms"
