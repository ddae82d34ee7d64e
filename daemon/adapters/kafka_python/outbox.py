"""Producing to Kafka, by kafka-python: idempotent, acknowledged by all in-sync replicas."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress

from kafka import KafkaProducer
from kafka.errors import KafkaError

from daemon.adapters.kafka_python.client import QUIET, connection_arguments, kafka_errors_translated
from daemon.config import Settings
from daemon.errors import Unavailable
from daemon.wire.record import Message

CLOSE_TIMEOUT_S = 2.0
BATCH_BYTES = 512 * 1024
BUFFER_BYTES = 64 * 1024 * 1024


class KafkaPythonOutbox:
    """Sends a turn's messages and waits for them.

    After a failure the producer is thrown away: whatever it still held is sent again by the turn
    that repeats this one, and must not come behind it.
    """

    def __init__(self, settings: Settings, client_id: str) -> None:
        self._settings = settings
        self._client_id = client_id
        self._producer = self._connect()

    def _connect(self) -> KafkaProducer:
        with kafka_errors_translated("connect"):
            return KafkaProducer(
                **connection_arguments(self._settings),
                **QUIET,
                client_id=self._client_id,
                acks="all",
                enable_idempotence=True,
                allow_auto_create_topics=False,
                batch_size=BATCH_BYTES,
                linger_ms=5,
                max_request_size=BUFFER_BYTES,
                max_block_ms=self._settings.kafka_timeout_ms,
                delivery_timeout_ms=self._settings.kafka_delivery_timeout_ms,
            )

    def send(self, messages: Sequence[Message]) -> None:
        """See Outbox."""
        if self._producer is None:
            self._producer = self._connect()
        try:
            with kafka_errors_translated("produce"):
                self._send(self._producer, messages)
        except Unavailable:
            self.close()
            raise

    def _send(self, producer: KafkaProducer, messages: Sequence[Message]) -> None:
        futures = [
            producer.send(m.topic, value=m.value, key=m.key, headers=list(m.headers))
            for m in messages
        ]
        timeout_s = self._settings.kafka_delivery_timeout_ms / 1000 + 1
        producer.flush(timeout_s)
        for future in futures:
            future.get(timeout_s)

    def close(self) -> None:
        """See Outbox. What was sent is acknowledged, or to be given up: without force_close,
        kafka-python 3.0.12 would flush first, and if that times out close nothing at all, so that
        a thread is left behind which sends old messages once the broker is back."""
        producer, self._producer = self._producer, None
        if producer is not None:
            producer._sender.force_close()
            with suppress(KafkaError, OSError):
                producer.close(CLOSE_TIMEOUT_S)
