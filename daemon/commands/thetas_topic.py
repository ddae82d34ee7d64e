"""What the commands on the meta-inits topic share: the topic, who acts, and when."""

from __future__ import annotations

import getpass
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager

from daemon.config import Settings
from daemon.thetas.port import MetaInits


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
