"""Producing to Kafka by kafka-python: idempotently, acknowledged by all in-sync replicas.

Theory of operation: `send` runs on the loop's thread and waits for the producer's own thread, which
batches the messages and holds the sockets. It may block for `kafka_timeout_ms` while a topic's
metadata is looked up, and for `kafka_delivery_timeout_ms` while messages are delivered. A message
may arrive although `send` raised: the turn is then repeated and sends it again, so readers keep the
largest (epoch, version). After a failure the producer is thrown away with what it still holds:
that must not come behind what the repeated turn sends.
"""

from __future__ import annotations

from collections.abc import Sequence

from kafka import KafkaProducer

from daemon.adapters.kafka_limits import BATCH_BYTES, BUFFER_BYTES, CLOSE_TIMEOUT_S, LINGER_MS
from daemon.adapters.kafka_python.client import QUIET, connect, kafka_errors_translated
from daemon.adapters.kafka_python.mended import WholeMessages, close_at_once, send_whole
from daemon.config import Settings
from daemon.errors import Misconfigured, Unavailable
from daemon.wire.record import Message


class KafkaPythonOutbox:
    """The Outbox port on a KafkaProducer. Raises Unavailable when the broker does not answer at the
    start, Misconfigured when it refuses the credentials or the settings.
    """

    def __init__(self, settings: Settings, client_id: str) -> None:
        self._settings = settings
        self._client_id = client_id
        self._producer: KafkaProducer | None = self._connect()

    def _connect(self) -> KafkaProducer:
        return connect(
            KafkaProducer,
            self._settings,
            **QUIET,
            client_id=self._client_id,
            acks="all",
            enable_idempotence=True,
            allow_auto_create_topics=False,
            value_serializer=WholeMessages(),
            batch_size=BATCH_BYTES,
            linger_ms=LINGER_MS,
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
        except (Unavailable, Misconfigured):
            self.close()
            raise

    def _send(self, producer: KafkaProducer, messages: Sequence[Message]) -> None:
        futures = [send_whole(producer, message) for message in messages]
        timeout_s = self._settings.kafka_delivery_timeout_ms / 1000 + 1
        producer.flush(timeout_s)
        for future in futures:
            future.get(timeout_s)

    def close(self) -> None:
        """See Outbox. What was sent is acknowledged by now, or to be given up."""
        producer, self._producer = self._producer, None
        if producer is not None:
            close_at_once(producer, CLOSE_TIMEOUT_S)
