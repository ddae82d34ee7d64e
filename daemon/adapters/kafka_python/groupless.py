"""A consumer in no group, which reads where it is told to and commits nothing."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from kafka import KafkaConsumer
from kafka.errors import KafkaError

from daemon.adapters.kafka_limits import CLOSE_TIMEOUT_S, FETCH_WAIT_MS
from daemon.adapters.kafka_python.client import QUIET, connect
from daemon.adapters.kafka_python.unreadable import read_past_what_is_unreadable
from daemon.config import Settings


def groupless_consumer(settings: Settings, client_id: str, **arguments: Any) -> KafkaConsumer:
    """Returns a consumer with no partitions yet; what it cannot parse comes as a RawRecord with a
    fault. `arguments` are KafkaConsumer's. Raises Unavailable, Misconfigured."""
    consumer = connect(
        KafkaConsumer,
        settings,
        **QUIET,
        client_id=client_id,
        group_id=None,
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        allow_auto_create_topics=False,
        isolation_level=settings.kafka_isolation_level,
        fetch_max_wait_ms=FETCH_WAIT_MS,
        **arguments,
    )
    read_past_what_is_unreadable(consumer)
    return consumer


def close_consumer(consumer: KafkaConsumer | None) -> None:
    """Closes any consumer, if there is one, within CLOSE_TIMEOUT_S and commits nothing. Never
    raises."""
    if consumer is not None:
        with suppress(KafkaError, OSError):
            consumer.close(autocommit=False, timeout_ms=int(1000 * CLOSE_TIMEOUT_S))
